//! What the datapath must know before it opens.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// What the datapath must know before it opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Directory on a bpffs for this node's pins; the ABI version is added to it.
    pub pin_dir: PathBuf,
    /// Interface that leads to the other nodes.
    pub uplink: String,
    /// Encapsulate packets to other nodes' pods.
    pub overlay: bool,
    /// eBPF redirects instead of the node's network stack.
    pub host_routing: bool,
    /// Attach by clsact even where the kernel has tcx.
    pub force_clsact: bool,
    /// Where the kernel has tcx, attach a new pod's programs by clsact first and by tcx soon after, so that
    /// nobody waits for the kernel. Off: by tcx at once.
    pub quick_attach: bool,
    /// Gateway address in pods' IPv4 routes. Link-local, so that it is nobody's pod address.
    pub gateway_ipv4: Ipv4Addr,
    /// Gateway address in pods' IPv6 routes.
    pub gateway_ipv6: Ipv6Addr,
    /// Connections tracked at most, and established TCP connections beside them.
    pub max_connections: u32,
    /// Rows in an endpoint's policy map at most.
    pub max_policy_entries: u32,
    /// Rows in the ipcache at most.
    pub max_ipcache_entries: u32,
    /// Seconds between two events of one connection.
    pub report_interval: u32,
    /// Drop events per second at most for a local sender, or a part of what comes to an endpoint, and a CPU.
    pub drop_event_rate: u32,
    /// Verdict and trace events per second at most for an endpoint, a direction and a CPU.
    pub trace_event_rate: u32,
    /// Established TCP connections that no others can evict: this many that an endpoint opens, and as many that
    /// are opened to it. At most what leaves room for [`Self::ENDPOINTS_WITH_SHARES`], see
    /// [`Self::share_that_fits`].
    pub established_share: u32,
}

impl Settings {
    /// Gateway address in pods' IPv4 routes (RFC 3927 range).
    pub const GATEWAY_IPV4: Ipv4Addr = heddle_verify::GATEWAY_IPV4;
    /// Gateway address in pods' IPv6 routes (RFC 4291, 2.5.6).
    pub const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x23, 1);

    /// Endpoints that can use both of their shares of established connections up before these are full: more than
    /// the 110 pods that a kubelet runs on a node by default.
    pub const ENDPOINTS_WITH_SHARES: u32 = 128;

    /// The share of an endpoint, or a smaller one of which as many as promised fit into `max_connections`.
    pub fn share_that_fits(&self) -> u32 {
        let most = self.max_connections / (2 * Self::ENDPOINTS_WITH_SHARES);
        self.established_share.min(most)
    }

    /// Defaults (reference 3.2, 3.3 and 3.7; connections at Cilium's floor) for a node with this uplink.
    pub fn new(pin_dir: impl Into<PathBuf>, uplink: impl Into<String>) -> Self {
        Self {
            pin_dir: pin_dir.into(),
            uplink: uplink.into(),
            overlay: false,
            host_routing: true,
            force_clsact: false,
            quick_attach: true,
            gateway_ipv4: Self::GATEWAY_IPV4,
            gateway_ipv6: Self::GATEWAY_IPV6,
            max_connections: 131_072,
            max_policy_entries: 16_384,
            max_ipcache_entries: 131_072,
            report_interval: 5,
            drop_event_rate: 250,
            trace_event_rate: 1_000,
            // 256 endpoints that use both shares up fill the table.
            established_share: 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promised_number_of_endpoints_finds_room_for_their_shares() {
        let mut settings = Settings::new("/nowhere", "eth0");
        assert_eq!(settings.share_that_fits(), settings.established_share);
        for (max, share, fits) in [
            (131_072, 256, 256),
            (131_072, 10_000, 512),
            (4_096, 256, 16),
            (4_096, 8, 8),
            (255, 256, 0),
        ] {
            (settings.max_connections, settings.established_share) = (max, share);
            let found = settings.share_that_fits();
            assert_eq!(found, fits, "{share} of {max}");
            assert!(found * 2 * Settings::ENDPOINTS_WITH_SHARES <= max);
        }
    }
}
