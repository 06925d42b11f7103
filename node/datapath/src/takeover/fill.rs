//! Filling a new map from one that programs still use: of another size, or of another layout.

use crate::{DatapathError, maps::refused};
use aya::{
    Pod,
    maps::{HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
#[cfg(not(any(feature = "next-abi", feature = "former-abi")))]
use heddle_abi::ConnectionEntry1;
#[cfg(feature = "next-abi")]
use heddle_abi::next_abi;
use heddle_abi::{Address, ConnectionEntry, ConnectionKey, IpcacheValue, layout_of, map_names};
use std::{collections::HashSet, path::Path};

/// `BPF_NOEXIST` and `BPF_EXIST`: programs may write the same entry, or remove it.
const NO_EXIST: u64 = 1;
const EXIST: u64 = 2;
/// What the kernel answers then: `EEXIST` and `ENOENT`.
const RACES: [i32; 2] = [17, 2];

/// Fills the second map from the first; the third says whether no program uses the second.
type Fill = fn(MapData, MapData, &dyn Fn() -> bool) -> Result<(), MapError>;

/// A way from one layout to another.
struct Filling {
    map: &'static str,
    from: u32,
    to: u32,
    fill: Fill,
    /// Bytes of a key and of a value of the layout `to`.
    sizes: (usize, usize),
    /// Entries of a map of the layout `from`.
    count: fn(MapData) -> Result<u64, MapError>,
}

/// The ways that this version knows; a changed layout gets its migration here.
fn fillings() -> Vec<Filling> {
    let now = |map| layout_of(map).map_or(0, |it| it.layout);
    let mut known = vec![Filling {
        map: map_names::IPCACHE,
        from: now(map_names::IPCACHE),
        to: now(map_names::IPCACHE),
        fill: |from, to, _| mirror::<Address, IpcacheValue>(from, to),
        sizes: (size_of::<Key<Address>>(), size_of::<IpcacheValue>()),
        count: |map| {
            let map: LpmTrie<_, Address, IpcacheValue> = Map::LpmTrie(map).try_into()?;
            Ok(map.keys().filter_map(Result::ok).count() as u64)
        },
    }];
    for map in [map_names::CONNECTIONS, map_names::ESTABLISHED] {
        known.push(Filling {
            map,
            from: now(map),
            to: now(map),
            fill: |from, to, is_unused| {
                copy::<ConnectionKey, _, _>(from, to, is_unused, |it| it, freshness)
            },
            sizes: (size_of::<ConnectionKey>(), size_of::<ConnectionEntry>()),
            count: count::<ConnectionKey, ConnectionEntry>,
        });
        // Version 3 and older.
        #[cfg(not(any(feature = "next-abi", feature = "former-abi")))]
        known.extend([
            Filling {
                map,
                from: 1,
                to: now(map),
                fill: |from, to, is_unused| {
                    let convert = |it: ConnectionEntry1| ConnectionEntry::from(it);
                    copy::<ConnectionKey, _, _>(from, to, is_unused, convert, freshness)
                },
                sizes: (size_of::<ConnectionKey>(), size_of::<ConnectionEntry>()),
                count: count::<ConnectionKey, ConnectionEntry1>,
            },
            Filling {
                map,
                from: now(map),
                to: 1,
                fill: |from, to, is_unused| {
                    let convert = |it: ConnectionEntry| ConnectionEntry1::from(it);
                    let freshness = |it: &ConnectionEntry1| freshness(&ConnectionEntry::from(*it));
                    copy::<ConnectionKey, _, _>(from, to, is_unused, convert, freshness)
                },
                sizes: (size_of::<ConnectionKey>(), size_of::<ConnectionEntry1>()),
                count: count::<ConnectionKey, ConnectionEntry>,
            },
        ]);
        #[cfg(feature = "next-abi")]
        known.extend([
            Filling {
                map,
                from: next_abi::BEFORE,
                to: next_abi::NOW,
                fill: |from, to, is_unused| {
                    let freshness = |it: &_| next_abi::freshness(&next_abi::narrow(*it));
                    copy::<ConnectionKey, _, _>(from, to, is_unused, next_abi::widen, freshness)
                },
                sizes: (size_of::<ConnectionKey>(), 128),
                count: count::<ConnectionKey, [u8; 120]>,
            },
            Filling {
                map,
                from: next_abi::NOW,
                to: next_abi::BEFORE,
                fill: |from, to, is_unused| {
                    let narrow = next_abi::narrow;
                    copy::<ConnectionKey, _, _>(from, to, is_unused, narrow, next_abi::freshness)
                },
                sizes: (size_of::<ConnectionKey>(), 120),
                count: count::<ConnectionKey, [u8; 128]>,
            },
        ]);
    }
    known
}

/// Whether there is a way from one layout of a map to another.
pub(super) fn is_known(map: &str, from: u32, to: u32) -> bool {
    fillings()
        .iter()
        .any(|it| it.map == map && it.from == from && it.to == to)
}

/// Brings what is in a pinned map of one layout into another pinned map.
///
/// May be done again and again while programs use either: of two entries of one key the one that was used last
/// stays. What the first has no more goes from the second while `is_unused` says that no program uses that.
pub(super) fn fill(
    map: &str,
    from: u32,
    source: MapData,
    to: u32,
    target: MapData,
    is_unused: &dyn Fn() -> bool,
) -> Result<(), DatapathError> {
    match fillings()
        .iter()
        .find(|it| it.map == map && it.from == from && it.to == to)
    {
        Some(known) => (known.fill)(source, target, is_unused).map_err(refused("fill map", map)),
        None => Err(DatapathError::Failed {
            doing: "fill map",
            object: map.to_owned(),
            reason: format!("no way from layout {from} to {to} is known"),
        }),
    }
}

/// An empty map of one layout, like a pinned one of another.
pub(super) fn make_like(
    map: &str,
    from: u32,
    pin: &Path,
    to: u32,
) -> Result<MapData, DatapathError> {
    let known = fillings();
    let known = known
        .iter()
        .find(|it| it.map == map && it.from == from && it.to == to);
    let (key, value) = known.map_or((0, 0), |it| it.sizes);
    MapData::from_pin(pin)
        .and_then(|pinned| pinned.info())
        .and_then(|like| {
            let parameters = aya_obj::Map::new_from_params(
                like.map_type()? as u32,
                key as u32,
                value as u32,
                like.max_entries(),
                like.map_flags(),
            );
            MapData::create(parameters, map, None)
        })
        .map_err(refused("make map", map))
}

/// Entries in a pinned map.
pub(super) fn entries(map: &str, layout: u32, pin: &Path) -> Result<u64, DatapathError> {
    match fillings()
        .iter()
        .find(|it| it.map == map && it.from == layout)
    {
        Some(known) => MapData::from_pin(pin)
            .and_then(known.count)
            .map_err(refused("count entries of map", map)),
        None => Ok(0),
    }
}

fn count<K: Pod, V: Pod>(map: MapData) -> Result<u64, MapError> {
    let map: HashMap<_, K, V> = Map::LruHashMap(map).try_into()?;
    Ok(map.keys().filter_map(Result::ok).count() as u64)
}

/// When an entry was used last: the second of its last event, and packets for what came since.
fn freshness(entry: &ConnectionEntry) -> (u32, u64) {
    (entry.last_report, entry.packets.iter().sum())
}

/// Copies a hash that programs write, one that evicts or one that does not.
fn copy<K: Pod, V1: Pod, V2: Pod + PartialEq>(
    source: MapData,
    target: MapData,
    is_unused: &dyn Fn() -> bool,
    convert: impl Fn(V1) -> V2,
    freshness: impl Fn(&V2) -> (u32, u64),
) -> Result<(), MapError> {
    let source: HashMap<_, K, V1> = Map::LruHashMap(source).try_into()?;
    let mut target: HashMap<_, K, V2> = Map::LruHashMap(target).try_into()?;
    // First, since the target may be full.
    if is_unused() {
        remove_stale(&source, &mut target, is_unused);
    }
    // Entries that go while they are read are no error.
    for (key, value) in source.iter().filter_map(Result::ok) {
        let value = convert(value);
        let flags = match target.get(&key, 0) {
            Ok(present) if freshness(&present) >= freshness(&value) => continue,
            Ok(_) => EXIST,
            Err(_) => NO_EXIST,
        };
        match target.insert(key, value, flags) {
            Err(MapError::SyscallError(error))
                if error
                    .io_error
                    .raw_os_error()
                    .is_some_and(|code| RACES.contains(&code)) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Removes what the source has no more.
fn remove_stale<K: Pod, V1: Pod, V2: Pod + PartialEq>(
    source: &HashMap<MapData, K, V1>,
    target: &mut HashMap<MapData, K, V2>,
    is_unused: &dyn Fn() -> bool,
) {
    let is_gone = |key: &K| matches!(source.get(key, 0), Err(MapError::KeyNotFound));
    let rows = target.iter().filter_map(Result::ok);
    let stale: Vec<(K, V2)> = rows.filter(|(key, _)| is_gone(key)).collect();
    // Programs that began to use it meanwhile may have written again what was stale.
    if !is_unused() {
        return;
    }
    for (key, value) in stale {
        if is_gone(&key) && target.get(&key, 0).is_ok_and(|it| it == value) {
            let _ = target.remove(&key);
        }
    }
}

/// Makes a trie equal to another that only user space writes.
fn mirror<K: Pod + Eq + std::hash::Hash, V: Pod>(
    source: MapData,
    target: MapData,
) -> Result<(), MapError> {
    let source: LpmTrie<_, K, V> = Map::LpmTrie(source).try_into()?;
    let mut target: LpmTrie<_, K, V> = Map::LpmTrie(target).try_into()?;
    let mut present = HashSet::new();
    for row in source.iter() {
        let (key, value) = row?;
        target.insert(&key, value, 0)?;
        present.insert((key.prefix_len(), key.data()));
    }
    let stale: Vec<_> = target
        .keys()
        .filter_map(Result::ok)
        .filter(|key| !present.contains(&(key.prefix_len(), key.data())))
        .collect();
    stale.iter().try_for_each(|key| target.remove(key))
}

#[cfg(all(test, feature = "next-abi"))]
mod tests {
    use heddle_abi::next_abi::{narrow, widen};

    #[test]
    fn an_entry_survives_the_way_there_and_back() {
        let entry: [u8; 120] = std::array::from_fn(|at| at as u8);
        assert_eq!(narrow(widen(entry)), entry);
    }
}
