//! Protocols, and what a backend is known by.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A transport protocol of a Service's port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its name in the Kubernetes API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol with this name; an empty one is TCP, the API's default.
    pub fn named(name: &str) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::Tcp);
        }
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a backend is known by, on every node and over restarts: where its packets go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackendKey {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = SocketAddr::new(self.address, self.port);
        write!(f, "{socket}/{}", self.protocol)
    }
}

/// What an operator wants of a backend (Azure Load Balancer's admin state, and draining).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum AdminState {
    /// Nothing: conditions and probes decide.
    #[default]
    None,
    /// Whatever its probe says. It has to be ready all the same: what is not ready may not even listen.
    Up,
    /// No new connections; connections that stand go on.
    Down,
    /// No new connections; what stands has until the deadline, UDP too.
    Drain {
        /// When flows that are left are moved, in seconds of the caller's clock.
        deadline: u64,
    },
}

/// What a health check says of a backend, beside its readiness.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Probe {
    /// There is no check, or no result yet: readiness alone decides.
    #[default]
    Unknown,
    /// It passed.
    Up,
    /// It failed.
    Down,
}

/// A number that is a port.
pub(crate) fn to_port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}
