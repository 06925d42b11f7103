//! Tracked connections: those of `CONNECTIONS`, which evicts, and of `ESTABLISHED`, which does not.

use crate::{
    ConnectionRow, DatapathError,
    conversion::connection_row,
    maps::{Connections, Maps, lock, refused},
};
use heddle_abi::{ConnectionEntry, ConnectionKey, SHARES};

/// Connections in both tables, at most `limit`.
pub(crate) fn list(maps: &Maps, limit: usize) -> Vec<ConnectionRow> {
    let established = lock(&maps.established);
    let others = lock(&maps.connections);
    established
        .iter()
        .chain(others.iter())
        .filter_map(Result::ok)
        .take(limit)
        .map(|(key, entry)| connection_row(key, entry))
        .collect()
}

/// Removes dead connections; gives (kept, removed).
pub(crate) fn sweep(
    maps: &Maps,
    dead: impl Fn(&ConnectionKey, &ConnectionEntry) -> bool,
) -> (u64, u64) {
    sweep_tables(maps, dead, |_| {})
}

/// As [`sweep`], and counts anew who holds how many established connections: the programs' own counts lose a
/// step where two CPUs count at once, and know nothing of what [`sweep`] removed.
pub(crate) fn sweep_and_count(
    maps: &Maps,
    dead: impl Fn(&ConnectionKey, &ConnectionEntry) -> bool,
) -> Result<(u64, u64), DatapathError> {
    let mut counts = vec![0_u32; SHARES as usize];
    let swept = sweep_tables(maps, dead, |entry| {
        if let Some(count) = counts.get_mut(usize::from(entry.share)) {
            *count += 1;
        }
    });
    let mut shares = lock(&maps.shares);
    for (share, count) in (0..SHARES).zip(counts) {
        let failed = || refused("write share", share.to_string());
        if shares.get(&share, 0).map_err(failed())? != count {
            shares.set(share, count, 0).map_err(failed())?;
        }
    }
    Ok(swept)
}

/// Removes the dead connections of both tables, and tells of each established one that stays.
fn sweep_tables(
    maps: &Maps,
    dead: impl Fn(&ConnectionKey, &ConnectionEntry) -> bool,
    stays: impl FnMut(&ConnectionEntry),
) -> (u64, u64) {
    let (kept, removed) = sweep_table(&mut lock(&maps.connections), &dead, |_| {});
    let (kept_too, removed_too) = sweep_table(&mut lock(&maps.established), &dead, stays);
    (kept + kept_too, removed + removed_too)
}

/// Removes the dead connections of one table, and tells of each that stays.
fn sweep_table(
    table: &mut Connections,
    dead: impl Fn(&ConnectionKey, &ConnectionEntry) -> bool,
    mut stays: impl FnMut(&ConnectionEntry),
) -> (u64, u64) {
    let mut doomed = Vec::new();
    let mut kept = 0;
    // A key that is evicted under the iteration starts it over in the worst case; the count is then
    // an estimate, and nothing alive is removed.
    for row in table.iter() {
        match row {
            Ok((key, entry)) if dead(&key, &entry) => doomed.push(key),
            Ok((_, entry)) => {
                kept += 1;
                stays(&entry);
            }
            Err(_) => {}
        }
    }
    let removed = doomed.len() as u64;
    for key in doomed {
        // Evicted meanwhile is as good.
        let _ = table.remove(&key);
    }
    (kept, removed)
}
