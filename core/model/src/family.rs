//! The two address families.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The family of a network.
    pub const fn of_network(network: &IpNet) -> Self {
        match network {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// The family with this version number of IP: 4 or 6.
    pub const fn of_version(version: u8) -> Option<Self> {
        match version {
            4 => Some(Self::V4),
            6 => Some(Self::V6),
            _ => None,
        }
    }

    /// `IPv4` or `IPv6`, as `ipFamilies` and `addressType` of Kubernetes write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// `ipv4` or `ipv6`, as fields and metrics name it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Its position in [`Family::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The family that [`Family::name`] names.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_found_by_all_that_names_it() {
        for (family, version, network) in
            [(Family::V4, 4, "10.0.0.0/8"), (Family::V6, 6, "fd00::/8")]
        {
            assert_eq!(Family::ALL[family.index()], family);
            assert_eq!(Family::named(family.name()), Some(family));
            assert_eq!(Family::of_version(version), Some(family));
            let network: IpNet = network.parse().unwrap();
            assert_eq!(Family::of_network(&network), family);
            assert_eq!(Family::of(network.addr()), family);
            let json = serde_json::to_string(&family).unwrap();
            assert_eq!(json, format!("\"{family}\""));
            assert_eq!(family.label(), family.name().to_lowercase());
        }
        assert_eq!((Family::named("ipv4"), Family::of_version(5)), (None, None));
    }
}
