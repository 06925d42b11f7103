//! A datapath that exists in memory only: tests put in what the kernel would say.

use heddle_abi::{
    Address, CAPTURE_LENGTH, ConnectionKey, DIRECTION_EGRESS, EVENT_DROP, Event, MetricSlot,
};
use heddle_datapath::{
    ConnectionRows, Datapath, DatapathError, Facts, Feature, LinkSpec, MapUse, PathQuestion,
    PeerRow, PodLink, RealisedEndpoint, RealisedPolicy,
};
use heddle_policy::compiled::CompiledPolicy;
use heddle_verify::path::Seen;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Queue {
    events: Vec<Event>,
    losses: (u64, u64),
    failure: Option<String>,
    polls: u64,
}

/// Hands out the events that a test puts in.
#[derive(Default)]
pub(crate) struct SimulatedKernel {
    queue: Mutex<Queue>,
    changed: Condvar,
    pub(crate) counters: Vec<((u8, u8), MetricSlot)>,
    pub(crate) maps: Vec<MapUse>,
}

impl SimulatedKernel {
    pub(crate) fn send(&self, events: &[Event]) {
        self.queue.lock().unwrap().events.extend_from_slice(events);
        self.changed.notify_all();
    }

    pub(crate) fn lose(&self, ring_full: u64, sampled: u64) {
        let mut queue = self.queue.lock().unwrap();
        queue.losses.0 += ring_full;
        queue.losses.1 += sampled;
        self.changed.notify_all();
    }

    /// From now on every poll fails with these words, or works again.
    pub(crate) fn fail(&self, failure: Option<&str>) {
        self.queue.lock().unwrap().failure = failure.map(str::to_owned);
        self.changed.notify_all();
    }
}

/// A SYN from 10.244.0.5 to `port` of 10.244.1.9, dropped on its way out of endpoint 7.
pub(crate) fn denied(time: u64, port: u16) -> Event {
    let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
    Event {
        time,
        source: address("10.244.0.5"),
        destination: address("10.244.1.9"),
        source_port: 40_000,
        destination_port: port,
        source_identity: 20_001,
        destination_identity: 20_002,
        endpoint: 7,
        ifindex: 12,
        egress_cookie: 0,
        ingress_cookie: 0,
        packet_length: 74,
        kind: EVENT_DROP,
        reason: 133,
        direction: DIRECTION_EGRESS,
        flags: 0,
        observation: 5,
        protocol: 6,
        tcp_flags_or_icmp_type: 2,
        icmp_code: 0,
        capture_length: 0,
        generation: 1,
        capture: [0; CAPTURE_LENGTH],
    }
}

fn unused<T>() -> Result<T, DatapathError> {
    Err(DatapathError::Failed {
        doing: "ask",
        object: "the simulated kernel".to_owned(),
        reason: "it only has events and counters".to_owned(),
    })
}

impl Datapath for SimulatedKernel {
    fn set_node_policy(&self, _: Option<&CompiledPolicy>) -> Result<(), DatapathError> {
        unused()
    }

    fn policy_generation(&self, _: u16) -> Result<u32, DatapathError> {
        unused()
    }

    fn node_policy(&self) -> Result<Option<RealisedPolicy>, DatapathError> {
        unused()
    }

    fn node_addresses(&self, _: Duration) -> Result<BTreeSet<IpNet>, DatapathError> {
        unreachable!()
    }

    fn poll_events(
        &self,
        timeout: Duration,
        events: &mut Vec<Event>,
    ) -> Result<(u64, u64), DatapathError> {
        let mut queue = self.queue.lock().unwrap();
        queue.polls += 1;
        let (mut queue, _) = self
            .changed
            .wait_timeout_while(queue, timeout, |queue| {
                queue.events.is_empty() && queue.losses == (0, 0) && queue.failure.is_none()
            })
            .unwrap();
        if let Some(reason) = &queue.failure {
            return Err(DatapathError::Failed {
                doing: "read",
                object: "map EVENTS".to_owned(),
                reason: reason.clone(),
            });
        }
        events.append(&mut queue.events);
        Ok(std::mem::take(&mut queue.losses))
    }
    fn metrics(&self) -> Result<Vec<((u8, u8), MetricSlot)>, DatapathError> {
        Ok(self.counters.clone())
    }
    fn map_use(&self) -> Result<Vec<MapUse>, DatapathError> {
        if self.maps.is_empty() {
            return unused();
        }
        Ok(self.maps.clone())
    }
    fn now(&self) -> u64 {
        1_000_000_000
    }
    fn create_link(&self, _: &LinkSpec) -> Result<PodLink, DatapathError> {
        unused()
    }
    fn set_policy(&self, _: u16, _: &CompiledPolicy) -> Result<(), DatapathError> {
        unused()
    }
    fn set_facts(&self, _: &Facts) -> Result<(), DatapathError> {
        unused()
    }
    fn attach(&self, _: u16, _: u32) -> Result<(), DatapathError> {
        unused()
    }
    fn remove_endpoint(&self, _: u16) -> Result<(), DatapathError> {
        unused()
    }
    fn set_peers(&self, _: &[PeerRow]) -> Result<(), DatapathError> {
        unused()
    }
    fn remove_peers(&self, _: &[IpNet]) -> Result<(), DatapathError> {
        unused()
    }
    fn set_routes(&self, _: &[(IpNet, IpAddr)]) -> Result<(), DatapathError> {
        unused()
    }
    fn path(&self, _: &PathQuestion) -> Result<Seen, DatapathError> {
        unused()
    }
    fn collect_connections(&self) -> Result<(u64, u64), DatapathError> {
        unused()
    }
    fn endpoints(&self) -> Result<Vec<RealisedEndpoint>, DatapathError> {
        unused()
    }
    fn policy(&self, _: u16) -> Result<RealisedPolicy, DatapathError> {
        unused()
    }
    fn peers(&self) -> Result<Vec<PeerRow>, DatapathError> {
        unused()
    }
    fn connections(
        &self,
        _: &dyn Fn(&ConnectionKey) -> bool,
        _: usize,
    ) -> Result<ConnectionRows, DatapathError> {
        unused()
    }
    fn features(&self) -> Vec<Feature> {
        Vec::new()
    }
}
