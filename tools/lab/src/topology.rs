//! The lab's network: a router that plays the cloud, nodes, and a host outside.

use crate::LabError;
use crate::config::LabRecord;
use crate::namespace;
use crate::network;
use crate::paths::Lab;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Interface of every host that leads to the router.
pub const UPLINK: &str = "eth0";
/// The MTU of every link, as the cloud's.
const MTU: u32 = 1_500;
/// The namespace that plays the cloud.
pub const ROUTER: &str = "router";
/// The host outside the cluster, in the documentation ranges (RFC 5737, RFC 3849).
pub const WORLD: &str = "world";

/// One link between the router and a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The host: `node-1`, `world`; also the name of the router's end.
    pub host: String,
    /// The host's addresses with the link's prefix.
    pub host_addresses: Vec<IpNet>,
    /// The router's addresses with the link's prefix.
    pub router_addresses: Vec<IpNet>,
}

impl Attachment {
    /// The link of node number `number` (from 1): 172.31.N.0/24 and fd31:N::/64.
    pub fn of_node(number: u8, families: &[u8]) -> Self {
        let group = u16::from(number);
        Self::new(
            &format!("node-{number}"),
            families,
            |last| Ipv4Addr::new(172, 31, number, last),
            |last| Ipv6Addr::new(0xfd31, group, 0, 0, 0, 0, 0, last),
            2,
        )
    }

    /// The link of the host outside.
    pub fn of_world(families: &[u8]) -> Self {
        Self::new(
            WORLD,
            families,
            |last| Ipv4Addr::new(203, 0, 113, last),
            // ::10 is written in decimal digits in both families.
            |last| {
                Ipv6Addr::new(
                    0x2001,
                    0xdb8,
                    0x113,
                    0,
                    0,
                    0,
                    0,
                    if last == 10 { 0x10 } else { last },
                )
            },
            10,
        )
    }

    fn new(
        host: &str,
        families: &[u8],
        v4: impl Fn(u8) -> Ipv4Addr,
        v6: impl Fn(u16) -> Ipv6Addr,
        host_part: u8,
    ) -> Self {
        let of = |last: u8| -> Vec<IpNet> {
            families
                .iter()
                .filter_map(|family| match family {
                    4 => Ipv4Net::new(v4(last), 24).ok().map(IpNet::from),
                    _ => Ipv6Net::new(v6(u16::from(last)), 64).ok().map(IpNet::from),
                })
                .collect()
        };
        Self {
            host: host.to_owned(),
            host_addresses: of(host_part),
            router_addresses: of(1),
        }
    }

    /// The host's address of a prefix's family.
    pub fn host_address(&self, like: &IpNet) -> Option<IpAddr> {
        self.host_addresses
            .iter()
            .map(IpNet::addr)
            .find(|address| address.is_ipv4() == like.addr().is_ipv4())
    }
}

/// The attachments of a lab: its nodes in order, then world.
pub fn attachments(record: &LabRecord) -> Vec<Attachment> {
    (1..=record.nodes.len())
        .filter_map(|number| u8::try_from(number).ok())
        .map(|number| Attachment::of_node(number, &record.families))
        .chain([Attachment::of_world(&record.families)])
        .collect()
}

/// One host's attachment.
pub fn attachment(record: &LabRecord, host: &str) -> Option<Attachment> {
    attachments(record)
        .into_iter()
        .find(|attachment| attachment.host == host)
}

/// Makes the namespaces and links of a lab.
pub fn build(lab: &Lab, record: &LabRecord) -> Result<(), LabError> {
    namespace::create(&lab.host_namespace(ROUTER))?;
    namespace::inside(&lab.host_namespace(ROUTER), || {
        forward()?;
        // A cloud drops what a machine sends with an address it does not own.
        namespace::set("ipv4/conf/all/rp_filter", "1")?;
        namespace::set("ipv4/conf/default/rp_filter", "1")
    })?;
    for attachment in attachments(record) {
        attach(lab, &attachment)?;
    }
    Ok(())
}

fn forward() -> Result<(), LabError> {
    namespace::set("ipv4/ip_forward", "1")?;
    namespace::set("ipv6/conf/all/forwarding", "1")?;
    namespace::set("ipv6/conf/default/forwarding", "1")?;
    namespace::set("ipv4/conf/default/send_redirects", "0")
}

fn attach(lab: &Lab, attachment: &Attachment) -> Result<(), LabError> {
    let host_namespace = lab.host_namespace(&attachment.host);
    let is_node = attachment.host != WORLD;
    namespace::create(&host_namespace)?;
    let host_file = namespace::open(&host_namespace)?;
    namespace::inside(&host_namespace, || {
        if is_node {
            forward()?;
        }
        namespace::set("ipv4/conf/all/rp_filter", "0")?;
        namespace::set("ipv4/conf/default/rp_filter", "0")
    })?;
    namespace::inside(&lab.host_namespace(ROUTER), || {
        network::in_this_namespace(async |handle| {
            let name = &attachment.host;
            network::veth_to(&handle, name, UPLINK, &host_file, MTU).await?;
            network::bring_up(&handle, name).await?;
            for address in attachment
                .router_addresses
                .iter()
                .chain(&asking_address(attachment, 1))
            {
                network::add_address(&handle, name, *address).await?;
                if is_node {
                    network::admit_source(&handle, name, address.trunc()).await?;
                }
            }
            if is_node
                && attachment
                    .router_addresses
                    .iter()
                    .any(|a| a.addr().is_ipv6())
            {
                network::admit_source(&handle, name, link_local()).await?;
                network::refuse_other_sources(&handle, name).await?;
            }
            Ok(())
        })
    })?;
    namespace::inside(&host_namespace, || {
        network::in_this_namespace(async |handle| {
            network::bring_up(&handle, UPLINK).await?;
            for address in attachment
                .host_addresses
                .iter()
                .chain(&asking_address(attachment, 2))
            {
                network::add_address(&handle, UPLINK, *address).await?;
            }
            for gateway in &attachment.router_addresses {
                network::add_route(&handle, everything(gateway), gateway.addr()).await?;
            }
            Ok(())
        })
    })
}

/// A link-local address to ask for neighbours with. The kernel makes one itself, but up to a second
/// after the link has its carrier, and until then it asks for nobody.
fn asking_address(attachment: &Attachment, end: u16) -> Option<IpNet> {
    let has_ipv6 = attachment
        .host_addresses
        .iter()
        .any(|address| address.addr().is_ipv6());
    let address = Ipv6Net::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, end), 64).ok()?;
    has_ipv6.then_some(IpNet::V6(address))
}

fn everything(like: &IpNet) -> IpNet {
    match like {
        IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

fn link_local() -> IpNet {
    // fe80::/10 (RFC 4291); the length is in range.
    IpNet::V6(Ipv6Net::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).unwrap_or_default())
}

/// The Node object of a node; what Heddle writes (`spec.podCIDRs`) is not in it.
pub fn node_object(record: &LabRecord, attachment: &Attachment) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": attachment.host,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
    });
    for (key, value) in record
        .node_labels
        .get(&attachment.host)
        .into_iter()
        .flatten()
    {
        labels[key] = json!(value);
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": attachment.host, "labels": labels },
        "spec": {},
    })
}

/// `status.addresses` of a node.
pub fn node_addresses(attachment: &Attachment) -> Value {
    let mut addresses: Vec<Value> = attachment
        .host_addresses
        .iter()
        .map(|address| json!({ "type": "InternalIP", "address": address.addr().to_string() }))
        .collect();
    addresses.push(json!({ "type": "Hostname", "address": attachment.host }));
    Value::Array(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_the_plan() {
        let node = Attachment::of_node(3, &[4, 6]);
        assert_eq!(node.host_addresses[0].to_string(), "172.31.3.2/24");
        assert_eq!(node.host_addresses[1].to_string(), "fd31:3::2/64");
        assert_eq!(node.router_addresses[1].to_string(), "fd31:3::1/64");
        let world = Attachment::of_world(&[4, 6]);
        assert_eq!(world.host_addresses[0].to_string(), "203.0.113.10/24");
        assert_eq!(world.host_addresses[1].to_string(), "2001:db8:113::10/64");
        assert_eq!(Attachment::of_node(1, &[6]).host_addresses.len(), 1);
    }
}
