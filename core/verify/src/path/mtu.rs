//! Whether what a pod may send fits through the path.

use super::{
    Check, Code, Device, Observed, Place, Route, Seen, Status, Subject,
    checks::{Expected, Found, Way},
};
use crate::Family;
use std::net::IpAddr;

/// Bytes of the outer headers over IPv4 and over IPv6 (reference 3.4).
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;

impl Found<'_> {
    /// Whether what the pod may send fits through what its node has of the way.
    pub(super) fn mtu(&mut self, seen: &Seen, way: &Way<'_>) {
        let own = self.side.own;
        let mut limits: Vec<(u32, String)> = Vec::new();
        let state = |device: Option<&Observed<Device>>| {
            let device = device.and_then(Observed::seen)?;
            Some((device.name.clone(), device.state?))
        };
        if let Some((name, link)) = state(seen.pod_link.as_ref()) {
            limits.push((
                link.mtu,
                format!("{name}, the host side of its link, has MTU {}", link.mtu),
            ));
        }
        let overlay = state(seen.overlay.as_ref()).filter(|_| way.overlay);
        if let Some((name, device)) = &overlay {
            limits.push((device.mtu, format!("{name} has MTU {}", device.mtu)));
        }
        let outer = seen.to_node.as_ref().filter(|_| way.overlay);
        let inner = seen
            .to_peer
            .as_ref()
            .filter(|_| !matches!(way.route, Expected::Unused));
        for (route, is_outer) in [(outer, true), (inner, false)] {
            let Some(Observed::Seen(Route::Leads {
                device, mtu, hops, ..
            })) = route
            else {
                continue;
            };
            let devices = std::iter::once(device).chain(hops.iter().map(|hop| &hop.device));
            let of_devices =
                devices.filter_map(|device| Some((Some(device.state?.mtu), device.name.as_str())));
            let node = match &seen.place {
                Place::RemotePod { node } | Place::RemoteNode { node } if is_outer => Some(node),
                _ => None,
            };
            let (overhead, beside) = match node {
                Some(IpAddr::V6(_)) => (OVERHEAD_IPV6, ", less 70 bytes of outer headers"),
                Some(IpAddr::V4(_)) => (OVERHEAD_IPV4, ", less 50 bytes of outer headers"),
                None => (0, ""),
            };
            for (mtu, whose) in of_devices.chain([(*mtu, "the route")]) {
                if let Some(mtu) = mtu {
                    limits.push((
                        mtu.saturating_sub(overhead),
                        format!("{whose} has MTU {mtu}{beside}"),
                    ));
                }
            }
        }
        let sender = match &seen.inside {
            Some(Observed::Seen(_)) => seen.pod_mtu(),
            // What the node's stack sends is told the MTU of the device; encapsulated it must fit as well.
            None => overlay.map(|(_, state)| state.mtu),
            Some(Observed::Failed(_)) => None,
        };
        let Some(sender) = sender else { return };
        match limits.into_iter().min() {
            Some((limit, why)) if limit < sender => self.fail(
                Subject::Mtu,
                Code::MtuTooSmall,
                false,
                format!(
                    "{own} sends packets of up to {sender} bytes, and those of more than {limit} do not fit: {why}"
                ),
                "give every device of the way the MTU of the pods at least, or the pods a smaller one (pods get the uplink's, less the outer headers with VXLAN, when they are made)".to_owned(),
            ),
            Some(_) => self.pass(Subject::Mtu, format!("what {own} sends, up to {sender} bytes, fits")),
            None => {}
        }
    }
}

/// Whether the pods of both ends have different MTUs: what the one sends may not fit the other.
pub fn differing_mtu(
    names: (&str, &str),
    node: &str,
    family: Family,
    from: u32,
    to: u32,
) -> Option<Check> {
    let smaller = from.min(to);
    (from != to).then(|| Check {
        subject: Subject::Mtu,
        status: Status::Warn,
        code: Some(Code::MtuDiffers),
        node: node.to_owned(),
        families: vec![family],
        stops: false,
        seen: format!(
            "{} has MTU {from} and {} has {to}: TCP agrees on the smaller one, datagrams of more than {smaller} bytes may be lost",
            names.0, names.1
        ),
        help: Some("pods get the MTU that their node has when they are made: see that the nodes' uplinks have the same, then make the pods anew".to_owned()),
    })
}
