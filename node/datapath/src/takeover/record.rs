//! The layouts of a version's maps, in a small map pinned beside them: a bpffs holds nothing but eBPF objects.

use super::failed;
use crate::DatapathError;
use aya::maps::{HashMap, Map, MapData};
use std::{collections::BTreeMap, path::Path};

/// Name of its pin.
pub(super) const NAME: &str = "LAYOUTS";

/// A map's name, filled up with zeros.
type Name = [u8; 16];
/// Room for more maps than any version has.
const ROOM: u32 = 64;

/// The layouts by map; `None` without a record.
pub(super) fn read(maps: &Path) -> Result<Option<BTreeMap<String, u32>>, DatapathError> {
    let pin = maps.join(NAME);
    if !pin.exists() {
        return Ok(None);
    }
    let error = |error| failed("read layouts in", &pin, &error);
    let map: HashMap<_, Name, u32> = MapData::from_pin(&pin)
        .and_then(|map| Map::HashMap(map).try_into())
        .map_err(error)?;
    let mut layouts = BTreeMap::new();
    for row in map.iter() {
        let (name, layout) = row.map_err(error)?;
        let name = String::from_utf8_lossy(&name);
        layouts.insert(name.trim_end_matches('\0').to_owned(), layout);
    }
    Ok(Some(layouts))
}

/// Writes the record, unless there is one. It is pinned when it is complete, before any map.
pub(super) fn write<'a>(
    maps: &Path,
    layouts: impl Iterator<Item = (&'a str, u32)>,
) -> Result<(), DatapathError> {
    let pin = maps.join(NAME);
    if pin.exists() {
        return Ok(());
    }
    let error = |error| failed("write layouts in", &pin, &error);
    let mut map = HashMap::<_, Name, u32>::create(ROOM, 0).map_err(error)?;
    for (name, layout) in layouts {
        let mut key = [0; size_of::<Name>()];
        let length = name.len().min(key.len());
        key[..length].copy_from_slice(&name.as_bytes()[..length]);
        map.insert(key, layout, 0).map_err(error)?;
    }
    map.pin(&pin)
        .map_err(|error| failed("pin layouts in", &pin, &error))
}
