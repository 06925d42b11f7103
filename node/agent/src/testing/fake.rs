//! A datapath in memory that can fail at any call, before or after it had its effect.

use heddle_abi::{ConnectionKey, Event, MetricSlot};
use heddle_datapath::{
    ConnectionRows, Datapath, DatapathError, Facts, Feature, FeatureState, LinkSpec, MapUse,
    PathQuestion, PeerRow, PodLink, RealisedEndpoint, RealisedPolicy, RealisedRoutes,
};
use heddle_policy::CompiledPolicy;
use heddle_verify::path::Seen;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

/// What a kernel would hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kernel {
    pub(crate) links: BTreeMap<u16, u32>,
    pub(crate) facts: BTreeMap<u16, Facts>,
    pub(crate) policies: BTreeMap<u16, (u32, CompiledPolicy)>,
    pub(crate) node_policy: Option<CompiledPolicy>,
    pub(crate) attached: BTreeMap<u16, u32>,
    pub(crate) peers: BTreeMap<IpNet, PeerRow>,
    pub(crate) routes: Vec<(IpNet, IpAddr)>,
    /// Routes that somebody else removed, or made lead to another device.
    pub(crate) changed_routes: BTreeMap<IpNet, Option<String>>,
}

impl Kernel {
    /// True when nothing of any endpoint is left.
    pub(crate) fn has_no_endpoint(&self) -> bool {
        self.links.is_empty()
            && self.facts.is_empty()
            && self.policies.is_empty()
            && self.attached.is_empty()
    }
}

#[derive(Default)]
struct State {
    kernel: Kernel,
    next_ifindex: u32,
    calls: Vec<String>,
    /// Call to fail at: its name, and whether it has its effect first.
    fault: Option<(&'static str, bool)>,
    dead: bool,
    peer_limit: Option<usize>,
    row_limit: Option<usize>,
    node_addresses: BTreeSet<IpNet>,
}

impl State {
    fn check_rows(&self, policy: &CompiledPolicy) -> Result<(), DatapathError> {
        match self.row_limit {
            Some(max) if policy.size() > max => Err(DatapathError::MapFull {
                map: "POLICIES",
                entries: policy.size() as u64,
                max: max as u64,
            }),
            _ => Ok(()),
        }
    }
}

/// A datapath in memory.
#[derive(Default)]
pub(crate) struct FakeDatapath {
    state: Mutex<State>,
}

fn failed(doing: &'static str) -> DatapathError {
    DatapathError::Failed {
        doing,
        object: "test".into(),
        reason: "fault".into(),
    }
}

impl FakeDatapath {
    /// The next call of this name fails, before or after its effect.
    pub(crate) fn fail_once(&self, call: &'static str, after_effect: bool) {
        self.state.lock().unwrap().fault = Some((call, after_effect));
    }

    /// From now on every call that changes something fails, or none does.
    pub(crate) fn set_dead(&self, dead: bool) {
        self.state.lock().unwrap().dead = dead;
    }

    pub(crate) fn limit_peers(&self, limit: Option<usize>) {
        self.state.lock().unwrap().peer_limit = limit;
    }

    /// Rows of a policy at most.
    pub(crate) fn limit_rows(&self, limit: Option<usize>) {
        self.state.lock().unwrap().row_limit = limit;
    }

    /// Gives the node's devices these addresses.
    pub(crate) fn set_node_addresses(&self, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        self.state.lock().unwrap().node_addresses = addresses.collect();
    }

    pub(crate) fn kernel(&self) -> Kernel {
        self.state.lock().unwrap().kernel.clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Kernel)) {
        change(&mut self.state.lock().unwrap().kernel);
    }

    /// Calls since the last time, in order.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    fn change_by<T>(
        &self,
        call: &'static str,
        detail: String,
        work: impl FnOnce(&mut State) -> Result<T, DatapathError>,
    ) -> Result<T, DatapathError> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(format!("{call} {detail}"));
        if state.dead {
            return Err(failed(call));
        }
        match state.fault.take_if(|(at, _)| *at == call) {
            Some((_, false)) => Err(failed(call)),
            Some((_, true)) => work(&mut state).and_then(|_| Err(failed(call))),
            None => work(&mut state),
        }
    }
}

impl Datapath for FakeDatapath {
    fn create_link(&self, spec: &LinkSpec) -> Result<PodLink, DatapathError> {
        self.change_by("create_link", spec.endpoint.to_string(), |state| {
            state.next_ifindex += 1;
            let ifindex = 100 + state.next_ifindex;
            state.kernel.links.insert(spec.endpoint, ifindex);
            let [high, low] = spec.endpoint.to_be_bytes();
            Ok(PodLink {
                ifindex,
                name: format!("hd{}", spec.endpoint),
                mac: [2, 0, 0, 1, high, low],
                host_mac: [2, 0, 0, 2, high, low],
                mtu: 1500,
                gateways: vec![
                    "10.244.0.1".parse().unwrap(),
                    "fd10:244::1".parse().unwrap(),
                ],
            })
        })
    }

    fn set_policy(&self, endpoint: u16, policy: &CompiledPolicy) -> Result<(), DatapathError> {
        self.change_by("set_policy", endpoint.to_string(), |state| {
            state.check_rows(policy)?;
            let held = state
                .kernel
                .policies
                .entry(endpoint)
                .or_insert_with(|| (0, policy.clone()));
            *held = (held.0 + 1, policy.clone());
            Ok(())
        })
    }

    fn set_facts(&self, facts: &Facts) -> Result<(), DatapathError> {
        self.change_by("set_facts", facts.endpoint.to_string(), |state| {
            state.kernel.facts.insert(facts.endpoint, facts.clone());
            Ok(())
        })
    }

    fn attach(&self, endpoint: u16, ifindex: u32) -> Result<(), DatapathError> {
        self.change_by("attach", endpoint.to_string(), |state| {
            // What the brief of the transaction is about: nothing passes before policy is in force.
            assert!(
                state.kernel.policies.contains_key(&endpoint)
                    && state.kernel.facts.contains_key(&endpoint),
                "attached before its policy was in force"
            );
            if state.kernel.links.get(&endpoint) != Some(&ifindex) {
                return Err(failed("attach"));
            }
            state.kernel.attached.insert(endpoint, ifindex);
            Ok(())
        })
    }

    fn remove_endpoint(&self, endpoint: u16) -> Result<(), DatapathError> {
        self.change_by("remove_endpoint", endpoint.to_string(), |state| {
            state.kernel.links.remove(&endpoint);
            state.kernel.facts.remove(&endpoint);
            state.kernel.policies.remove(&endpoint);
            state.kernel.attached.remove(&endpoint);
            Ok(())
        })
    }

    fn set_peers(&self, rows: &[PeerRow]) -> Result<(), DatapathError> {
        let names: Vec<String> = rows.iter().map(|row| row.prefix.to_string()).collect();
        self.change_by("set_peers", names.join(" "), |state| {
            for row in rows {
                if let Some(max) = state.peer_limit
                    && state.kernel.peers.len() >= max
                {
                    return Err(DatapathError::MapFull {
                        map: "IPCACHE",
                        entries: max as u64,
                        max: max as u64,
                    });
                }
                state.kernel.peers.insert(row.prefix, row.clone());
            }
            Ok(())
        })
    }

    fn remove_peers(&self, prefixes: &[IpNet]) -> Result<(), DatapathError> {
        self.change_by("remove_peers", format!("{prefixes:?}"), |state| {
            for prefix in prefixes {
                state.kernel.peers.remove(prefix);
            }
            Ok(())
        })
    }

    fn set_routes(&self, routes: &[(IpNet, IpAddr)]) -> Result<(), DatapathError> {
        self.change_by("set_routes", String::new(), |state| {
            state.kernel.routes = routes.to_vec();
            Ok(())
        })
    }

    fn routes(&self, _: &BTreeSet<IpNet>) -> Result<Option<RealisedRoutes>, DatapathError> {
        let kernel = self.kernel();
        let overlay = || "heddle-vxlan".to_owned();
        let ranges = kernel.routes.iter();
        let mut routes: BTreeMap<IpNet, Option<String>> =
            ranges.map(|(range, _)| (*range, Some(overlay()))).collect();
        for id in kernel.attached.keys() {
            let Some(facts) = kernel.facts.get(id) else {
                continue;
            };
            let addresses = [facts.ipv4.map(IpAddr::V4), facts.ipv6.map(IpAddr::V6)];
            let to_pod = addresses.into_iter().flatten();
            routes.extend(to_pod.map(|it| (it.into(), Some(format!("hd{id}")))));
        }
        routes.extend(kernel.changed_routes);
        let rows = routes.into_iter();
        Ok(Some(RealisedRoutes {
            overlay: Some(overlay()),
            routes: rows.filter(|(_, device)| device.is_some()).collect(),
        }))
    }

    fn path(&self, _: &PathQuestion) -> Result<Seen, DatapathError> {
        Ok(Seen::default())
    }

    fn node_addresses(&self, timeout: Duration) -> Result<BTreeSet<IpNet>, DatapathError> {
        std::thread::sleep(timeout.min(Duration::from_millis(5)));
        Ok(self.state.lock().unwrap().node_addresses.clone())
    }

    fn poll_events(
        &self,
        timeout: Duration,
        _: &mut Vec<Event>,
    ) -> Result<(u64, u64), DatapathError> {
        std::thread::sleep(timeout);
        Ok((0, 0))
    }

    fn collect_connections(&self) -> Result<(u64, u64), DatapathError> {
        Ok((0, 0))
    }

    fn endpoints(&self) -> Result<Vec<RealisedEndpoint>, DatapathError> {
        let state = self.state.lock().unwrap();
        Ok(state
            .kernel
            .facts
            .values()
            .map(|facts| RealisedEndpoint {
                facts: facts.clone(),
                attached: state.kernel.attached.contains_key(&facts.endpoint),
            })
            .collect())
    }

    fn set_node_policy(&self, policy: Option<&CompiledPolicy>) -> Result<(), DatapathError> {
        let mut state = self.state.lock().unwrap();
        if let Some(policy) = policy {
            state.check_rows(policy)?;
        }
        state.kernel.node_policy = policy.cloned();
        Ok(())
    }

    fn policy_generation(&self, endpoint: u16) -> Result<u32, DatapathError> {
        let state = self.state.lock().unwrap();
        let held = state.kernel.policies.get(&endpoint);
        Ok(held.map_or(0, |(generation, _)| *generation))
    }

    fn node_policy(&self) -> Result<Option<RealisedPolicy>, DatapathError> {
        let state = self.state.lock().unwrap();
        let realised = |policy: &CompiledPolicy| RealisedPolicy {
            generation: 1,
            audit: policy.audit,
            entries: Some(policy.entries.clone()),
            aliases: policy.aliases.clone(),
        };
        Ok(state.kernel.node_policy.as_ref().map(realised))
    }

    fn policy(&self, endpoint: u16) -> Result<RealisedPolicy, DatapathError> {
        let state = self.state.lock().unwrap();
        let held = state.kernel.policies.get(&endpoint);
        Ok(RealisedPolicy {
            generation: held.map_or(0, |(generation, _)| *generation),
            audit: held.is_some_and(|(_, policy)| policy.audit),
            entries: held.map(|(_, policy)| policy.entries.clone()),
            aliases: held
                .map(|(_, policy)| policy.aliases.clone())
                .unwrap_or_default(),
        })
    }

    fn peers(&self) -> Result<Vec<PeerRow>, DatapathError> {
        let state = self.state.lock().unwrap();
        Ok(state.kernel.peers.values().cloned().collect())
    }

    fn connections(
        &self,
        _: &dyn Fn(&ConnectionKey) -> bool,
        _: usize,
    ) -> Result<ConnectionRows, DatapathError> {
        Ok(ConnectionRows::default())
    }

    fn metrics(&self) -> Result<Vec<((u8, u8), MetricSlot)>, DatapathError> {
        Ok(Vec::new())
    }

    fn map_use(&self) -> Result<Vec<MapUse>, DatapathError> {
        Ok(vec![MapUse {
            name: "IPCACHE".into(),
            entries: self.state.lock().unwrap().kernel.peers.len() as u64,
            max: 131_072,
        }])
    }

    fn features(&self) -> Vec<Feature> {
        vec![Feature {
            name: "tcx".into(),
            state: FeatureState::On,
            why: String::new(),
        }]
    }

    fn now(&self) -> u64 {
        0
    }
}
