//! Tracked connections: those of `CONNECTIONS`, which evicts, and of `ESTABLISHED`, which does not.

use crate::{
    ConnectionRow, ConnectionRows, DatapathError, batch,
    conversion::connection_row,
    maps::{Connections, Maps, lock, refused},
};
use aya::maps::IterableMap as _;
use heddle_abi::{ConnectionEntry, ConnectionKey, SHARES};

/// Connections of both tables whose keys fit, at most `limit`.
pub(crate) fn list(
    maps: &Maps,
    fits: &dyn Fn(&ConnectionKey) -> bool,
    limit: usize,
) -> Result<ConnectionRows, DatapathError> {
    // One lock at a time.
    of_both(
        limit,
        |most| rows(&lock(&maps.connections), fits, most),
        |most| rows(&lock(&maps.established), fits, most),
    )
    .map(ConnectionRows::from)
}

/// Some rows of a table, and how many there are beyond them.
pub(crate) struct Rows<T>(Vec<T>, u64);

impl From<Rows<ConnectionRow>> for ConnectionRows {
    fn from(Rows(rows, left_out): Rows<ConnectionRow>) -> Self {
        Self { rows, left_out }
    }
}

/// Rows of a table whose keys fit, at most `most`.
pub(crate) fn rows(
    table: &Connections,
    fits: &dyn Fn(&ConnectionKey) -> bool,
    most: usize,
) -> Result<Rows<ConnectionRow>, DatapathError> {
    let (mut rows, mut left_out) = (Vec::new(), 0);
    batch::read(
        table.map(),
        |key: &ConnectionKey, entry: &ConnectionEntry| {
            if !fits(key) {
                return;
            }
            if rows.len() < most {
                rows.push(connection_row(*key, *entry));
            } else {
                left_out += 1;
            }
        },
    )
    .map_err(refused("read", "connections"))?;
    Ok(Rows(rows, left_out))
}

/// At most `limit` rows of both tables: each has half of them, and what the other leaves. Established connections alone
/// would say nothing of those that hear no answer.
pub(crate) fn of_both<T, E>(
    limit: usize,
    connections: impl FnOnce(usize) -> Result<Rows<T>, E>,
    established: impl FnOnce(usize) -> Result<Rows<T>, E>,
) -> Result<Rows<T>, E> {
    let Rows(mut rows, mut left_out) = connections(limit)?;
    let left = limit.saturating_sub(rows.len());
    let Rows(established, beyond) = established(left.max(limit / 2))?;
    let kept = rows.len().min(limit.saturating_sub(established.len()));
    left_out += (rows.len() - kept) as u64 + beyond;
    rows.truncate(kept);
    rows.extend(established);
    Ok(Rows(rows, left_out))
}

/// Entries of a table.
pub(crate) fn count(table: &Connections, name: &str) -> Result<u64, DatapathError> {
    let mut entries = 0;
    batch::read(table.map(), |_: &ConnectionKey, _: &ConnectionEntry| {
        entries += 1
    })
    .map_err(refused("count", name))?;
    Ok(entries)
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
    let read = batch::read(
        table.map(),
        |key: &ConnectionKey, entry: &ConnectionEntry| {
            if dead(key, entry) {
                doomed.push(*key);
            } else {
                kept += 1;
                stays(entry);
            }
        },
    );
    if let Err(error) = read {
        tracing::warn!(%error, "not all tracked connections were looked at");
    }
    let mut removed = 0;
    for key in doomed {
        // Looked at again: packets may have opened it anew since it was read. Only what is opened between these
        // two calls is lost, and its next packet opens it once more.
        match table.get(&key, 0) {
            Ok(entry) if !dead(&key, &entry) => {
                kept += 1;
                stays(&entry);
            }
            Ok(_) => removed += u64::from(table.remove(&key).is_ok()),
            // Evicted meanwhile is as good.
            Err(_) => {}
        }
    }
    (kept, removed)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use aya::maps::MapData;

    #[test]
    fn each_table_has_its_share_of_the_rows_and_the_others_are_counted() {
        for (waiting, standing, expected) in [
            (0, 0, (0, 0)),
            (3, 4, (3, 4)),
            (10, 0, (10, 0)),
            (0, 10, (0, 10)),
            // A busy node: what stands does not take all places.
            (3, 100, (3, 7)),
            (100, 100, (5, 5)),
            (100, 3, (7, 3)),
            (10, 1, (9, 1)),
            (6, 4, (6, 4)),
        ] {
            let of = |name, there: usize| {
                move |most| {
                    let beyond = there.saturating_sub(most) as u64;
                    Ok::<_, ()>(Rows(vec![name; there.min(most)], beyond))
                }
            };
            let Rows(rows, left_out) =
                of_both(10, of("waiting", waiting), of("standing", standing)).expect("rows");
            let count = |name| rows.iter().filter(|row| **row == name).count();
            let found = (count("waiting"), count("standing"));
            assert_eq!(found, expected, "{waiting} {standing}");
            let all = (waiting + standing) as u64;
            assert_eq!(rows.len() as u64 + left_out, all, "{waiting} {standing}");
        }
    }

    /// Needs root.
    #[test]
    fn what_is_opened_again_while_the_table_is_read_stays() {
        let mut table = Connections::create(16, 0).expect("map");
        let id = table.map().info().expect("info").id();
        let packets = MapData::from_id(id).map(aya::maps::Map::HashMap);
        let mut packets = Connections::try_from(packets.expect("map")).expect("table");
        let entry = |expires, share| ConnectionEntry {
            expires,
            share,
            ..ConnectionEntry::default()
        };
        let key = |low_port| ConnectionKey {
            low_port,
            ..ConnectionKey::default()
        };
        for (port, expires) in [(1, 5), (2, 5), (3, 20)] {
            table
                .insert(key(port), entry(expires, port), 0)
                .expect("insert");
        }
        let reopened = std::cell::RefCell::new(&mut packets);
        let dead = |key: &ConnectionKey, found: &ConnectionEntry| {
            let is_dead = found.expires < 10;
            if is_dead && key.low_port == 2 {
                let again = reopened.borrow_mut().insert(key, entry(30, 2), 0);
                again.expect("opened again");
            }
            is_dead
        };
        let mut stayed = Vec::new();
        let swept = sweep_table(&mut table, dead, |entry| stayed.push(entry.share));
        stayed.sort_unstable();
        assert_eq!((swept, stayed), ((2, 1), vec![2, 3]));
        assert!(table.get(&key(1), 0).is_err() && table.get(&key(2), 0).is_ok());
    }
}
