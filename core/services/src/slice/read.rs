//! Reads an EndpointSlice's object: refuses addresses that would lead elsewhere than to an endpoint.

use super::{
    Conditions, DEFAULT_WEIGHT, Endpoint, EndpointSlice, Hints, MAX_HINTS, MAX_SLICE_ENDPOINTS,
    MAX_SLICE_PORTS, SlicePort,
};
use crate::backend::to_port;
use crate::problem::Problems;
use crate::{AddressFault, Family, Fault, Problem, Protocol};
use heddle_model::NamespacedName;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// An entry of `ports`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenSlicePort {
    /// `name`; empty if it is not there.
    pub name: String,
    /// `protocol`; empty if it is not there.
    pub protocol: String,
    /// `port`; `None` means every port, which no Service's port can lead to.
    pub port: Option<i64>,
}

/// An entry of `endpoints`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenEndpoint {
    /// `addresses`. The first one counts, as for every proxy (Kubernetes API, `Endpoint.addresses`).
    pub addresses: Vec<String>,
    /// `conditions.ready`.
    pub ready: Option<bool>,
    /// `conditions.serving`.
    pub serving: Option<bool>,
    /// `conditions.terminating`.
    pub terminating: Option<bool>,
    /// `nodeName`; empty if it is not there.
    pub node: String,
    /// `zone`; empty if it is not there.
    pub zone: String,
    /// `hostname`; empty if it is not there.
    pub hostname: String,
    /// `targetRef.name` of a Pod; empty if it is not there.
    pub pod: String,
    /// `hints.forZones`.
    pub for_zones: Vec<String>,
    /// `hints.forNodes`.
    pub for_nodes: Vec<String>,
    /// Its weight, where somebody gives it one.
    pub weight: Option<i64>,
}

/// An EndpointSlice's object. Text that is empty stands for a field that is not there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WrittenEndpointSlice {
    /// `metadata.namespace` and `metadata.name`.
    pub name: NamespacedName,
    /// The label `kubernetes.io/service-name`.
    pub service: String,
    /// `addressType`.
    pub family: String,
    /// `ports`.
    pub ports: Vec<WrittenSlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<WrittenEndpoint>,
}

impl WrittenEndpointSlice {
    /// Label that names the Service (Kubernetes, `LabelServiceName`).
    pub const SERVICE_NAME: &'static str = "kubernetes.io/service-name";

    /// The slice that the object means; `None` for one that is of no Service, or of host names
    /// (`addressType: FQDN`), which nothing can be sent to.
    ///
    /// # Errors
    ///
    /// The [`Problem`] with an `addressType` that the API does not know. What else cannot be used is in
    /// [`EndpointSlice::problems`], and left out.
    pub fn read(&self) -> Result<Option<EndpointSlice>, Problem> {
        if self.service.is_empty() || self.family == "FQDN" {
            return Ok(None);
        }
        let mut problems = Problems::default();
        let Some(family) = Family::named(&self.family) else {
            let known = "IPv4, IPv6, FQDN";
            problems.add("addressType", &self.family, Fault::UnknownWord { known });
            return problems.into_list().pop().map_or(Ok(None), Err);
        };
        Ok(Some(EndpointSlice {
            name: self.name.clone(),
            service: NamespacedName::new(self.name.namespace.as_str(), self.service.as_str()),
            family,
            ports: self.read_ports(&mut problems),
            endpoints: self.read_endpoints(family, &mut problems),
            problems: problems.into_list(),
        }))
    }

    /// The ports, sorted. A name and protocol means one number: the first.
    fn read_ports(&self, problems: &mut Problems) -> Arc<[SlicePort]> {
        let mut found: BTreeMap<(Arc<str>, Protocol), (u16, usize)> = BTreeMap::new();
        for (at, port) in bounded("ports", &self.ports, MAX_SLICE_PORTS, problems) {
            let field = |name: &str| format!("ports[{at}].{name}");
            let Some(protocol) = Protocol::named(&port.protocol) else {
                let known = "TCP, UDP, SCTP";
                let fault = Fault::UnknownWord { known };
                problems.add(field("protocol"), &port.protocol, fault);
                continue;
            };
            let Some(number) = port.port else {
                continue;
            };
            let shown = number.to_string();
            let Some(number) = to_port(number) else {
                problems.add(field("port"), &shown, Fault::NotAPort);
                continue;
            };
            let key = (Arc::from(port.name.as_str()), protocol);
            if let Some((_, first)) = found.get(&key) {
                let first = format!("ports[{first}].name");
                problems.add(field("name"), &port.name, Fault::Duplicate { first });
            } else {
                found.insert(key, (number, at));
            }
        }
        let ports = found
            .into_iter()
            .map(|((name, protocol), (number, _))| SlicePort {
                name,
                protocol,
                number,
            });
        ports.collect()
    }

    fn read_endpoints(&self, family: Family, problems: &mut Problems) -> Vec<Endpoint> {
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        for (at, endpoint) in bounded("endpoints", &self.endpoints, MAX_SLICE_ENDPOINTS, problems) {
            let field = format!("endpoints[{at}].addresses");
            let count = endpoint.addresses.len();
            let Some(text) = endpoint.addresses.first() else {
                problems.add(field, "", Fault::NotAnAddress);
                continue;
            };
            if count > 1 {
                problems.add(&*field, "", Fault::TooMany { count, most: 1 });
            }
            match usable(text, family) {
                Err(fault) => problems.add(format!("{field}[0]"), text, fault),
                Ok(address) => {
                    if let Some(first) = seen.get(&address) {
                        let first = format!("endpoints[{first}].addresses[0]");
                        problems.add(format!("{field}[0]"), text, Fault::Duplicate { first });
                        continue;
                    }
                    seen.insert(address, at);
                    found.push(endpoint.read(at, address, problems));
                }
            }
        }
        found.shrink_to_fit();
        found
    }
}

impl WrittenEndpoint {
    fn read(&self, at: usize, address: IpAddr, problems: &mut Problems) -> Endpoint {
        let mut names = |name: &str, list: &[String]| -> Vec<Arc<str>> {
            let field = format!("endpoints[{at}].hints.{name}");
            let entries = bounded(&field, list, MAX_HINTS, problems);
            let mut names: Vec<Arc<str>> = entries.map(|(_, text)| text.as_str().into()).collect();
            names.sort();
            names.dedup();
            names
        };
        let hints = Hints {
            zones: names("forZones", &self.for_zones),
            nodes: names("forNodes", &self.for_nodes),
        };
        let weight = self
            .weight
            .map_or(Some(DEFAULT_WEIGHT), |weight| u16::try_from(weight).ok());
        if weight.is_none() {
            problems.add(
                format!("endpoints[{at}].weight"),
                &self.weight.unwrap_or_default().to_string(),
                Fault::OutOfBounds {
                    least: 0,
                    most: u16::MAX.into(),
                    used: DEFAULT_WEIGHT.into(),
                },
            );
        }
        Endpoint {
            address,
            conditions: Conditions::new(self.ready, self.serving, self.terminating),
            weight: weight.unwrap_or(DEFAULT_WEIGHT),
            node: some(&self.node),
            zone: some(&self.zone),
            pod: some(&self.pod),
            hostname: some(&self.hostname),
            hints: (hints != Hints::default()).then(|| Arc::new(hints)),
        }
    }
}

fn some(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// The entries of a list that are used, with their places.
fn bounded<'a, T>(
    field: &str,
    list: &'a [T],
    most: usize,
    problems: &mut Problems,
) -> impl Iterator<Item = (usize, &'a T)> + use<'a, T> {
    let count = list.len();
    if count > most {
        problems.add(field, "", Fault::TooMany { count, most });
    }
    list.iter().take(most).enumerate()
}

/// An address of this family that an endpoint can have.
fn usable(text: &str, family: Family) -> Result<IpAddr, Fault> {
    let address: IpAddr = text.parse().map_err(|_| Fault::NotAnAddress)?;
    if let Some(fault) = AddressFault::of(address) {
        return Err(Fault::Unusable(fault));
    }
    let found = Family::of(address);
    if found != family {
        return Err(Fault::OtherFamily { found });
    }
    Ok(address)
}
