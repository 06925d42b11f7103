//! The flow record: field for field Hubble's protojson (reference 4.2).
//!
//! Fields stand in the order of `flow.proto`; like protojson, a field that holds its zero value is left
//! out, and 64-bit numbers are strings.

use crate::Timestamp;
use heddle_abi::{DropReason, EVENT_DROP, EVENT_TRACE, EVENT_VERDICT};
use serde::{Deserialize, Serialize};

/// `MessageType` numbers of `event_type` (reference 3.7).
pub mod event_kind {
    /// A packet was dropped.
    pub const DROP: u32 = super::EVENT_DROP as u32;
    /// A packet was forwarded.
    pub const TRACE: u32 = super::EVENT_TRACE as u32;
    /// A policy decided on a new connection.
    pub const POLICY_VERDICT: u32 = super::EVENT_VERDICT as u32;
    /// A socket was translated.
    pub const TRACE_SOCK: u32 = 7;
    /// A proxy saw a request or an answer.
    pub const L7: u32 = 129;
}

/// What became of the packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Verdict {
    #[default]
    #[serde(rename = "VERDICT_UNKNOWN")]
    Unknown,
    Forwarded,
    Dropped,
    Error,
    Audit,
    Redirected,
    Traced,
    Translated,
}

impl Verdict {
    /// Every verdict but the unknown one, in the order of its number.
    pub const ALL: [Self; 7] = [
        Self::Forwarded,
        Self::Dropped,
        Self::Error,
        Self::Audit,
        Self::Redirected,
        Self::Traced,
        Self::Translated,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "VERDICT_UNKNOWN",
            Self::Forwarded => "FORWARDED",
            Self::Dropped => "DROPPED",
            Self::Error => "ERROR",
            Self::Audit => "AUDIT",
            Self::Redirected => "REDIRECTED",
            Self::Traced => "TRACED",
            Self::Translated => "TRANSLATED",
        }
    }

    const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// Direction of the connection, seen from the endpoint whose policy or hook speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Direction {
    #[default]
    #[serde(rename = "TRAFFIC_DIRECTION_UNKNOWN")]
    Unknown,
    #[serde(rename = "INGRESS")]
    Ingress,
    #[serde(rename = "EGRESS")]
    Egress,
}

impl Direction {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "TRAFFIC_DIRECTION_UNKNOWN",
            Self::Ingress => "INGRESS",
            Self::Egress => "EGRESS",
        }
    }

    const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// Why a packet was reported.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum TraceReason {
    #[default]
    #[serde(rename = "TRACE_REASON_UNKNOWN")]
    Unknown,
    New,
    Established,
    Reply,
    Related,
}

impl TraceReason {
    const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// What a flow record is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum FlowType {
    #[default]
    #[serde(rename = "UNKNOWN_TYPE")]
    Unknown,
    #[serde(rename = "L3_L4")]
    L3L4,
    L7,
    #[serde(rename = "SOCK")]
    Sock,
}

/// MAC addresses, `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ethernet {
    /// Of the sender.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Of the receiver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
}

/// Address family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum IpVersion {
    #[default]
    #[serde(rename = "IP_NOT_USED")]
    NotUsed,
    #[serde(rename = "IPv4")]
    V4,
    #[serde(rename = "IPv6")]
    V6,
}

/// The IP layer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ip {
    /// Source address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Destination address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// Family.
    #[serde(rename = "ipVersion")]
    pub version: IpVersion,
}

const fn is_zero(number: &u32) -> bool {
    *number == 0
}
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Source and destination port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// Source port.
    #[serde(skip_serializing_if = "is_zero")]
    pub source_port: u32,
    /// Destination port.
    #[serde(skip_serializing_if = "is_zero")]
    pub destination_port: u32,
}

/// The TCP layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tcp {
    /// Source port.
    #[serde(skip_serializing_if = "is_zero")]
    pub source_port: u32,
    /// Destination port.
    #[serde(skip_serializing_if = "is_zero")]
    pub destination_port: u32,
    /// Flags of the packet.
    #[serde(skip_serializing_if = "TcpFlags::is_empty")]
    pub flags: TcpFlags,
}

/// TCP flags of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct TcpFlags {
    #[serde(skip_serializing_if = "is_false")]
    pub fin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub syn: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub rst: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub psh: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub ack: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub urg: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub ece: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub cwr: bool,
}

impl TcpFlags {
    /// Their names, from the lowest bit of a TCP header's flags byte on; Hubble's order, too.
    const NAMES: [&'static str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

    /// From the flags byte of a TCP header.
    pub const fn from_byte(byte: u8) -> Self {
        Self {
            fin: byte & 0x01 != 0,
            syn: byte & 0x02 != 0,
            rst: byte & 0x04 != 0,
            psh: byte & 0x08 != 0,
            ack: byte & 0x10 != 0,
            urg: byte & 0x20 != 0,
            ece: byte & 0x40 != 0,
            cwr: byte & 0x80 != 0,
        }
    }

    /// From names in any case; `None` when one of them is no flag.
    pub fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut byte = 0;
        for name in names {
            let mut known = Self::NAMES.iter();
            byte |= 1u8 << known.position(|flag| flag.eq_ignore_ascii_case(name.trim()))?;
        }
        Some(Self::from_byte(byte))
    }

    /// Whether all flags are set that are set in `others`.
    pub fn contain(&self, others: Self) -> bool {
        let mut pairs = self.set().into_iter().zip(others.set());
        pairs.all(|(set, wanted)| set || !wanted)
    }

    /// The names of the flags that are set, in Hubble's order.
    pub fn names(&self) -> Vec<&'static str> {
        let names = Self::NAMES.into_iter().zip(self.set());
        names
            .filter_map(|(name, set)| set.then_some(name))
            .collect()
    }

    /// The flags in the order of [`Self::NAMES`].
    const fn set(self) -> [bool; 8] {
        [
            self.fin, self.syn, self.rst, self.psh, self.ack, self.urg, self.ece, self.cwr,
        ]
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An ICMP message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Icmp {
    /// Its type.
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    pub kind: u32,
    /// Its code.
    #[serde(skip_serializing_if = "is_zero")]
    pub code: u32,
}

/// The transport layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Layer4 {
    #[serde(rename = "TCP")]
    Tcp(Tcp),
    #[serde(rename = "UDP")]
    Udp(Ports),
    #[serde(rename = "ICMPv4")]
    Icmpv4(Icmp),
    #[serde(rename = "ICMPv6")]
    Icmpv6(Icmp),
    #[serde(rename = "SCTP")]
    Sctp(Ports),
}

impl Layer4 {
    /// Source and destination port; `None` for protocols without ports.
    pub const fn ports(&self) -> Option<(u32, u32)> {
        match self {
            Self::Tcp(tcp) => Some((tcp.source_port, tcp.destination_port)),
            Self::Udp(ports) | Self::Sctp(ports) => {
                Some((ports.source_port, ports.destination_port))
            }
            Self::Icmpv4(_) | Self::Icmpv6(_) => None,
        }
    }

    /// The protocol's name as filters and metrics spell it.
    pub const fn protocol(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "TCP",
            Self::Udp(_) => "UDP",
            Self::Icmpv4(_) => "ICMPv4",
            Self::Icmpv6(_) => "ICMPv6",
            Self::Sctp(_) => "SCTP",
        }
    }
}

/// An object that owns a pod.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// One end of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Endpoint id, for a pod of the reporting node.
    #[serde(rename = "ID", skip_serializing_if = "is_zero")]
    pub id: u32,
    /// Security identity.
    #[serde(skip_serializing_if = "is_zero")]
    pub identity: u32,
    /// The cluster's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_name: String,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Labels of the identity.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The pod's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    /// What owns the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<Workload>,
}

/// Which event the flow was made from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventType {
    /// See [`event_kind`].
    #[serde(rename = "type", skip_serializing_if = "is_zero")]
    pub kind: u32,
    /// For a drop its reason, for a trace its observation point.
    #[serde(skip_serializing_if = "is_zero")]
    pub sub_type: u32,
}

/// An interface of the reporting node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its index.
    #[serde(skip_serializing_if = "is_zero")]
    pub index: u32,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// A policy that decided.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The revision it came with.
    #[serde(with = "quoted", skip_serializing_if = "is_zero_wide")]
    pub revision: u64,
    /// Its kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.kind.is_empty() {
            write!(f, "{} ", self.kind)?;
        }
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

const fn is_zero_wide(number: &u64) -> bool {
    *number == 0
}

/// 64-bit numbers are strings in protojson; both spellings are read.
mod quoted {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Spelling {
        Number(u64),
        Text(String),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        match Spelling::deserialize(deserializer)? {
            Spelling::Number(number) => Ok(number),
            Spelling::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// One flow: a packet, who sent it to whom, and what was decided by which policy.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Flow {
    /// When the packet was seen.
    pub time: Timestamp,
    /// Unique name of the flow.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// What became of the packet.
    #[serde(skip_serializing_if = "Verdict::is_unknown")]
    pub verdict: Verdict,
    /// Number of the drop reason (reference 3.8).
    #[serde(skip_serializing_if = "is_zero")]
    pub drop_reason: u32,
    /// Link layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ethernet: Option<Ethernet>,
    /// Network layer.
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    /// Transport layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4: Option<Layer4>,
    /// Who sent it.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// What the record is about.
    #[serde(rename = "Type")]
    pub flow_type: FlowType,
    /// The node that saw it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// The event it was made from.
    pub event_type: EventType,
    /// Whose policy or hook spoke.
    #[serde(skip_serializing_if = "Direction::is_unknown")]
    pub traffic_direction: Direction,
    /// Kind of the policy entry that decided (reference 3.7).
    #[serde(skip_serializing_if = "is_zero")]
    pub policy_match_type: u32,
    /// Where the packet was seen, see [`observation_name`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_observation_point: String,
    /// Why it was reported.
    #[serde(skip_serializing_if = "TraceReason::is_unknown")]
    pub trace_reason: TraceReason,
    /// Hubble's name of the drop reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub drop_reason_desc: String,
    /// Whether it travels in the reply direction; `None` when that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_reply: Option<bool>,
    /// Where it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// The transport layer in words.
    #[serde(rename = "Summary", skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// Policies whose egress rules allowed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allowed_by: Vec<Policy>,
    /// Policies whose ingress rules allowed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_allowed_by: Vec<Policy>,
    /// Policies whose egress rules denied it, or that isolate its source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_denied_by: Vec<Policy>,
    /// Policies whose ingress rules denied it, or that isolate its destination.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress_denied_by: Vec<Policy>,
    /// What Hubble's record has no field for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Extensions>,
}

/// Heddle's own part of a flow, in the field that Hubble's record keeps for such: an `Any`, which protojson readers
/// refuse when they do not know its type. So it is of a well-known one, which stands under `value`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Extensions {
    /// Names the type, as protojson wants it of an `Any`.
    #[serde(rename = "@type")]
    pub kind: String,
    /// The content.
    pub value: DenialDetail,
}

/// What Heddle knows of a denied connection and Hubble's record has no field for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DenialDetail {
    /// After a default deny: the allows that came nearest, the nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<NearestAllow>,
}

impl Extensions {
    /// The value of `@type`: any JSON object.
    pub const KIND: &'static str = "type.googleapis.com/google.protobuf.Struct";

    /// What nearly allowed a denied connection.
    pub fn nearest(nearest: Vec<NearestAllow>) -> Self {
        Self {
            kind: Self::KIND.to_owned(),
            value: DenialDetail { nearest },
        }
    }
}

/// An allow that came near, and the term of it that failed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NearestAllow {
    /// The rule, as people write it: `NetworkPolicy shop/web ingress[0]`.
    pub rule: String,
    /// `peer`, `port`, `protocol` or `icmp`.
    pub failed: String,
    /// What the term asks for.
    pub wanted: String,
    /// What was there.
    pub got: String,
}

impl Flow {
    /// Source and destination port; `None` where the protocol has none.
    pub fn ports(&self) -> Option<(u32, u32)> {
        self.l4.as_ref().and_then(Layer4::ports)
    }
}

/// Where events were lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LossSource {
    /// Between the kernel and the agent.
    PerfEventRingBuffer,
    /// In the agent, before they were decoded.
    ObserverEventsQueue,
    /// In the agent's memory: overwritten before the reader came by.
    HubbleRingBuffer,
}

impl LossSource {
    /// Every source.
    pub const ALL: [Self; 3] = [
        Self::PerfEventRingBuffer,
        Self::ObserverEventsQueue,
        Self::HubbleRingBuffer,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerfEventRingBuffer => "PERF_EVENT_RING_BUFFER",
            Self::ObserverEventsQueue => "OBSERVER_EVENTS_QUEUE",
            Self::HubbleRingBuffer => "HUBBLE_RING_BUFFER",
        }
    }
}

/// Events that were lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LostEvents {
    /// Where.
    pub source: LossSource,
    /// How many since the last such line.
    #[serde(with = "quoted")]
    pub num_events_lost: u64,
}

/// Whether a node answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum NodeState {
    NodeConnected,
    NodeUnavailable,
    NodeGone,
    NodeError,
}

/// What became of a node whose flows were asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its state.
    pub state_change: NodeState,
    /// Its name.
    pub node_names: Vec<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a line holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A flow.
    Flow(Box<Flow>),
    /// A node came or went.
    NodeStatus(NodeStatus),
    /// Events were lost.
    LostEvents(LostEvents),
}

/// One line of `observe`: Hubble's `GetFlowsResponse`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Response {
    /// Its content.
    #[serde(flatten)]
    pub line: Line,
    /// The node that speaks.
    #[serde(default)]
    pub node_name: String,
    /// When.
    pub time: Timestamp,
}

impl Response {
    /// The flow, if it is one.
    pub fn flow(&self) -> Option<&Flow> {
        match &self.line {
            Line::Flow(flow) => Some(flow),
            Line::NodeStatus(_) | Line::LostEvents(_) => None,
        }
    }
}

/// Hubble's name of a drop reason; empty where Hubble has none.
pub fn drop_reason_name(number: u8) -> &'static str {
    DropReason::from_number(number).map_or("", DropReason::hubble_name)
}

/// The trace points (reference 3.7): number, Hubble's name, and the words of compact lines.
const OBSERVATIONS: [(u8, &str, &str); 14] = [
    (0, "TO_ENDPOINT", "to-endpoint"),
    (1, "TO_PROXY", "to-proxy"),
    (2, "TO_HOST", "to-host"),
    (3, "TO_STACK", "to-stack"),
    (4, "TO_OVERLAY", "to-overlay"),
    (5, "FROM_ENDPOINT", "from-endpoint"),
    (6, "FROM_PROXY", "from-proxy"),
    (7, "FROM_HOST", "from-host"),
    (8, "FROM_STACK", "from-stack"),
    (9, "FROM_OVERLAY", "from-overlay"),
    (10, "FROM_NETWORK", "from-network"),
    (11, "TO_NETWORK", "to-network"),
    (12, "FROM_CRYPTO", "from-crypto"),
    (13, "TO_CRYPTO", "to-crypto"),
];

/// Hubble's name of a trace point; empty for a number that is none.
pub fn observation_name(number: u8) -> &'static str {
    OBSERVATIONS
        .iter()
        .find(|(known, _, _)| *known == number)
        .map_or("", |(_, name, _)| name)
}

/// The words of a trace point (`to-endpoint`); empty for a number that is none.
pub fn observation_words(number: u8) -> &'static str {
    OBSERVATIONS
        .iter()
        .find(|(known, _, _)| *known == number)
        .map_or("", |(_, _, words)| words)
}

/// The trace point with these words.
pub(crate) fn observation_number(words: &str) -> Option<u8> {
    OBSERVATIONS
        .iter()
        .find(|(_, _, known)| *known == words)
        .map(|(number, _, _)| *number)
}
