//! Rules in, decisions and map entries out: the one place where a verdict is computed.
//!
//! An [`Engine`] holds policies and identities. [`Engine::compile`] turns the policies that select an
//! endpoint into map entries for the kernel; [`Engine::decide`] answers the same question on paper and
//! says why. A property test holds the two together.
#![forbid(unsafe_code)]

mod alias;
mod budget;
mod case;
mod cidr;
mod compile;
pub mod compiled;
mod cookie;
mod decide;
mod engine;
mod facts;
mod fast;
mod index;
mod link;
mod order;
mod outlook;
mod peer;
mod port;
pub mod protocol;
mod rows;
mod rule;
mod selector;
mod world;

pub use budget::{CidrBudget, CidrLimits};
pub use cidr::{CidrAssignment, CidrChange, CidrScope};
pub use compiled::{Alias, CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};
pub use decide::{Because, Decision, DirectionDecision, Nearest, Party, Term, Traffic};
pub use engine::Engine;
pub use facts::{EnforcementMode, NodeFacts, ServiceFacts};
pub use outlook::{Outlook, Towards};
pub use peer::{CidrBlock, CidrGroupRef, Peer, Peers, ServiceRef};
pub use port::{IcmpFamily, PortMatch, PortTerm, Ports, Transport};
pub use rule::{
    Action, Isolation, Policy, PolicyId, PolicyKind, PolicySpec, Rule, RuleRef, Section, Tier,
};
pub use selector::EndpointSelector;
