//! Typed handles of the maps that user space writes or reads.

use crate::{DatapathError, batch, object::chain};
use aya::{
    Ebpf,
    maps::{
        Array, ArrayOfMaps, HashMap, IterableMap as _, LpmTrie, MapData, PerCpuArray, RingBuf,
        lpm_trie::Key,
    },
};
use heddle_abi::{
    Address, ConnectionEntry, ConnectionKey, Endpoint, IpcacheValue, MetricSlot, NodeConfig,
    PolicyBinding, PolicyKey, PolicyValue, map_names,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An endpoint's policy map.
pub(crate) type PolicyMap = LpmTrie<MapData, PolicyKey, PolicyValue>;

/// A table of connections.
pub(crate) type Connections = HashMap<MapData, ConnectionKey, ConnectionEntry>;

/// The maps, each behind a lock of its own.
pub(crate) struct Maps {
    pub(crate) config: Mutex<Array<MapData, NodeConfig>>,
    pub(crate) endpoints: Mutex<HashMap<MapData, Address, Endpoint>>,
    pub(crate) devices: Mutex<HashMap<MapData, u32, Endpoint>>,
    pub(crate) policies: Mutex<ArrayOfMaps<MapData, PolicyMap>>,
    pub(crate) bindings: Mutex<Array<MapData, PolicyBinding>>,
    pub(crate) ipcache: Mutex<LpmTrie<MapData, Address, IpcacheValue>>,
    pub(crate) connections: Mutex<Connections>,
    pub(crate) established: Mutex<Connections>,
    pub(crate) shares: Mutex<Array<MapData, u32>>,
    pub(crate) metrics: Mutex<PerCpuArray<MapData, MetricSlot>>,
    pub(crate) events: Mutex<RingBuf<MapData>>,
    pub(crate) losses: Mutex<PerCpuArray<MapData, u64>>,
}

/// Locks; a panic elsewhere leaves no map half-written, since every write is one system call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns a map's refusal into an error that names it.
pub(crate) fn refused(
    doing: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(aya::maps::MapError) -> DatapathError {
    let object = object.into();
    move |error| DatapathError::Failed {
        doing,
        object,
        reason: chain(&error),
    }
}

/// Entries that a map can hold, as the kernel says.
pub(crate) fn room(map: &MapData, name: &str) -> Result<u64, DatapathError> {
    let info = map.info().map_err(refused("ask about map", name))?;
    Ok(u64::from(info.max_entries()))
}

impl Maps {
    pub(crate) fn take(object: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            config: Mutex::new(take(object, map_names::CONFIG)?),
            endpoints: Mutex::new(take(object, map_names::ENDPOINTS)?),
            devices: Mutex::new(take(object, map_names::DEVICES)?),
            policies: Mutex::new(take(object, map_names::POLICIES)?),
            bindings: Mutex::new(take(object, map_names::BINDINGS)?),
            ipcache: Mutex::new(take(object, map_names::IPCACHE)?),
            connections: Mutex::new(take(object, map_names::CONNECTIONS)?),
            established: Mutex::new(take(object, map_names::ESTABLISHED)?),
            shares: Mutex::new(take(object, map_names::SHARES)?),
            metrics: Mutex::new(take(object, map_names::METRICS)?),
            events: Mutex::new(take(object, map_names::EVENTS)?),
            losses: Mutex::new(take(object, map_names::LOSSES)?),
        })
    }
}

fn take<T>(object: &mut Ebpf, name: &str) -> Result<T, DatapathError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = object.take_map(name).ok_or_else(|| DatapathError::Failed {
        doing: "find map",
        object: name.to_owned(),
        reason: "it is not in the object".to_owned(),
    })?;
    map.try_into().map_err(refused("use map", name))
}

/// How many rows the ipcache has, which only user space writes: counted when somebody asks after a change.
#[derive(Default)]
pub(crate) struct IpcacheRows(Mutex<Option<u64>>);

impl IpcacheRows {
    /// To be called under the ipcache's lock, before it is changed.
    pub(crate) fn forget(&self) {
        *lock(&self.0) = None;
    }

    pub(crate) fn count(&self, maps: &Maps) -> Result<u64, DatapathError> {
        let ipcache = lock(&maps.ipcache);
        let mut counted = lock(&self.0);
        if let Some(rows) = *counted {
            return Ok(rows);
        }
        let mut rows = 0;
        batch::read(ipcache.map(), |_: &Key<Address>, _: &IpcacheValue| {
            rows += 1
        })
        .map_err(refused("count", map_names::IPCACHE))?;
        *counted = Some(rows);
        Ok(rows)
    }
}
