//! The pinned maps, read without opening the datapath: what packets meet while no agent runs.

use crate::{
    ConnectionRows, DatapathError, Facts, PeerRow, RealisedPolicy, connections,
    conversion::{from_kernel, peer_row},
    maps::{Connections, PolicyMap, refused},
    object::map_directory,
    policy::{read_rows, realised},
};
use aya::maps::{Array, ArrayOfMaps, HashMap, LpmTrie, Map, MapData, MapError};
use heddle_abi::{
    Address, ConnectionKey, Endpoint, IpcacheValue, POLICY_SLOT_NONE, PolicyBinding, map_names,
};
use std::path::{Path, PathBuf};

/// A node's pinned maps. Nothing is changed by reading them, so an agent may run meanwhile.
///
/// A policy that is replaced while it is read may come out torn; who reads beside a running agent asks the
/// agent instead.
#[derive(Clone, Debug)]
pub struct Pinned {
    maps: PathBuf,
}

impl Pinned {
    /// The maps below a node's pin directory (`Settings::pin_dir`).
    ///
    /// # Errors
    ///
    /// When there are none of this ABI version.
    pub fn open(pin_dir: &Path) -> Result<Self, DatapathError> {
        let maps = map_directory(pin_dir);
        match std::fs::metadata(&maps) {
            Ok(_) => Ok(Self { maps }),
            Err(error) => Err(DatapathError::Failed {
                doing: "read the pinned maps in",
                object: maps.display().to_string(),
                reason: error.to_string(),
            }),
        }
    }

    fn map(&self, name: &str) -> Result<MapData, DatapathError> {
        MapData::from_pin(self.maps.join(name)).map_err(refused("open map", name))
    }

    /// The endpoints' facts.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn endpoints(&self) -> Result<Vec<Facts>, DatapathError> {
        let name = map_names::DEVICES;
        let devices: HashMap<MapData, u32, Endpoint> = Map::HashMap(self.map(name)?)
            .try_into()
            .map_err(refused("use map", name))?;
        let rows = devices.iter();
        rows.map(|row| row.map(|(_, value)| from_kernel(&value)))
            .collect::<Result<_, _>>()
            .map_err(refused("read", name))
    }

    /// Which policy each endpoint is bound to.
    ///
    /// # Errors
    ///
    /// When the map cannot be opened.
    pub fn bindings(&self) -> Result<Bindings, DatapathError> {
        let name = map_names::BINDINGS;
        Map::Array(self.map(name)?)
            .try_into()
            .map(Bindings)
            .map_err(refused("use map", name))
    }

    /// An endpoint's policy.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn policy(&self, endpoint: u16) -> Result<RealisedPolicy, DatapathError> {
        let binding = self.bindings()?.of(endpoint)?;
        let rows = match binding.slot() {
            POLICY_SLOT_NONE => None,
            slot => {
                let name = map_names::POLICIES;
                let policies: ArrayOfMaps<MapData, PolicyMap> = Map::ArrayOfMaps(self.map(name)?)
                    .try_into()
                    .map_err(refused("use map", name))?;
                match policies.get(&slot, 0) {
                    Ok(map) => Some(read_rows(&map)?),
                    Err(MapError::KeyNotFound) => None,
                    Err(error) => {
                        return Err(refused("read policy slot", slot.to_string())(error));
                    }
                }
            }
        };
        Ok(realised(binding, rows))
    }

    /// The ipcache.
    ///
    /// # Errors
    ///
    /// When the map cannot be read.
    pub fn peers(&self) -> Result<Vec<PeerRow>, DatapathError> {
        let name = map_names::IPCACHE;
        let ipcache: LpmTrie<MapData, Address, IpcacheValue> = Map::LpmTrie(self.map(name)?)
            .try_into()
            .map_err(refused("use map", name))?;
        let rows = ipcache.iter().map(|row| row.map(|(k, v)| peer_row(&k, &v)));
        let rows: Vec<Option<PeerRow>> = rows
            .collect::<Result<_, _>>()
            .map_err(refused("read", name))?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Tracked connections whose keys fit, at most `limit`.
    ///
    /// # Errors
    ///
    /// When a map cannot be opened or read.
    pub fn connections(
        &self,
        fits: &dyn Fn(&ConnectionKey) -> bool,
        limit: usize,
    ) -> Result<ConnectionRows, DatapathError> {
        let open = |name, kind: fn(MapData) -> Map| -> Result<Connections, DatapathError> {
            kind(self.map(name)?)
                .try_into()
                .map_err(refused("use map", name))
        };
        let connections = open(map_names::CONNECTIONS, Map::LruHashMap)?;
        let established = open(map_names::ESTABLISHED, Map::HashMap)?;
        connections::of_both(
            limit,
            |most| connections::rows(&connections, fits, most),
            |most| connections::rows(&established, fits, most),
        )
        .map(ConnectionRows::from)
    }
}

/// The pinned map of policy bindings, open.
pub struct Bindings(Array<MapData, PolicyBinding>);

impl Bindings {
    pub(crate) fn of(&self, endpoint: u16) -> Result<PolicyBinding, DatapathError> {
        self.0
            .get(&u32::from(endpoint), 0)
            .map_err(refused("read binding of endpoint", endpoint.to_string()))
    }

    /// How often the endpoint's policy has changed.
    ///
    /// # Errors
    ///
    /// When there can be no such endpoint.
    pub fn generation(&self, endpoint: u16) -> Result<u32, DatapathError> {
        self.of(endpoint).map(|binding| binding.generation())
    }
}
