//! The path between two ends, as the kernels of their nodes have it: devices, routes, next hops, MTU, who listens, and
//! connections that hear no answer. Policy may allow what the path does not carry.
//!
//! Nodes tell what they [`Seen`], [`checks`] evaluates one end's part, [`one_way`] compares both ends' connections.

mod checks;
mod connections;
mod listeners;
mod mtu;
mod refused;
mod routes;
mod seen;

pub use checks::{Side, checks};
pub use connections::{Connections, Tracked, one_way};
pub use mtu::differing_mtu;
pub use seen::{
    Device, DeviceState, Inside, Listener, Neighbour, NextHop, NoRoute, Observed, Place, Route,
    Seen,
};

use crate::Family;
use serde::Serialize;

/// Seconds after which what was seen of packets says nothing of the path as it is now.
const RECENT_SECONDS: u32 = 30;

/// What a check is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The whole path: where nobody could be asked, or no packet ever comes as far as a device.
    Path,
    /// A network device.
    Device,
    /// Where the kernel's routes lead.
    Route,
    /// Whether the next hop's link-layer address is known.
    NextHop,
    /// Whether what the pod may send fits.
    Mtu,
    /// Whether somebody takes the packet at the destination.
    Listener,
    /// Whether connections hear an answer.
    Connections,
}

/// What came of a check.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It is as it must be for this connection.
    Pass,
    /// It is not.
    Fail,
    /// It is not as it should be; this connection does not need it, or may get through all the same.
    Warn,
    /// It could not be done.
    NotDone,
}

/// What was found. Stable: scripts compare it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Code {
    /// The programs drop whatever has the other end's address.
    #[serde(rename = "path/unroutable")]
    Unroutable,
    /// The programs drop what has the form of the overlay's packets.
    #[serde(rename = "path/encapsulation")]
    Encapsulation,
    /// A device is not there.
    #[serde(rename = "path/device-missing")]
    DeviceMissing,
    /// A device is down, or has no carrier.
    #[serde(rename = "path/device-down")]
    DeviceDown,
    /// The MTU of a device is less than IPv6 needs: the kernel has switched IPv6 off there.
    #[serde(rename = "path/mtu-below-1280")]
    MtuBelow1280,
    /// The kernel has no route.
    #[serde(rename = "path/no-route")]
    NoRoute,
    /// The kernel's route leads to another device than the datapath relies on.
    #[serde(rename = "path/wrong-device")]
    WrongDevice,
    /// The next hop did not answer when it was last asked for its link-layer address.
    #[serde(rename = "path/neighbour-failed")]
    NeighbourFailed,
    /// The next hop is being asked for its link-layer address, and has not answered.
    #[serde(rename = "path/neighbour-incomplete")]
    NeighbourIncomplete,
    /// The path's MTU is smaller than the pod's.
    #[serde(rename = "path/mtu-too-small")]
    MtuTooSmall,
    /// The pods of both ends have different MTUs.
    #[serde(rename = "path/mtu-differs")]
    MtuDiffers,
    /// Nobody listens.
    #[serde(rename = "path/no-listener")]
    NoListener,
    /// Packets go one way only.
    #[serde(rename = "path/one-way")]
    OneWay,
}

impl Code {
    /// The code as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unroutable => "path/unroutable",
            Self::Encapsulation => "path/encapsulation",
            Self::DeviceMissing => "path/device-missing",
            Self::DeviceDown => "path/device-down",
            Self::MtuBelow1280 => "path/mtu-below-1280",
            Self::NoRoute => "path/no-route",
            Self::WrongDevice => "path/wrong-device",
            Self::NeighbourFailed => "path/neighbour-failed",
            Self::NeighbourIncomplete => "path/neighbour-incomplete",
            Self::MtuTooSmall => "path/mtu-too-small",
            Self::MtuDiffers => "path/mtu-differs",
            Self::NoListener => "path/no-listener",
            Self::OneWay => "path/one-way",
        }
    }
}

/// One check of the path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What it is about.
    pub subject: Subject,
    /// What came of it.
    pub status: Status,
    /// What was found; only of checks that fail or warn.
    pub code: Option<Code>,
    /// The node that was asked.
    pub node: String,
    /// The families that it holds for.
    pub families: Vec<Family>,
    /// Whether no packet of this connection gets through while it is so.
    pub stops: bool,
    /// What was seen, in a sentence; of a check that was not done, which and why not.
    pub seen: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Check {
    /// Whether it may be over by itself in a moment.
    pub fn is_transient(&self) -> bool {
        self.code == Some(Code::NeighbourIncomplete)
    }
}

/// What the checks say together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing was found.
    Ok,
    /// Something stops every packet.
    Broken,
    /// Something was found that does not stop every packet.
    Impaired,
    /// Nothing was found, and not everything could be looked at.
    Unknown,
}

impl Verdict {
    /// The worst that checks say.
    pub fn of(checks: &[Check]) -> Self {
        let has = |status| checks.iter().any(|check| check.status == status);
        if checks.iter().any(|check| check.stops) {
            Self::Broken
        } else if has(Status::Fail) || has(Status::Warn) {
            Self::Impaired
        } else if has(Status::NotDone) {
            Self::Unknown
        } else {
            Self::Ok
        }
    }
}

/// The checks of all families: equal ones once, what stops packets first, then what else was found, then what could not be
/// done, then what passed.
pub fn merged(checks: impl IntoIterator<Item = Check>) -> Vec<Check> {
    let mut all: Vec<Check> = Vec::new();
    for check in checks {
        let like = all.iter_mut().find(|other| {
            let alike = Check {
                families: other.families.clone(),
                ..check.clone()
            };
            **other == alike
        });
        match like {
            Some(other) => {
                for family in check.families {
                    if !other.families.contains(&family) {
                        other.families.push(family);
                    }
                }
            }
            None => all.push(check),
        }
    }
    all.sort_by_key(|check| {
        let rank = match check.status {
            Status::Fail if check.stops => 0,
            Status::Fail => 1,
            Status::Warn => 2,
            Status::NotDone => 3,
            Status::Pass => 4,
        };
        (rank, check.subject)
    });
    all
}

#[cfg(test)]
mod tests;
