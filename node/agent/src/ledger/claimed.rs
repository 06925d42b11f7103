//! Which of several endpoints that claim one address has it.

use super::Ledger;
use crate::testing::Node;
use heddle_kube::store::{Event, Kind, Object, Version};
use heddle_model::NamespacedName;
use serde_json::json;
use std::net::IpAddr;

/// Another node's endpoint as a watch tells it.
fn endpoint(name: &str, day: u32, address: &str) -> Event {
    Event::Applied(Object {
        kind: Kind::CiliumEndpoint,
        name: NamespacedName::new("shop", name),
        version: Version::new("any"),
        value: json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
            "metadata": {
                "namespace": "shop", "name": name, "uid": format!("uid-of-{name}"),
                "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z"),
            },
            "status": {
                "identity": { "id": 40_000 }, "nodeName": "n2",
                "networking": { "addressing": [{ "ipv4": address }], "node": "192.168.0.2" },
            },
        }),
    })
}

fn owner(ledger: &Ledger, address: &str) -> Option<String> {
    let address: IpAddr = address.parse().ok()?;
    let (name, _) = ledger.peers.remote.at(address)?;
    Some(name.name.clone())
}

#[tokio::test]
async fn the_youngest_claim_counts_by_age_in_a_list_and_by_order_after_it() {
    let node = Node::start().await;
    let check = |ledger: &mut Ledger| {
        let (one, two) = ("10.244.2.9", "10.244.2.10");
        // A list tells them in any order: the younger object has the address.
        ledger.peers.remote.begin_list();
        for event in [endpoint("young", 2, one), endpoint("old", 1, one)] {
            ledger.observe(event);
        }
        assert_eq!(owner(ledger, one).as_deref(), Some("young"));
        // What is told later changed later: an older object may get the address of a younger one.
        ledger.peers.remote.end_list();
        ledger.observe(endpoint("old", 1, two));
        ledger.observe(endpoint("young", 2, one));
        ledger.observe(endpoint("old", 1, one));
        assert_eq!(owner(ledger, one).as_deref(), Some("old"));
        assert_eq!(owner(ledger, two), None);
        // To be told again without a change is no new claim.
        ledger.observe(endpoint("young", 2, one));
        assert_eq!(owner(ledger, one).as_deref(), Some("old"));
    };
    node.agent().on_ledger(check).await;
}
