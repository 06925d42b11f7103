//! Policies that change as fast as a store takes them, while traffic runs that they must not touch.

use crate::load::{Counts, Place, Receiver, Sender, TCP_PORT, UDP_PORT};
use heddle_kube::store::{Kind, Store, StoreError, embedded::Client};
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Policies that come, change and go at a time.
const POLICIES: u64 = 40;
/// Where they are.
const NAMESPACE: &str = "default";
/// Labels `app` that the policies know, and which nobody has.
const STRANGERS: u64 = 12;

/// Where it happens: three pods labelled `app: client`, `app: server` and `app: stranger`.
pub struct Bed {
    /// Who asks, and must always be answered.
    pub client: Place,
    /// Who answers.
    pub server: Place,
    /// Who must never get through.
    pub stranger: Place,
    /// The store's socket.
    pub store: PathBuf,
    /// Processes of the agents.
    pub agents: Vec<u32>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Changes written to the store.
    pub changes: u64,
    /// How long that took.
    pub took: Duration,
    /// What the client asked and heard.
    pub allowed: Counts,
    /// What the stranger tried.
    pub denied: Counts,
    /// Connections and datagrams of the stranger that the server got.
    pub passed: u64,
    /// Resident memory of all agents in bytes: after a third of the changes, two thirds, all.
    pub resident: [u64; 3],
}

/// What holds all the time: the server takes from the client alone, and the client sends to the server alone.
pub fn standing_policies() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "standing-server", "namespace": NAMESPACE},
            "spec": {
                "podSelector": {"matchLabels": {"app": "server"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": ports()}],
            },
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "standing-client", "namespace": NAMESPACE},
            "spec": {
                "podSelector": {"matchLabels": {"app": "client"}},
                "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": ports()}],
            },
        }),
    ]
}

fn ports() -> Value {
    json!([{"protocol": "TCP", "port": TCP_PORT}, {"protocol": "UDP", "port": UDP_PORT}])
}

/// Numbers that look random and are the same every time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        // Xorshift (Marsaglia 2003): plenty for a choice.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn app(&mut self) -> Value {
        json!({"app": format!("other-{}", self.below(STRANGERS))})
    }

    /// A prefix that holds nobody of the bed, or the client's own address.
    fn block(&mut self, client: &[IpAddr]) -> String {
        match self.below(4) {
            0 => match client.get(self.below(client.len() as u64) as usize) {
                Some(address @ IpAddr::V4(_)) => format!("{address}/32"),
                Some(address @ IpAddr::V6(_)) => format!("{address}/128"),
                None => "192.0.2.0/24".to_owned(),
            },
            1 => format!("2001:db8:{:x}::/48", self.below(64)),
            _ => format!("198.51.100.{}/28", self.below(16) * 16),
        }
    }

    fn port(&mut self) -> Value {
        json!([{"protocol": "TCP", "port": 8000 + self.below(200)}])
    }

    /// A policy about the bed's pods that takes nothing from the client and gives nothing to the stranger.
    fn policy(&mut self, number: u64, client: &[IpAddr]) -> (Kind, Value) {
        let name = format!("churn-{number}");
        let cilium = |spec: Value| {
            let value = json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
                "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
            });
            (Kind::CiliumNetworkPolicy, value)
        };
        // A number has its kind for good, so that a change of it is an update.
        match number % 4 {
            0 => (
                Kind::NetworkPolicy,
                json!({
                    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                    "metadata": {"name": name, "namespace": NAMESPACE},
                    "spec": {
                        "podSelector": {"matchLabels": {"app": "server"}},
                        "ingress": [
                            {"from": [{"podSelector": {"matchLabels": self.app()}}], "ports": self.port()},
                            {"from": [{"ipBlock": {"cidr": self.block(client)}}], "ports": ports()},
                        ],
                    },
                }),
            ),
            1 => cilium(json!({
                "endpointSelector": {"matchLabels": {"app": "server"}},
                "ingressDeny": [
                    {"fromEndpoints": [{"matchLabels": self.app()}]},
                    {"fromCIDR": [format!("203.0.113.{}/32", self.below(250))]},
                ],
            })),
            2 => cilium(json!({
                "endpointSelector": {"matchLabels": {"app": "client"}},
                "egress": [
                    {"toEndpoints": [{"matchLabels": self.app()}]},
                    {"toCIDR": [format!("198.51.100.{}/32", self.below(250))]},
                ],
            })),
            _ => (
                Kind::ClusterNetworkPolicy,
                json!({
                    "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
                    "metadata": {"name": name},
                    "spec": {
                        "tier": "Admin", "priority": self.below(100),
                        "subject": {"pods": {
                            "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "server"}},
                        }},
                        "ingress": [
                            {"action": "Pass", "from": [{"pods": {
                                "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}},
                            }}]},
                            {"action": "Deny", "from": [{"pods": {
                                "namespaceSelector": {}, "podSelector": {"matchLabels": self.app()},
                            }}]},
                        ],
                    },
                }),
            ),
        }
    }
}

impl Bed {
    /// Writes `changes` changes, spread over `within` or as fast as the store takes them, while requests and
    /// attempts run; then takes away every policy that it made.
    ///
    /// # Errors
    ///
    /// When the load cannot run or the store refuses.
    pub fn churn(&self, changes: u64, within: Duration) -> io::Result<Outcome> {
        let receiver = Receiver::start(&self.server.netns)?;
        let requests = Sender::requests(&self.client.netns, &self.server.addresses)?;
        let attempts = Sender::attempts(&self.stranger.netns, &self.server.addresses)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (took, resident) = runtime.block_on(self.change(changes, within))?;
        let (allowed, denied) = (requests.finish()?, attempts.finish()?);
        let heard = receiver.heard();
        let passed = self.stranger.addresses.iter();
        Ok(Outcome {
            changes,
            took,
            allowed,
            denied,
            passed: passed.filter_map(|address| heard.get(address)).sum(),
            resident,
        })
    }

    async fn change(&self, changes: u64, within: Duration) -> io::Result<(Duration, [u64; 3])> {
        let store = Client::new(&self.store);
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
        let mut present: BTreeSet<(Kind, NamespacedName)> = BTreeSet::new();
        let mut resident = [0; 3];
        let start = Instant::now();
        for number in 0..changes {
            let due = within.mul_f64(number as f64 / changes as f64);
            tokio::time::sleep_until((start + due).into()).await;
            let which = draw.below(POLICIES);
            let (kind, value) = draw.policy(which, &self.client.addresses);
            let name = named(kind, &value);
            let key = (kind, name.clone());
            let outcome = if !present.contains(&key) {
                present.insert(key);
                store.create(kind, value).await.map(drop)
            } else if draw.below(4) == 0 {
                present.remove(&key);
                store.delete(kind, &name, None).await
            } else {
                store.update(kind, value).await.map(drop)
            };
            outcome.map_err(io::Error::other)?;
            if let Some(third) = (1..=3).find(|third| number + 1 == changes * third / 3) {
                resident[third as usize - 1] = self.resident()?;
            }
        }
        let took = start.elapsed();
        for (kind, name) in present {
            match store.delete(kind, &name, None).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok((took, resident))
    }

    /// Resident memory of the agents, in bytes.
    ///
    /// # Errors
    ///
    /// When an agent is gone.
    pub fn resident(&self) -> io::Result<u64> {
        self.agents.iter().try_fold(0, |sum, process| {
            let text = fs::read_to_string(format!("/proc/{process}/status"))?;
            let kilobytes = text
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .ok_or_else(|| io::Error::other(format!("process {process} has no VmRSS")))?;
            Ok(sum + kilobytes * 1024)
        })
    }
}

fn named(kind: Kind, value: &Value) -> NamespacedName {
    let namespace = if kind.is_namespaced() { NAMESPACE } else { "" };
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    NamespacedName::new(namespace, name)
}
