//! Filters: Hubble's `FlowFilter` (reference 4.2) and what an `observe` request holds.
//!
//! Within a clause fields are AND-ed and the values of a field OR-ed; a flow passes when some clause of
//! `whitelist` matches (or there is none) and no clause of `blacklist` does.

use crate::record::{
    Direction, Endpoint, Flow, Layer4, Response, TcpFlags, Verdict, event_kind, observation_number,
};
use crate::{LabelSelector, Timestamp};
use heddle_abi::DropReason;
use heddle_model::Identity;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::ops::Deref;

/// Conditions on one flow; names are those of `FlowFilter`. Unknown fields are refused: a filter that
/// was only half understood would show the wrong flows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clause {
    /// Address or range of the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ip: Vec<String>,
    /// `[namespace/]prefix` of the source pod; `namespace/` means all of it, `*/prefix` any namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_pod: Vec<String>,
    /// Address or range of the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ip: Vec<String>,
    /// As `source_pod`, of the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_pod: Vec<String>,
    /// Verdicts by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdict: Vec<String>,
    /// `drop`, `trace`, `l7`, `policy-verdict`, `sock`; `trace:to-endpoint` names a point too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_type: Vec<String>,
    /// Label selectors on the source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_label: Vec<String>,
    /// Label selectors on the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_label: Vec<String>,
    /// `tcp`, `udp`, `sctp`, `icmp` (both families), `icmpv4`, `icmpv6`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protocol: Vec<String>,
    /// Source ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_port: Vec<String>,
    /// Destination ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_port: Vec<String>,
    /// Numbers or reserved names; `world` stands for both families.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_identity: Vec<String>,
    /// As `source_identity`, of the destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_identity: Vec<String>,
    /// Node names; `*` stands for any characters, a `cluster/` before the name is ignored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_name: Vec<String>,
    /// `ingress` or `egress`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traffic_direction: Vec<String>,
    /// Hubble's names of drop reasons.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_reason_desc: Vec<String>,
    /// Whether replies are meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reply: Vec<bool>,
    /// Names of TCP flags, several in one value separated by commas: all of these are set, others may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp_flags: Vec<String>,
}

/// Which flows to show.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// A flow must match one of these, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub whitelist: Vec<Clause>,
    /// A flow must match none of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blacklist: Vec<Clause>,
}

/// Parameters of the agent's `observe` method (Hubble's `GetFlowsRequest`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObserveRequest {
    /// At most this many flows of the past: the last ones, or with `first` the first ones. Without it
    /// all that are remembered, or with `follow` and no `since` none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Count from the oldest flow.
    pub first: bool,
    /// Go on with flows as they happen.
    pub follow: bool,
    /// Nothing before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Nothing after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Flows must match one of these, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub whitelist: Vec<Clause>,
    /// Flows must match none of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blacklist: Vec<Clause>,
}

impl ObserveRequest {
    /// Its filter, ready to be asked.
    pub fn matcher(&self) -> Result<Matcher, FilterError> {
        Matcher::from_clauses(&self.whitelist, &self.blacklist)
    }

    /// Whether a record is of the time that is asked for.
    pub fn is_within(&self, record: &Response) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self.until.is_none_or(|until| record.time <= until)
    }

    /// The part of the past that is asked for, oldest first, of records in the order of their times.
    pub fn past<R: Deref<Target = Response>>(&self, records: Vec<R>, matcher: &Matcher) -> Vec<R> {
        // Following without a word about the past starts now.
        let number = match (self.number, self.follow, self.since) {
            (Some(number), _, _) => number,
            (None, true, None) => 0,
            _ => u64::MAX,
        };
        let mut flows = 0;
        let mut take = |record: &R| {
            let is_meant = flows < number && self.is_within(record) && matcher.shows(record);
            flows += u64::from(is_meant && record.flow().is_some());
            is_meant
        };
        if self.first {
            return records.into_iter().filter(|record| take(record)).collect();
        }
        let mut chosen: Vec<R> = records
            .into_iter()
            .rev()
            .filter(|record| take(record))
            .collect();
        chosen.reverse();
        chosen
    }
}

/// A value that a filter cannot understand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} {value:?}: {reason}")]
pub struct FilterError {
    /// Field of the clause, or name of the flag.
    pub field: &'static str,
    /// The value.
    pub value: String,
    /// What is wrong with it and what it could be.
    pub reason: String,
}

impl FilterError {
    pub(crate) fn new(field: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self {
            field,
            value: value.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Clauses that one filter may hold; more than any command line needs.
const MAX_CLAUSES: usize = 256;

/// A filter that is ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    whitelist: Vec<Conditions>,
    blacklist: Vec<Conditions>,
}

impl Matcher {
    /// Reads every value of a filter.
    pub fn new(filter: &Filter) -> Result<Self, FilterError> {
        Self::from_clauses(&filter.whitelist, &filter.blacklist)
    }

    fn from_clauses(whitelist: &[Clause], blacklist: &[Clause]) -> Result<Self, FilterError> {
        if whitelist.len().max(blacklist.len()) > MAX_CLAUSES {
            return Err(FilterError::new(
                "whitelist",
                "",
                format!("a filter holds at most {MAX_CLAUSES} clauses"),
            ));
        }
        let read = |clauses: &[Clause]| {
            clauses
                .iter()
                .map(Conditions::read)
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            whitelist: read(whitelist)?,
            blacklist: read(blacklist)?,
        })
    }

    /// True when a record is to be shown: what was lost always is.
    pub fn shows(&self, record: &Response) -> bool {
        record.flow().is_none_or(|flow| self.matches(flow))
    }

    /// True when the flow is to be shown.
    pub fn matches(&self, flow: &Flow) -> bool {
        (self.whitelist.is_empty() || self.whitelist.iter().any(|clause| clause.hold(flow)))
            && !self.blacklist.iter().any(|clause| clause.hold(flow))
    }
}

/// A clause with its values read. Each list: empty means no condition.
#[derive(Clone, Debug, Default)]
struct Conditions {
    source: EndConditions,
    destination: EndConditions,
    verdict: Vec<Verdict>,
    event_type: Vec<(u32, Option<u32>)>,
    protocol: Vec<Protocol>,
    node_name: Vec<String>,
    direction: Vec<Direction>,
    drop_reason: Vec<u32>,
    reply: Vec<bool>,
    tcp_flags: Vec<TcpFlags>,
}

#[derive(Clone, Debug, Default)]
struct EndConditions {
    ip: Vec<IpNet>,
    pod: Vec<PodPattern>,
    label: Vec<LabelSelector>,
    port: Vec<u32>,
    identity: Vec<u32>,
}

#[derive(Clone, Debug)]
struct PodPattern {
    /// `None` means every namespace.
    namespace: Option<String>,
    prefix: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv4,
    Icmpv6,
}

fn read<T>(
    field: &'static str,
    values: &[String],
    one: impl Fn(&'static str, &str) -> Result<T, FilterError>,
) -> Result<Vec<T>, FilterError> {
    values.iter().map(|value| one(field, value)).collect()
}

fn any<T>(conditions: &[T], holds: impl Fn(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(holds)
}

impl Conditions {
    fn read(clause: &Clause) -> Result<Self, FilterError> {
        Ok(Self {
            source: EndConditions {
                ip: read("source_ip", &clause.source_ip, ip)?,
                pod: clause.source_pod.iter().map(|pod| pattern(pod)).collect(),
                label: read("source_label", &clause.source_label, label)?,
                port: read("source_port", &clause.source_port, port)?,
                identity: identities("source_identity", &clause.source_identity)?,
            },
            destination: EndConditions {
                ip: read("destination_ip", &clause.destination_ip, ip)?,
                pod: clause
                    .destination_pod
                    .iter()
                    .map(|pod| pattern(pod))
                    .collect(),
                label: read("destination_label", &clause.destination_label, label)?,
                port: read("destination_port", &clause.destination_port, port)?,
                identity: identities("destination_identity", &clause.destination_identity)?,
            },
            verdict: read("verdict", &clause.verdict, verdict)?,
            event_type: read("event_type", &clause.event_type, event_type)?,
            protocol: read("protocol", &clause.protocol, protocol)?,
            node_name: clause.node_name.clone(),
            direction: read("traffic_direction", &clause.traffic_direction, direction)?,
            drop_reason: read("drop_reason_desc", &clause.drop_reason_desc, drop_reason)?,
            reply: clause.reply.clone(),
            tcp_flags: read("tcp_flags", &clause.tcp_flags, tcp_flags)?,
        })
    }

    fn hold(&self, flow: &Flow) -> bool {
        let ports = flow.ports();
        let ip = flow.ip.as_ref();
        any(&self.verdict, |verdict| *verdict == flow.verdict)
            && any(&self.event_type, |(kind, point)| {
                is_type(flow, *kind, *point)
            })
            && any(&self.protocol, |protocol| {
                flow.l4.as_ref().is_some_and(|l4| protocol.is(l4))
            })
            && any(&self.direction, |way| *way == flow.traffic_direction)
            && any(&self.drop_reason, |reason| *reason == flow.drop_reason)
            && any(&self.reply, |reply| flow.is_reply == Some(*reply))
            && any(&self.tcp_flags, |wanted| match &flow.l4 {
                Some(Layer4::Tcp(tcp)) => tcp.flags.contain(*wanted),
                _ => false,
            })
            && any(&self.node_name, |pattern| {
                node_matches(pattern, &flow.node_name)
            })
            && self.source.hold(
                &flow.source,
                ip.map(|ip| ip.source.as_str()),
                ports.map(|ports| ports.0),
            )
            && self.destination.hold(
                &flow.destination,
                ip.map(|ip| ip.destination.as_str()),
                ports.map(|ports| ports.1),
            )
    }
}

impl EndConditions {
    fn hold(&self, end: &Endpoint, address: Option<&str>, port: Option<u32>) -> bool {
        any(&self.identity, |identity| *identity == end.identity)
            && any(&self.port, |wanted| port == Some(*wanted))
            && any(&self.pod, |pattern| pattern.matches(end))
            && any(&self.label, |selector| selector.matches(&end.labels))
            && (self.ip.is_empty()
                || address
                    .and_then(|address| address.parse::<IpAddr>().ok())
                    .is_some_and(|address| self.ip.iter().any(|net| net.contains(&address))))
    }
}

impl PodPattern {
    fn matches(&self, end: &Endpoint) -> bool {
        let namespace_fits = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == end.namespace);
        // A whole namespace is the empty prefix: it needs an endpoint that has a namespace.
        namespace_fits
            && !end.namespace.is_empty()
            && end.pod_name.starts_with(self.prefix.as_str())
    }
}

impl Protocol {
    const fn is(self, l4: &Layer4) -> bool {
        matches!(
            (self, l4),
            (Self::Tcp, Layer4::Tcp(_))
                | (Self::Udp, Layer4::Udp(_))
                | (Self::Sctp, Layer4::Sctp(_))
                | (Self::Icmp | Self::Icmpv4, Layer4::Icmpv4(_))
                | (Self::Icmp | Self::Icmpv6, Layer4::Icmpv6(_))
        )
    }
}

/// The kernel reports a denied packet once, as a drop; for `policy-verdict` that is a verdict too.
fn is_type(flow: &Flow, kind: u32, point: Option<u32>) -> bool {
    let policy_drop = kind == event_kind::POLICY_VERDICT
        && flow.event_type.kind == event_kind::DROP
        && [DropReason::PolicyDenied, DropReason::PolicyDeny]
            .iter()
            .any(|reason| u32::from(*reason as u8) == flow.drop_reason);
    (flow.event_type.kind == kind || policy_drop)
        && point.is_none_or(|point| flow.event_type.sub_type == point)
}

fn ip(field: &'static str, value: &str) -> Result<IpNet, FilterError> {
    match (value.parse::<IpNet>(), value.parse::<IpAddr>()) {
        (Ok(net), _) => Ok(net),
        (_, Ok(address)) => Ok(IpNet::from(address)),
        _ => Err(FilterError::new(
            field,
            value,
            "not an address (10.0.0.1, fd00::1) and not a range (10.0.0.0/8)",
        )),
    }
}

fn pattern(value: &str) -> PodPattern {
    let (namespace, prefix) = value.split_once('/').unwrap_or(("default", value));
    PodPattern {
        namespace: (namespace != "*").then(|| namespace.to_owned()),
        prefix: prefix.to_owned(),
    }
}

fn label(field: &'static str, value: &str) -> Result<LabelSelector, FilterError> {
    LabelSelector::parse(value).map_err(|error| FilterError::new(field, value, error.reason))
}

fn port(field: &'static str, value: &str) -> Result<u32, FilterError> {
    value
        .parse::<u16>()
        .map(u32::from)
        .map_err(|_| FilterError::new(field, value, "not a port number (0 to 65535)"))
}

fn identities(field: &'static str, values: &[String]) -> Result<Vec<u32>, FilterError> {
    let mut numbers = Vec::new();
    for value in values {
        if let Ok(number) = value.parse::<u32>() {
            numbers.push(number);
        } else if value == "world" {
            numbers
                .extend([Identity::WORLD, Identity::WORLD_IPV4, Identity::WORLD_IPV6].map(|i| i.0));
        } else if let Some(identity) = Identity::from_reserved_name(value) {
            numbers.push(identity.0);
        } else {
            let names: Vec<_> = Identity::RESERVED.iter().map(|(_, name)| *name).collect();
            return Err(FilterError::new(
                field,
                value,
                format!("not a number and not one of {}", names.join(", ")),
            ));
        }
    }
    Ok(numbers)
}

fn verdict(field: &'static str, value: &str) -> Result<Verdict, FilterError> {
    Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.name().eq_ignore_ascii_case(value))
        .ok_or_else(|| {
            let names: Vec<_> = Verdict::ALL.iter().map(|one| one.name()).collect();
            FilterError::new(field, value, format!("not one of {}", names.join(", ")))
        })
}

fn event_type(field: &'static str, value: &str) -> Result<(u32, Option<u32>), FilterError> {
    let (name, point) = match value.split_once(':') {
        Some((name, point)) => (name, Some(point)),
        None => (value, None),
    };
    let kind = match name.to_ascii_lowercase().as_str() {
        "drop" => event_kind::DROP,
        "trace" => event_kind::TRACE,
        "policy-verdict" => event_kind::POLICY_VERDICT,
        "sock" | "trace-sock" => event_kind::TRACE_SOCK,
        "l7" => event_kind::L7,
        _ => {
            return Err(FilterError::new(
                field,
                value,
                "not one of drop, trace, l7, policy-verdict, sock",
            ));
        }
    };
    let point = match point {
        None => None,
        Some(text) => Some(
            text.parse::<u8>()
                .ok()
                .or_else(|| observation_number(&text.to_ascii_lowercase()))
                .filter(|_| kind == event_kind::TRACE || kind == event_kind::DROP)
                .ok_or_else(|| {
                    FilterError::new(
                        field,
                        value,
                        "after the colon stands a trace point (to-endpoint, from-network, ...) or a number",
                    )
                })?,
        ),
    };
    Ok((kind, point.map(u32::from)))
}

fn protocol(field: &'static str, value: &str) -> Result<Protocol, FilterError> {
    Ok(match value.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "icmp" => Protocol::Icmp,
        "icmpv4" => Protocol::Icmpv4,
        "icmpv6" => Protocol::Icmpv6,
        _ => {
            return Err(FilterError::new(
                field,
                value,
                "not one of tcp, udp, sctp, icmp, icmpv4, icmpv6",
            ));
        }
    })
}

fn direction(field: &'static str, value: &str) -> Result<Direction, FilterError> {
    match value.to_ascii_lowercase().as_str() {
        "ingress" => Ok(Direction::Ingress),
        "egress" => Ok(Direction::Egress),
        _ => Err(FilterError::new(field, value, "not ingress or egress")),
    }
}

fn tcp_flags(field: &'static str, value: &str) -> Result<TcpFlags, FilterError> {
    let unknown = || FilterError::new(field, value, "FIN, SYN, RST, PSH, ACK, URG, ECE or CWR");
    TcpFlags::from_names(value.split(',')).ok_or_else(unknown)
}

fn drop_reason(field: &'static str, value: &str) -> Result<u32, FilterError> {
    DropReason::ALL
        .iter()
        .find(|reason| {
            !reason.hubble_name().is_empty() && reason.hubble_name().eq_ignore_ascii_case(value)
        })
        .map(|reason| u32::from(*reason as u8))
        .ok_or_else(|| {
            FilterError::new(
                field,
                value,
                "not a drop reason like POLICY_DENIED or INVALID_SOURCE_IP",
            )
        })
}

/// `*` stands for any characters; iterative, so that no pattern is slow.
fn node_matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.rsplit('/').next().unwrap_or(pattern);
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.collect();
    let (last, middle) = match parts.split_last() {
        Some((last, middle)) => (*last, middle),
        None => ("", &[][..]),
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests;
