//! The way back to an older version, which does not know the layouts of this one: this one prepares its maps.

use super::{fill, is_unused, names, read_version, record, remove, share};
use crate::{
    DatapathError,
    maps::refused,
    object::{map_directory_of, version_directory_of},
    pinned::Pinned,
};
use aya::maps::MapData;
use heddle_abi::{
    ABI_VERSION, Content, HOST_ENDPOINT, LAYOUTS, POLICY_SLOT_NONE, VERSION_WITHOUT_RECORD,
    former_layout,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How often what came meanwhile is brought over.
const EVERY: Duration = Duration::from_millis(20);

/// A map that the older version has in another layout.
struct Converted {
    name: &'static str,
    from: u32,
    to: u32,
    /// Open, so that it stays when its pin goes.
    source: MapData,
    target: MapData,
}

/// An older version's maps, ready for it to start with.
pub struct Prepared {
    pin_dir: PathBuf,
    version: u32,
    converted: Vec<Converted>,
}

/// Makes the maps of an older version from this one's. Traffic is not touched; a later start of this version
/// takes the preparation back.
///
/// # Errors
///
/// When this version does not know the older one's layouts (nothing was touched), or the kernel refuses a map.
pub fn prepare_downgrade(pin_dir: &Path, version: u32) -> Result<Prepared, DatapathError> {
    let refusal = |reason: String| DatapathError::OtherVersion {
        version: ABI_VERSION,
        own: version,
        directory: version_directory_of(pin_dir, ABI_VERSION),
        reason,
        help: "drain the node and remove its pin directory before the older version starts"
            .to_owned(),
    };
    if version <= VERSION_WITHOUT_RECORD {
        return Err(refusal(format!(
            "version {version} cannot take over from any other"
        )));
    }
    let newer = map_directory_of(pin_dir, ABI_VERSION);
    if names(&newer)?.is_empty() {
        return Err(refusal("nothing is pinned there".to_owned()));
    }
    let known: Vec<_> = LAYOUTS
        .iter()
        .filter_map(|map| Some((map, former_layout(version, map.name)?)))
        .collect();
    if version >= ABI_VERSION || known.is_empty() {
        return Err(refusal(format!(
            "its layouts are not known to version {ABI_VERSION}"
        )));
    }
    for (map, layout) in &known {
        if *layout != map.layout
            && map.content == Content::Kept
            && !fill::is_known(map.name, map.layout, *layout)
        {
            return Err(refusal(format!(
                "map {} cannot be brought from layout {} to {layout}",
                map.name, map.layout
            )));
        }
    }
    if version < FIRST_VERSION_WITH_ALIASES && has_aliases(pin_dir)? {
        return Err(refusal(format!(
            "policies in force have alias rows, which version {version} would take for allows or denies of their own"
        )));
    }
    let pinned = read_version(pin_dir, ABI_VERSION)?;
    let older = map_directory_of(pin_dir, version);
    std::fs::create_dir_all(&older)
        .map_err(|error| super::failed("make pin directory", &older, &error))?;
    record::write(
        &older,
        known.iter().map(|(map, layout)| (map.name, *layout)),
    )?;
    let mut converted = Vec::new();
    for (map, layout) in known {
        if !pinned.maps.contains_key(map.name) {
            continue;
        }
        let (from, to) = (newer.join(map.name), older.join(map.name));
        if layout == map.layout {
            share(&from, &to)?;
        } else if fill::is_known(map.name, map.layout, layout) {
            // From an earlier preparation, before this version's map got another size.
            if room_in(&to).is_some_and(|room| Some(room) != room_in(&from))
                && is_unused(pin_dir, version, ABI_VERSION)
            {
                remove(&to)?;
            }
            if !to.exists() {
                fill::make_like(map.name, map.layout, &from, layout)?
                    .pin(&to)
                    .map_err(|error| super::failed("pin map", &to, &error))?;
            }
            let open = |pin| MapData::from_pin(pin).map_err(refused("open map", map.name));
            converted.push(Converted {
                name: map.name,
                from: map.layout,
                to: layout,
                source: open(&from)?,
                target: open(&to)?,
            });
        }
    }
    let prepared = Prepared {
        pin_dir: pin_dir.to_owned(),
        version,
        converted,
    };
    prepared.copy()?;
    Ok(prepared)
}

/// The first version whose programs follow alias rows of policies.
const FIRST_VERSION_WITH_ALIASES: u32 = 4;

/// Whether a policy in force has alias rows.
fn has_aliases(pin_dir: &Path) -> Result<bool, DatapathError> {
    let pinned = Pinned::open(pin_dir)?;
    let bindings = pinned.bindings()?;
    for endpoint in 0..=HOST_ENDPOINT as u16 {
        if bindings.of(endpoint)?.slot() != POLICY_SLOT_NONE
            && !pinned.policy(endpoint)?.aliases.is_empty()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Entries that a pinned map can hold; `None` without one.
fn room_in(pin: &Path) -> Option<u32> {
    let info = MapData::from_pin(pin).and_then(|map| map.info());
    info.ok().map(|info| info.max_entries())
}

impl Prepared {
    /// Brings over what came since the last time, and what went as long as the older version has not started; true
    /// when that has taken over, and nothing more is to come. To be called several times a second until then.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map.
    pub fn follow(&self) -> Result<bool, DatapathError> {
        // First: what comes after the last link has moved comes to the older version's maps.
        let done = !version_directory_of(&self.pin_dir, ABI_VERSION).exists();
        self.copy()?;
        Ok(done)
    }

    /// Follows until the older version has taken over (true), or until `is_enough` (false): a later call, or a later
    /// preparation, goes on then.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a map.
    pub fn follow_until(&self, is_enough: impl Fn() -> bool) -> Result<bool, DatapathError> {
        while !self.follow()? {
            if is_enough() {
                return Ok(false);
            }
            std::thread::sleep(EVERY);
        }
        Ok(true)
    }

    fn copy(&self) -> Result<(), DatapathError> {
        let again = |map: &MapData| MapData::from_id(map.info()?.id());
        for it in &self.converted {
            let source = again(&it.source).map_err(refused("open map", it.name))?;
            let target = again(&it.target).map_err(refused("open map", it.name))?;
            let is_unused = || is_unused(&self.pin_dir, self.version, ABI_VERSION);
            fill::fill(it.name, it.from, source, it.to, target, &is_unused)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_takes_over_from_nobody_is_refused_before_anything_is_touched() {
        let pins = Path::new("/nowhere");
        for version in 0..=VERSION_WITHOUT_RECORD {
            match prepare_downgrade(pins, version).map(drop) {
                Err(DatapathError::OtherVersion { reason, help, .. }) => {
                    assert!(reason.contains("cannot take over"), "{reason}");
                    assert!(help.starts_with("drain the node"), "{help}");
                }
                outcome => panic!("{outcome:?}"),
            }
        }
        assert!(!pins.exists());
    }
}
