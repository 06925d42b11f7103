//! The compiled programs and how they are loaded.

use crate::{DatapathError, Settings, map_of_maps, policy::make_map, takeover::Takeover};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel, programs::SchedClassifier};
use heddle_abi::{ABI_VERSION, LAYOUTS, map_names};
use std::path::{Path, PathBuf};

/// The programs, as the build compiled them.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/heddle.bpf.o"));

/// Names of the programs in the object.
pub const PROGRAMS: [&str; 6] = [
    "from_pod",
    "to_pod",
    "from_network",
    "to_network",
    "from_overlay",
    "to_overlay",
];

/// Where an ABI version's pins are.
pub(crate) fn version_directory_of(pin_dir: &Path, version: u32) -> PathBuf {
    pin_dir.join(format!("v{version}"))
}

/// Where an ABI version's maps are pinned, by name.
pub(crate) fn map_directory_of(pin_dir: &Path, version: u32) -> PathBuf {
    version_directory_of(pin_dir, version).join("maps")
}

/// Where this ABI's maps are pinned, by name.
pub(crate) fn map_directory(pin_dir: &Path) -> PathBuf {
    map_directory_of(pin_dir, ABI_VERSION)
}

/// Times that a directory is tried again when its parent vanished.
const PARENT_LOST: u32 = 16;

/// Where this ABI's pins live.
pub(crate) struct Pins {
    /// Maps, by name.
    pub(crate) maps: PathBuf,
    /// Links, by interface and direction.
    pub(crate) links: PathBuf,
}

impl Pins {
    /// The directories, made if need be.
    pub(crate) fn open(settings: &Settings) -> Result<Self, DatapathError> {
        let pins = Self {
            maps: map_directory(&settings.pin_dir),
            links: version_directory_of(&settings.pin_dir, ABI_VERSION).join("links"),
        };
        for directory in [&pins.maps, &pins.links] {
            // Whoever removes a node's pins removes empty parents too, perhaps under our feet.
            let mut made = std::fs::create_dir_all(directory);
            for _ in 0..PARENT_LOST {
                match &made {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        made = std::fs::create_dir_all(directory);
                    }
                    _ => break,
                }
            }
            made.map_err(|error| DatapathError::Failed {
                doing: "make pin directory",
                object: directory.display().to_string(),
                reason: format!(
                    "{error}; a bpffs must be mounted there (mount -t bpf bpf /sys/fs/bpf)"
                ),
            })?;
        }
        Ok(pins)
    }
}

/// Loads maps (those pinned already are taken as they are) and programs.
pub(crate) fn load(takeover: &Takeover) -> Result<Ebpf, DatapathError> {
    let failed = |doing: &'static str, object: &str, reason: String| DatapathError::Failed {
        doing,
        object: object.to_owned(),
        reason,
    };
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, room) in takeover.rooms() {
        loader.map_max_entries(name, room);
    }
    for map in &LAYOUTS {
        loader.map_pin_path(map.name, takeover.pin_of(map.name));
    }
    map_of_maps::make_if_missing(&takeover.pin_of(map_names::POLICIES), &make_map(1)?)?;
    let mut object = loader
        .load(OBJECT)
        .map_err(|error| failed("load", "the eBPF maps", chain(&error)))?;
    for name in PROGRAMS {
        let program: &mut SchedClassifier = object
            .program_mut(name)
            .ok_or_else(|| failed("find program", name, "it is not in the object".to_owned()))?
            .try_into()
            .map_err(|error| failed("use program", name, chain(&error)))?;
        program
            .load()
            .map_err(|error| failed("load program", name, chain(&error)))?;
    }
    Ok(object)
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
