//! The flow record, its filters and its printed forms.
//!
//! A [`Flow`] serialises to what Hubble's clients read: the protojson form of `GetFlowsResponse`, one
//! object per line (reference 4.2). [`decode`] makes it from a kernel event and a [`Resolver`], [`Filter`]
//! selects with the meaning of Hubble's `observe` flags, and [`print`] writes it for people.
//! Everything here is pure: no I/O, no clock, no globals.
#![forbid(unsafe_code)]

mod decode;
mod filter;
mod flags;
mod packet;
pub mod print;
mod record;
mod resolve;
mod selector;
mod time;

pub use decode::{Context, decode, denial};
pub use filter::{Clause, Filter, FilterError, Matcher, ObserveRequest};
pub use flags::{FilterBuilder, FilterFlag};
pub use record::{
    DenialDetail, Direction, Endpoint, Ethernet, EventType, Extensions, Flow, FlowType, Icmp,
    Interface, Ip, IpVersion, Layer4, Line, LossSource, LostEvents, NearestAllow, NodeState,
    NodeStatus, Policy, Ports, Response, Tcp, TcpFlags, TraceReason, Verdict, Workload,
    drop_reason_name, event_kind, observation_name, observation_words,
};
pub use resolve::{Asked, Denied, Nobody, Peer, Resolver};
pub use selector::LabelSelector;
pub use time::{ParseTimeError, Timestamp};
