//! An attachment in the shape of each CNI version.

use crate::version::Version;
use heddle_rpc::cni::Attachment;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The result of ADD. What earlier plugins of the chain did (`previous`) comes first and keeps its
/// indices.
pub fn render(
    attachment: &Attachment,
    version: Version,
    dns: &Value,
    previous: Option<&Value>,
) -> Value {
    let earlier = |field: &str| -> Vec<Value> {
        previous
            .and_then(|previous| previous.get(field))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut interfaces = earlier("interfaces");
    let mut ips = earlier("ips");
    let mut routes = earlier("routes");

    let mut host = json!({ "name": attachment.host_interface, "mac": attachment.host_mac });
    let mut sandbox = json!({
        "name": attachment.interface,
        "mac": attachment.mac,
        "sandbox": attachment.netns,
    });
    if version >= Version::V1_1_0 {
        host["mtu"] = attachment.mtu.into();
        sandbox["mtu"] = attachment.mtu.into();
    }
    interfaces.push(host);
    let index = interfaces.len();
    interfaces.push(sandbox);

    for given in &attachment.addresses {
        let mut ip = Map::new();
        if version < Version::V1_0_0 {
            let family = if given.address.is_ipv4() { "4" } else { "6" };
            ip.insert("version".into(), family.into());
        }
        ip.insert("interface".into(), index.into());
        ip.insert(
            "address".into(),
            format!("{}/{}", given.address, given.prefix_length).into(),
        );
        if let Some(gateway) = given.gateway {
            ip.insert("gateway".into(), gateway.to_string().into());
            let everything = match given.address {
                IpAddr::V4(_) => "0.0.0.0/0",
                IpAddr::V6(_) => "::/0",
            };
            routes.push(json!({ "dst": everything, "gw": gateway.to_string() }));
        }
        ips.push(Value::Object(ip));
    }

    let dns = match previous.and_then(|previous| previous.get("dns")) {
        Some(before) if dns.as_object().is_none_or(Map::is_empty) => before,
        _ => dns,
    };
    json!({
        "cniVersion": version.name(),
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": dns,
    })
}

/// The addresses that a previous result gives an interface of the container; addresses without an
/// interface index count too, because no other interface claims them.
pub(crate) fn addresses_of(previous: &Value, interface: &str) -> Vec<IpAddr> {
    let interfaces = previous.get("interfaces").and_then(Value::as_array);
    let is_ours = |ip: &Value| match ip.get("interface").and_then(Value::as_u64) {
        None => true,
        Some(index) => interfaces
            .and_then(|interfaces| interfaces.get(usize::try_from(index).ok()?))
            .is_some_and(|named| {
                named.get("name").and_then(Value::as_str) == Some(interface)
                    && named
                        .get("sandbox")
                        .and_then(Value::as_str)
                        .is_some_and(|sandbox| !sandbox.is_empty())
            }),
    };
    previous
        .get("ips")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|ip| is_ours(ip))
        .filter_map(|ip| {
            let address = ip.get("address")?.as_str()?;
            address.split('/').next()?.parse().ok()
        })
        .collect()
}
