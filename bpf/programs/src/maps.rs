//! The maps. Sizes that depend on the node are set by the loader; those here are for the defaults.

use crate::{connection::established::Promotions, report::State};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use heddle_abi::{
    Address, ConnectionEntry, ConnectionKey, Endpoint, Event, FRAGMENT_SLOTS, FragmentEntry,
    FragmentKey, IpcacheValue, LOSS_CAUSES, MAX_ENDPOINTS, MAX_POLICY_SLOTS, METRIC_SLOTS,
    MetricSlot, NodeConfig, PolicyBinding, PolicyKey, PolicyValue, Sampler,
};

#[btf_map]
pub static CONFIG: Array<NodeConfig, 1> = Array::new();

#[btf_map]
pub static ENDPOINTS: HashMap<Address, Endpoint, { MAX_ENDPOINTS as usize * 2 }> = HashMap::new();

#[btf_map]
pub static DEVICES: HashMap<u32, Endpoint, { MAX_ENDPOINTS as usize }> = HashMap::new();

/// An endpoint's policy. User space makes the maps, each with the room that the settings give it.
pub type PolicyMap = LpmTrie<PolicyKey, PolicyValue, 16384>;

#[btf_map]
pub static POLICIES: ArrayOfMaps<PolicyMap, { MAX_POLICY_SLOTS as usize }> = ArrayOfMaps::new();

#[btf_map]
pub static BINDINGS: Array<PolicyBinding, { MAX_ENDPOINTS as usize }> = Array::new();

#[btf_map]
pub static IPCACHE: LpmTrie<Address, IpcacheValue, 131072> = LpmTrie::new();

#[btf_map]
pub static CONNECTIONS: LruHashMap<ConnectionKey, ConnectionEntry, 131072> = LruHashMap::new();

/// Without preallocation: most nodes use little of it.
#[btf_map]
pub static ESTABLISHED: HashMap<
    ConnectionKey,
    ConnectionEntry,
    131072,
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

/// See [`Promotions`].
#[btf_map]
pub static PROMOTIONS: Array<Promotions, { heddle_abi::SHARES as usize }> = Array::new();

#[btf_map]
pub static SHARES: Array<u32, { heddle_abi::SHARES as usize }> = Array::new();

/// Room for every place that its keys can name. Without preallocation: few nodes have many endpoints that fragment.
#[btf_map]
pub static FRAGMENTS: HashMap<
    FragmentKey,
    FragmentEntry,
    { (FRAGMENT_SLOTS * MAX_ENDPOINTS) as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();

#[btf_map]
pub static METRICS: PerCpuArray<MetricSlot, { METRIC_SLOTS as usize }> = PerCpuArray::new();

/// 4 MiB: 16,000 events between two looks of the agent.
#[btf_map]
pub static EVENTS: RingBuf<Event, 4194304> = RingBuf::new();

#[btf_map]
pub static LOSSES: PerCpuArray<u64, { LOSS_CAUSES as usize }> = PerCpuArray::new();

#[btf_map]
pub static SAMPLERS: PerCpuArray<Sampler, { heddle_abi::SAMPLERS as usize }> = PerCpuArray::new();

/// See [`crate::report::Scratch`].
#[btf_map]
pub static SCRATCH: PerCpuArray<State, 1> = PerCpuArray::new();
