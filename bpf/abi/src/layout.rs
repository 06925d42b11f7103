//! Which layout each map has in this version: what another version needs to know to take the maps over.

use crate::map_names as name;

/// What becomes of a map's content when its layout is another one, or when there is no such map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// It is needed: without a migration from the other layout nothing is taken over.
    Kept,
    /// It is written at each start, or lives for a moment only: the map starts empty.
    Transient,
}

/// The layout of one map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapLayout {
    /// Name of the map.
    pub name: &'static str,
    /// Number of its layout: one more with each change of type, key, value or meaning, never used again.
    pub layout: u32,
    /// First ABI version that has the map; taken over from an older one it starts empty.
    pub since: u32,
    /// What becomes of what is in it.
    pub content: Content,
}

const fn kept(name: &'static str, layout: u32) -> MapLayout {
    MapLayout {
        name,
        layout,
        since: 2,
        content: Content::Kept,
    }
}

const fn transient(name: &'static str, layout: u32) -> MapLayout {
    MapLayout {
        name,
        layout,
        since: 2,
        content: Content::Transient,
    }
}

/// Every pinned map. Whoever changes a layout raises [`crate::ABI_VERSION`] and the map's number here.
pub const LAYOUTS: [MapLayout; 14] = [
    transient(name::CONFIG, 2),
    kept(name::ENDPOINTS, 1),
    kept(name::DEVICES, 1),
    kept(name::POLICIES, 1),
    kept(name::BINDINGS, 1),
    kept(name::IPCACHE, 1),
    kept(name::CONNECTIONS, CONNECTIONS_LAYOUT),
    MapLayout {
        since: 3,
        ..kept(name::ESTABLISHED, ESTABLISHED_LAYOUT)
    },
    // Counted anew with `ESTABLISHED`'s dead entries.
    MapLayout {
        since: 3,
        ..transient(name::SHARES, 1)
    },
    transient(name::FRAGMENTS, 3),
    kept(name::METRICS, 1),
    transient(name::EVENTS, 1),
    kept(name::LOSSES, 1),
    transient(name::SAMPLERS, 3),
];

// Version 3 gave a meaning to bytes of the key that were zero: entries of ICMP messages from before are not found
// any more, and die within a minute. All others are as they were. Version 4 made the entries longer.
#[cfg(not(any(feature = "next-abi", feature = "former-abi")))]
const CONNECTIONS_LAYOUT: u32 = 2;
#[cfg(not(any(feature = "next-abi", feature = "former-abi")))]
const ESTABLISHED_LAYOUT: u32 = 2;
/// Version 3, for tests that take over from it.
#[cfg(feature = "former-abi")]
const CONNECTIONS_LAYOUT: u32 = 1;
#[cfg(feature = "former-abi")]
const ESTABLISHED_LAYOUT: u32 = 1;
/// Far from the numbers that real changes get.
#[cfg(feature = "next-abi")]
const CONNECTIONS_LAYOUT: u32 = 1001;
#[cfg(feature = "next-abi")]
const ESTABLISHED_LAYOUT: u32 = CONNECTIONS_LAYOUT;

/// The version before there was a record of layouts beside the maps: all of its maps have layout 1.
pub const VERSION_WITHOUT_RECORD: u32 = 2;

/// The layout that a map had in an older version; `None` where it had none, or nothing is known of it. Whoever
/// raises [`crate::ABI_VERSION`] writes the former version's layouts down here.
pub fn former_layout(version: u32, map: &str) -> Option<u32> {
    let map = layout_of(map).filter(|map| map.since <= version)?;
    let is_of_connections = matches!(map.name, name::CONNECTIONS | name::ESTABLISHED);
    #[cfg(feature = "next-abi")]
    if version + 1 == crate::ABI_VERSION {
        return Some(if is_of_connections {
            next_abi::BEFORE
        } else {
            map.layout
        });
    }
    match version {
        VERSION_WITHOUT_RECORD => Some(1),
        3 if version < crate::ABI_VERSION => Some(if is_of_connections { 1 } else { map.layout }),
        _ => None,
    }
}

/// The layout of a map in this version.
pub fn layout_of(name: &str) -> Option<&'static MapLayout> {
    LAYOUTS.iter().find(|map| map.name == name)
}

/// The layouts of [`crate::ConnectionEntry`] that the test version of the ABI converts between.
#[cfg(feature = "next-abi")]
pub mod next_abi {
    /// Layout of the version before.
    pub const BEFORE: u32 = 2;
    /// Layout of this version.
    pub const NOW: u32 = super::CONNECTIONS_LAYOUT;

    /// An entry of the version before in this one's layout.
    pub fn widen(before: [u8; 120]) -> [u8; 128] {
        let mut now = [0; 128];
        now[8..].copy_from_slice(&before);
        now
    }

    /// The way back.
    pub fn narrow(now: [u8; 128]) -> [u8; 120] {
        let mut before = [0; 120];
        before.copy_from_slice(&now[8..]);
        before
    }

    /// `last_report` of an entry of the version before, and the sum of its `packets`.
    pub fn freshness(before: &[u8; 120]) -> (u32, u64) {
        let mut word = [0; 4];
        word.copy_from_slice(&before[4..8]);
        let packets = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&before[at..at + 8]);
            u64::from_ne_bytes(long)
        };
        (u32::from_ne_bytes(word), packets(48) + packets(56))
    }
}
