//! Taking over what another ABI version, or a run with other sizes, left pinned.
//!
//! Everything is decided before anything is touched ([`plan`]). A map of equal layout is not copied: the very
//! same kernel map gets a pin of this version, too. A map whose layout or size differs is made new and filled
//! twice, before the links move to the new programs and after. Links move in place, one after the other;
//! the other version's directory goes last. Each step may be done again after an end at any moment.

mod downgrade;
mod fill;
mod plan;
mod record;

pub use downgrade::{Prepared, prepare_downgrade};

use crate::{
    DatapathError,
    maps::refused,
    object::{map_directory_of, version_directory_of},
};
use aya::maps::MapData;
use heddle_abi::{ABI_VERSION, LAYOUTS, MapLayout, VERSION_WITHOUT_RECORD, layout_of};
use plan::{Action, PinnedMap, Version};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// What the pin of a map in the making ends with, until it takes the place of the one of another size.
const IN_THE_MAKING: &str = "-next";

/// What an open of the datapath has just done, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenStep {
    /// Maps of equal layout have pins of this version.
    MapsShared,
    /// The others are made, and the programs are loaded.
    MapsMade,
    /// New maps hold what the ones before hold.
    MapsFilled,
    /// A link of another version has this one's pin.
    LinkAdopted,
    /// The programs know this node.
    Configured,
    /// A link runs this version's program, or a pod's links do.
    LinkMoved,
    /// What another kind of hook ran is off.
    OtherHooksRemoved,
    /// New maps hold what came meanwhile.
    MapsFilledAgain,
    /// A map of another size is in its place.
    MapMoved,
    /// Links that nobody wants are gone.
    LinksRemoved,
    /// What another version left is gone.
    OtherRemoved,
    /// All of it.
    Opened,
}

/// What is to be taken over, and how.
pub(crate) struct Takeover {
    pin_dir: PathBuf,
    others: Vec<Version>,
    plan: Vec<(&'static MapLayout, Action)>,
    rooms: BTreeMap<String, u32>,
}

fn failed(doing: &'static str, path: &Path, error: &dyn std::error::Error) -> DatapathError {
    DatapathError::Failed {
        doing,
        object: path.display().to_string(),
        reason: crate::object::chain(error),
    }
}

/// Names in a directory; none when it is not there.
fn names(directory: &Path) -> Result<Vec<String>, DatapathError> {
    let read = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(|error| failed("read", directory, &error))?,
    };
    read.map(|entry| entry.map(|it| it.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(|error| failed("read", directory, &error))
}

fn remove(pin: &Path) -> Result<(), DatapathError> {
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove pin", pin, &error)),
        _ => Ok(()),
    }
}

/// Pins a map at a second place, unless something is there.
fn share(from: &Path, to: &Path) -> Result<(), DatapathError> {
    if to.exists() {
        return Ok(());
    }
    MapData::from_pin(from)
        .map_err(|error| failed("open map", from, &error))?
        .pin(to)
        .map_err(|error| failed("pin map", to, &error))
}

/// Whether no program of a version decides on any packet: another's links are pinned, and not one of this version's.
/// False where there are no links to tell it by (clsact), unless the version was never opened.
fn is_unused(pin_dir: &Path, version: u32, another: u32) -> bool {
    let links = |version| version_directory_of(pin_dir, version).join("links");
    if !links(version).exists() {
        return true;
    }
    let are_there = |version| names(&links(version)).map(|names| !names.is_empty());
    matches!(
        (are_there(version), are_there(another)),
        (Ok(false), Ok(true))
    )
}

/// What a version left.
fn read_version(pin_dir: &Path, number: u32) -> Result<Version, DatapathError> {
    let directory = map_directory_of(pin_dir, number);
    let layouts = record::read(&directory)?;
    let mut maps = BTreeMap::new();
    for name in names(&directory)? {
        if name == record::NAME || name.ends_with(IN_THE_MAKING) {
            continue;
        }
        let info = MapData::from_pin(directory.join(&name))
            .and_then(|map| map.info())
            .map_err(refused("open map", name.as_str()))?;
        let layout = match &layouts {
            Some(layouts) => layouts.get(&name).copied(),
            None => (number == VERSION_WITHOUT_RECORD).then_some(1),
        };
        let map = PinnedMap {
            // No version has layout 0.
            layout: layout.unwrap_or(0),
            room: info.max_entries(),
            id: info.id(),
        };
        maps.insert(name, map);
    }
    Ok(Version { number, maps })
}

/// The versions that left something, without this one: those with links in force first, then the nearest.
fn other_versions(pin_dir: &Path) -> Result<Vec<Version>, DatapathError> {
    let mut found = Vec::new();
    for name in names(pin_dir)? {
        let number = name.strip_prefix('v').and_then(|it| it.parse().ok());
        if let Some(number) = number.filter(|it| *it != ABI_VERSION) {
            let links = names(&version_directory_of(pin_dir, number).join("links"))?;
            found.push((links.is_empty(), read_version(pin_dir, number)?));
        }
    }
    found.sort_by_key(|(without_links, it)| (*without_links, it.number.abs_diff(ABI_VERSION)));
    Ok(found.into_iter().map(|(_, it)| it).collect())
}

/// Entries that a map gets room for.
///
/// A smaller room than the maps have whose content it takes is given only when they are at most half full together:
/// programs go on writing until the last link has moved, and a map that evicts does so before it is full. So nothing
/// that is tracked is lost to a smaller size, in a map that evicts as in one that does not.
fn room_of(
    pin_dir: &Path,
    map: &MapLayout,
    own: &Version,
    others: &[Version],
    wished: u32,
) -> Result<u32, DatapathError> {
    let (ours, theirs) = plan::sources(map, own, others, fill::is_known);
    let ours = ours.map(|it| (own.number, it));
    let (mut entries, mut room) = (0, 0);
    for (number, it) in ours.into_iter().chain(theirs) {
        if wished < it.room {
            let pin = map_directory_of(pin_dir, number).join(map.name);
            entries += fill::entries(map.name, it.layout, &pin)?;
            room = room.max(it.room);
        }
    }
    if entries <= u64::from(wished / 2) {
        return Ok(wished);
    }
    tracing::error!(
        map = %map.name, entries, wished, kept = room,
        "the map holds more entries than half its wished size: it keeps its size; start again when there are fewer"
    );
    Ok(room)
}

impl Takeover {
    /// Looks at what is pinned and decides, without touching anything.
    pub(crate) fn survey(pin_dir: &Path, wished: &[(&str, u32)]) -> Result<Self, DatapathError> {
        let own = read_version(pin_dir, ABI_VERSION)?;
        let others = other_versions(pin_dir)?;
        let mut rooms: BTreeMap<String, u32> = wished
            .iter()
            .map(|(name, room)| ((*name).to_owned(), *room))
            .collect();
        for (name, wished) in &mut rooms {
            if let Some(map) = layout_of(name) {
                *wished = room_of(pin_dir, map, &own, &others, *wished)?;
            }
        }
        let plan = plan::plan(
            &LAYOUTS,
            &own,
            &others,
            |name| rooms.get(name).copied(),
            fill::is_known,
        )
        .map_err(|refusal| DatapathError::OtherVersion {
            version: refusal.version,
            own: ABI_VERSION,
            directory: version_directory_of(pin_dir, refusal.version),
            reason: refusal.reason,
            help: plan::help(refusal.version),
        })?;
        Ok(Self {
            pin_dir: pin_dir.to_owned(),
            others,
            plan,
            rooms,
        })
    }

    /// Whether another version left something: its programs decide until the last link has moved.
    pub(crate) fn is_between_versions(&self) -> bool {
        !self.others.is_empty()
    }

    /// Entries that a new map gets room for.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = (&str, u32)> {
        self.rooms.iter().map(|(name, room)| (name.as_str(), *room))
    }

    /// Where a map is pinned while it is taken over.
    pub(crate) fn pin_of(&self, name: &str) -> PathBuf {
        let directory = map_directory_of(&self.pin_dir, ABI_VERSION);
        match self.action(name) {
            Some(Action::Resize { .. }) => directory.join(format!("{name}{IN_THE_MAKING}")),
            _ => directory.join(name),
        }
    }

    fn action(&self, name: &str) -> Option<Action> {
        let found = self.plan.iter().find(|(map, _)| map.name == name);
        found.map(|(_, action)| *action)
    }

    /// Pins what is shared; the loader makes what is missing then.
    pub(crate) fn share(&self) -> Result<(), DatapathError> {
        let own = map_directory_of(&self.pin_dir, ABI_VERSION);
        record::write(&own, LAYOUTS.iter().map(|map| (map.name, map.layout)))?;
        for (map, action) in &self.plan {
            let in_the_making = own.join(format!("{}{IN_THE_MAKING}", map.name));
            match action {
                Action::Share { from } => {
                    let source = map_directory_of(&self.pin_dir, *from).join(map.name);
                    share(&source, &own.join(map.name))?;
                }
                Action::Resize { .. } => {
                    // Left by an end in the middle, perhaps for another size.
                    let room = MapData::from_pin(&in_the_making)
                        .and_then(|map| map.info())
                        .map(|info| info.max_entries());
                    if room.is_ok_and(|room| Some(&room) != self.rooms.get(map.name)) {
                        remove(&in_the_making)?;
                    }
                }
                _ => remove(&in_the_making)?,
            }
        }
        Ok(())
    }

    /// Fills the new maps. To be done before the links move, and again after.
    pub(crate) fn fill(&self) -> Result<(), DatapathError> {
        for (map, action) in &self.plan {
            let sources = match *action {
                Action::Fill { from, layout } => [None, Some((from, layout))],
                Action::Resize { other } => [Some((ABI_VERSION, map.layout)), other],
                Action::Keep | Action::Share { .. } | Action::Empty => [None, None],
            };
            for (from, layout) in sources.into_iter().flatten() {
                let open = |pin: PathBuf| {
                    MapData::from_pin(&pin).map_err(|error| failed("open map", &pin, &error))
                };
                let source = open(map_directory_of(&self.pin_dir, from).join(map.name))?;
                let target = open(self.pin_of(map.name))?;
                // What a take-over that was interrupted left may be of long ago.
                let is_unused = || {
                    matches!(action, Action::Fill { .. })
                        && is_unused(&self.pin_dir, ABI_VERSION, from)
                };
                fill::fill(map.name, layout, source, map.layout, target, &is_unused)?;
            }
        }
        Ok(())
    }

    /// Makes the other versions' links this one's; they still run the other version's programs.
    pub(crate) fn adopt_links(
        &self,
        links: &Path,
        adopted: &dyn Fn(),
    ) -> Result<(), DatapathError> {
        for other in &self.others {
            let theirs = version_directory_of(&self.pin_dir, other.number).join("links");
            for name in names(&theirs)? {
                let (from, to) = (theirs.join(&name), links.join(&name));
                if !to.exists() {
                    std::fs::rename(&from, &to)
                        .map_err(|error| failed("move link", &from, &error))?;
                    adopted();
                }
            }
        }
        Ok(())
    }

    /// Ends it, when every link runs this version's programs: what the other versions left goes, and of their
    /// links those that are not wanted.
    pub(crate) fn finish(
        &self,
        links: &Path,
        wanted: &BTreeSet<String>,
        done: &dyn Fn(OpenStep),
    ) -> Result<(), DatapathError> {
        self.fill()?;
        done(OpenStep::MapsFilledAgain);
        for (map, action) in &self.plan {
            if matches!(action, Action::Resize { .. }) {
                let (from, to) = (
                    self.pin_of(map.name),
                    map_directory_of(&self.pin_dir, ABI_VERSION).join(map.name),
                );
                std::fs::rename(&from, &to).map_err(|error| failed("move map", &from, &error))?;
                done(OpenStep::MapMoved);
            }
        }
        if self.others.is_empty() {
            return Ok(());
        }
        for name in names(links)? {
            if !wanted.contains(&name) {
                remove(&links.join(name))?;
            }
        }
        done(OpenStep::LinksRemoved);
        for other in &self.others {
            let directory = version_directory_of(&self.pin_dir, other.number);
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(failed("remove pins", &directory, &error));
                }
                _ => {}
            }
            tracing::info!(
                from = other.number,
                to = ABI_VERSION,
                "took the datapath over from another ABI version"
            );
            done(OpenStep::OtherRemoved);
        }
        Ok(())
    }
}
