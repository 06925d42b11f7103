//! Names for flows, and flows for those who ask on the socket.

use crate::api::FlowSource;
use crate::directory::Directory;
use crate::flows::{Devices, Explainer, FlowHub};
use crate::ledger::SharedLedger;
use crate::ledger::nearest::Denial;
use heddle_flow::{
    Asked, Denied, Direction as FlowDirection, NearestAllow, ObserveRequest, Peer, Policy,
    Resolver, Workload,
};
use heddle_model::Identity;
use heddle_policy::compiled::Direction;
use heddle_policy::{Nearest, PolicyId, Term, Traffic};
use heddle_rpc::node::FlowStatus;
use heddle_rpc::{ApiError, error_codes};
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Lines that wait for a slow observer.
const MOST_LINES: usize = 256;

/// Allows that a flow names as nearest at most.
const MOST_NEAREST: usize = 3;

/// The directory in the terms of flows.
pub(crate) struct Names {
    pub(crate) directory: Arc<Directory>,
    pub(crate) cluster: String,
    pub(crate) devices: Devices,
}

fn policy(id: &PolicyId) -> Policy {
    Policy {
        name: id.name.clone(),
        namespace: id.namespace.clone(),
        kind: id.kind.name().to_owned(),
        ..Policy::default()
    }
}

impl Resolver for Names {
    fn peer(&self, address: IpAddr) -> Option<Peer> {
        let known = self.directory.peer(address)?;
        Some(Peer {
            identity: known.identity.0,
            labels: known.labels.to_strings(),
            endpoint: self.directory.endpoint_at(address).map_or(0, u32::from),
            cluster: if known.node.is_some() {
                self.cluster.clone()
            } else {
                String::new()
            },
            workloads: known
                .pod
                .as_ref()
                .and_then(|pod| self.directory.workload(pod))
                .map(|(kind, name)| Workload { name, kind })
                .into_iter()
                .collect(),
            pod: known.pod,
        })
    }

    fn labels(&self, identity: u32) -> Vec<String> {
        self.directory
            .labels_of(Identity(identity))
            .map(|labels| labels.to_strings())
            .unwrap_or_default()
    }

    fn policies(&self, cookie: u32) -> Vec<Policy> {
        let mut ids: Vec<PolicyId> = self
            .directory
            .rules_of(cookie)
            .iter()
            .map(heddle_policy::RuleRef::policy)
            .collect();
        ids.sort();
        ids.dedup();
        ids.iter().map(policy).collect()
    }

    fn isolating(&self, endpoint: u32, direction: FlowDirection) -> Vec<Policy> {
        let (Some(direction), Ok(endpoint)) = (side(direction), u16::try_from(endpoint)) else {
            return Vec::new();
        };
        self.directory
            .isolating(endpoint, direction)
            .iter()
            .map(policy)
            .collect()
    }

    fn interface(&self, index: u32) -> Option<String> {
        self.directory
            .interface(index)
            .or_else(|| self.devices.name(index))
    }

    fn match_type(&self, asked: &Asked) -> u32 {
        let (Some(direction), Ok(endpoint)) =
            (side(asked.direction), u16::try_from(asked.endpoint))
        else {
            return 0;
        };
        self.directory.match_type(
            endpoint,
            direction,
            asked.cookie,
            asked.protocol,
            asked.port,
        )
    }
}

/// What nearly allowed a flow, as the ledger says.
pub(crate) struct Explanations {
    pub(crate) ledger: Arc<SharedLedger>,
}

impl Explainer for Explanations {
    fn nearest(&self, denied: &Denied) -> Vec<NearestAllow> {
        let (Some(direction), Ok(endpoint)) =
            (side(denied.direction), u16::try_from(denied.endpoint))
        else {
            return Vec::new();
        };
        let denial = Denial {
            endpoint,
            direction,
            generation: denied.generation,
            peer: Identity(denied.peer),
            address: denied.address,
            traffic: Traffic {
                protocol: denied.protocol,
                port: denied.port,
            },
        };
        let nearest = self.ledger.lock_last().nearest(&denial).into_iter();
        nearest.take(MOST_NEAREST).map(nearest_allow).collect()
    }
}

fn nearest_allow(nearest: Nearest) -> NearestAllow {
    NearestAllow {
        rule: nearest.rule.to_string(),
        failed: match nearest.failed {
            Term::Peer => "peer",
            Term::Port => "port",
            Term::Protocol => "protocol",
            Term::Icmp => "icmp",
        }
        .to_owned(),
        wanted: nearest.wanted,
        got: nearest.got,
    }
}

const fn side(direction: FlowDirection) -> Option<Direction> {
    match direction {
        FlowDirection::Ingress => Some(Direction::Ingress),
        FlowDirection::Egress => Some(Direction::Egress),
        FlowDirection::Unknown => None,
    }
}

impl FlowSource for Arc<FlowHub> {
    fn observe(&self, params: Value) -> Result<mpsc::Receiver<Value>, ApiError> {
        let request: ObserveRequest = serde_json::from_value(params).map_err(|error| {
            ApiError::new(
                error_codes::INVALID,
                format!("observe: parameters: {error}"),
            )
        })?;
        let mut observation = FlowHub::observe(self, request)
            .map_err(|error| ApiError::new(error.code(), error.to_string()))?;
        let (sender, receiver) = mpsc::channel(MOST_LINES);
        tokio::spawn(async move {
            loop {
                let line = tokio::select! {
                    () = sender.closed() => return,
                    line = observation.next() => line,
                };
                let Some(line) = line else { return };
                let Ok(line) = serde_json::to_value(&*line) else {
                    continue;
                };
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    fn status(&self) -> FlowStatus {
        let status = FlowHub::status(self);
        FlowStatus {
            kept: status.num_flows,
            max: status.max_flows,
            seen: status.seen_flows,
            observers: status.observers as u64,
            problem: status.problem,
            lost: status.lost,
            sampled: status.sampled,
        }
    }

    fn warning(&self) -> Option<String> {
        let status = FlowHub::status(self);
        status.sampling_now.then(|| {
            format!(
                "an endpoint's events come faster than dropEventsPerSecond or traceEventsPerSecond lets through: {} \
                 were counted but not shown as flows since the agent started, the last of them within a minute",
                status.sampled
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::HubOptions;
    use crate::flows::simulated::{SimulatedKernel, denied};
    use crate::testing::Node;
    use serde_json::json;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_busy_ledger_holds_up_no_event_but_those_that_it_is_asked_about() {
        let node = Node::start().await;
        let agent = node.agent();
        let kernel = Arc::new(SimulatedKernel::default());
        let hub = FlowHub::start(
            Arc::<SimulatedKernel>::clone(&kernel),
            Arc::new(Names {
                directory: Arc::clone(&agent.directory),
                cluster: "default".to_owned(),
                devices: Devices::new(),
            }),
            Arc::new(Explanations {
                ledger: Arc::clone(&agent.ledger),
            }),
            Arc::clone(&agent.metrics),
            HubOptions::new("n1", 15),
        )
        .unwrap();
        let request = serde_json::from_value(json!({ "follow": true })).unwrap();
        let mut observation = hub.observe(request).unwrap();
        let mut next_port = async || {
            let next = tokio::time::timeout(Duration::from_secs(10), observation.next());
            let response = next.await.unwrap().unwrap();
            response.flow().unwrap().ports().unwrap().1
        };

        let (release, released) = channel::<()>();
        let (hold, held) = channel();
        let ledger = Arc::clone(&agent.ledger);
        let holder = std::thread::spawn(move || {
            let _ledger = ledger.lock();
            hold.send(()).unwrap();
            let _ = released.recv();
        });
        held.recv().unwrap();
        let trace = heddle_abi::Event {
            kind: heddle_abi::EVENT_TRACE,
            ..denied(1, 2)
        };
        for _ in 0..3 {
            kernel.send(&[denied(1, 1), trace]);
            assert_eq!(next_port().await, 2);
        }
        drop(release);
        holder.join().unwrap();
        for _ in 0..3 {
            assert_eq!(next_port().await, 1);
        }
        crate::agent::blocking(move || hub.stop()).await;
    }
}
