//! Leases of a node: rules one by one, then any interleaving of everything that can happen.

use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const BOTH: &[Family] = &Family::ALL;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn owner(number: u32) -> Owner {
    Owner::new(format!("c{number}"), "eth0")
}

fn node(blocks: &[&str]) -> NodeAddresses {
    NodeAddresses::new(&nets(blocks), 30).unwrap()
}

#[test]
fn an_owner_has_one_lease_of_both_families() {
    let mut node = node(&["10.0.0.0/24", "fd00::/64"]);
    let lease = node.allocate(&owner(1), BOTH, 0).unwrap();
    assert_eq!(lease.ipv4, Some([10, 0, 0, 2].into()));
    assert_eq!(lease.ipv6, Some("fd00::2".parse().unwrap()));
    assert_eq!(node.allocate(&owner(1), BOTH, 5).unwrap(), lease);
    assert_ne!(node.allocate(&owner(2), BOTH, 5).unwrap().ipv4, lease.ipv4);
    // Another interface of the same container is another owner.
    let second = Owner::new("c1", "net1");
    assert_ne!(node.allocate(&second, BOTH, 5).unwrap().ipv4, lease.ipv4);
    assert_eq!(node.families().collect::<Vec<_>>(), BOTH);
}

#[test]
fn network_gateway_and_broadcast_are_never_given() {
    for block in ["10.0.0.0/30", "10.0.0.0/28", "fd00::/126", "fd00::/122"] {
        let mut node = NodeAddresses::new(&nets(&[block]), 0).unwrap();
        let family: Vec<_> = node.families().collect();
        let net: IpNet = block.parse().unwrap();
        let mut given = HashSet::new();
        // Round after round: freed addresses come back, the others never.
        for number in 0..200 {
            let lease = node
                .allocate(&owner(number), &family, number.into())
                .unwrap();
            given.extend(lease.addresses());
            node.release(&lease.owner, lease.generation, number.into());
        }
        let first_host = match net.network() {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) + 1).into()),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) + 1).into()),
        };
        assert!(
            !given.contains(&net.network()) && !given.contains(&first_host),
            "{block}"
        );
        assert!(
            net.broadcast().is_ipv6() || !given.contains(&net.broadcast()),
            "{block}"
        );
        assert_eq!(given.len() as u64, crate::usable_addresses(&net).unwrap());
    }
}

#[test]
fn blocks_without_an_address_are_refused() {
    for block in ["10.0.0.0/31", "10.0.0.0/32", "fd00::/127", "fd00::/128"] {
        let refused = NodeAddresses::new(&nets(&[block]), 30).unwrap_err();
        assert!(
            refused.to_string().contains("no usable address"),
            "{refused}"
        );
    }
}

#[test]
fn dual_stack_is_all_or_nothing() {
    let mut node = node(&["10.0.0.0/29", "fd00::/126"]);
    let (a, b) = (owner(1), owner(2));
    node.allocate(&a, BOTH, 0).unwrap();
    node.allocate(&b, BOTH, 0).unwrap();
    let before = node.snapshot(0);
    let full = node.allocate(&owner(3), BOTH, 0).unwrap_err();
    assert_eq!(full.code(), "ipam/pool-exhausted");
    let text = full.to_string();
    assert!(
        text.contains("fd00::/126") && text.contains("2 of 2"),
        "{text}"
    );
    // The IPv4 address that was there was not kept from the next one who needs only that.
    assert_eq!(node.stats(Family::V4, 0).used, 2);
    assert_eq!(node.snapshot(0).leases, before.leases);
    node.allocate(&owner(3), &[Family::V4], 0).unwrap();
}

#[test]
fn a_family_without_a_block_is_said() {
    let mut node = node(&["10.0.0.0/29"]);
    let refused = node.allocate(&owner(1), BOTH, 0).unwrap_err();
    assert_eq!(refused, AddressError::NoBlock { family: Family::V6 });
    assert_eq!(node.stats(Family::V4, 0).used, 0);
}

#[test]
fn freed_addresses_rest_and_come_back_oldest_first() {
    let mut node = node(&["10.0.0.0/29"]);
    let only4 = &[Family::V4];
    let leases: Vec<_> = (0..5)
        .map(|number| node.allocate(&owner(number), only4, 0).unwrap())
        .collect();
    assert!(matches!(
        node.allocate(&owner(9), only4, 0),
        Err(AddressError::Exhausted {
            used: 5,
            total: 5,
            ..
        })
    ));
    for (lease, at) in [(&leases[3], 10), (&leases[1], 12)] {
        let released = node.release(&lease.owner, lease.generation, at);
        assert_eq!(released, Released::Done(lease.clone()));
    }
    let resting = node.allocate(&owner(9), only4, 15).unwrap_err();
    let AddressError::Resting {
        seconds,
        resting: count,
        used,
        ..
    } = &resting
    else {
        panic!("{resting}")
    };
    assert_eq!((*seconds, *count, *used), (25, 2, 3));
    assert_eq!(
        node.stats(Family::V4, 15),
        Stats {
            total: 5,
            used: 3,
            resting: 2,
            free: 0
        }
    );
    assert_eq!(
        node.stats(Family::V4, 41),
        Stats {
            total: 5,
            used: 3,
            resting: 1,
            free: 1
        }
    );
    assert_eq!(
        node.allocate(&owner(9), only4, 40).unwrap().ipv4,
        leases[3].ipv4
    );
    assert!(node.allocate(&owner(10), only4, 41).is_err());
    assert_eq!(
        node.allocate(&owner(10), only4, 42).unwrap().ipv4,
        leases[1].ipv4
    );
}

#[test]
fn a_clock_that_jumps_back_prolongs_a_rest_by_the_cooldown_at_most() {
    let mut node = node(&["10.0.0.0/30"]);
    let lease = node.allocate(&owner(1), &[Family::V4], 1_000_000).unwrap();
    node.release(&lease.owner, lease.generation, 1_000_000);
    let error = node.allocate(&owner(2), &[Family::V4], 10).unwrap_err();
    assert!(
        matches!(error, AddressError::Resting { seconds: 30, .. }),
        "{error}"
    );
    // The rest is counted from the first look after the jump.
    assert!(node.allocate(&owner(2), &[Family::V4], 40).is_ok());
}

#[test]
fn a_late_release_does_not_free_a_live_address() {
    let mut node = node(&["10.0.0.0/29"]);
    let old = node.allocate(&owner(1), &[Family::V4], 0).unwrap();
    node.release(&old.owner, old.generation, 0);
    let live = node.allocate(&owner(1), &[Family::V4], 1).unwrap();
    let late = node.release(&old.owner, old.generation, 2);
    assert_eq!(
        late,
        Released::Newer {
            generation: live.generation
        }
    );
    assert_eq!(node.lease(&live.owner), Some(&live));
    assert_eq!(node.release(&owner(7), 1, 2), Released::NotHeld);
}

#[test]
fn restored_pods_keep_their_addresses() {
    let mut node = node(&["10.0.0.0/29"]);
    let lease = |number: u32, address: [u8; 4], generation| Lease {
        owner: owner(number),
        ipv4: Some(address.into()),
        ipv6: None,
        generation,
    };
    node.restore(lease(1, [10, 0, 0, 2], 7)).unwrap();
    node.restore(lease(1, [10, 0, 0, 2], 7)).unwrap();
    // A block that this node has no more: the pod runs on with what it has.
    node.restore(lease(2, [10, 9, 9, 9], 9)).unwrap();
    assert!(matches!(
        node.restore(lease(3, [10, 0, 0, 2], 1)),
        Err(AddressError::Taken { holder, .. }) if holder == owner(1)
    ));
    assert!(matches!(
        node.restore(lease(1, [10, 0, 0, 3], 8)),
        Err(AddressError::Differs { .. })
    ));
    let fresh = node.allocate(&owner(4), &[Family::V4], 0).unwrap();
    assert_eq!(fresh.ipv4, Some([10, 0, 0, 3].into()));
    assert!(fresh.generation > 9);
    assert!(matches!(node.release(&owner(2), 9, 0), Released::Done(_)));
    assert_eq!(
        node.stats(Family::V4, 0).resting,
        0,
        "not an address of this node's blocks"
    );
}

#[test]
fn several_blocks_are_used_and_change() {
    let mut node = node(&["10.0.0.0/30", "10.0.1.0/30"]);
    let a = node.allocate(&owner(1), &[Family::V4], 0).unwrap();
    let b = node.allocate(&owner(2), &[Family::V4], 0).unwrap();
    assert_eq!(
        (a.ipv4, b.ipv4),
        (Some([10, 0, 0, 2].into()), Some([10, 0, 1, 2].into()))
    );
    assert!(node.allocate(&owner(3), &[Family::V4], 0).is_err());
    node.set_blocks(&nets(&["10.0.1.0/30", "10.0.2.0/30"]))
        .unwrap();
    let c = node.allocate(&owner(3), &[Family::V4], 0).unwrap();
    assert_eq!(c.ipv4, Some([10, 0, 2, 2].into()));
    assert_eq!(node.lease(&a.owner), Some(&a));
    node.release(&a.owner, a.generation, 0);
    assert!(
        node.allocate(&owner(4), &[Family::V4], 100).is_err(),
        "10.0.0.0/30 is gone"
    );
}

/// What can happen to a node's addresses.
#[derive(Clone, Debug)]
enum Step {
    /// ADD; the agent may die before it has saved what it did.
    Add { owner: u32, dies: bool },
    /// DEL of what the owner has; likewise.
    Del { owner: u32, dies: bool },
    /// DEL that was meant for an earlier lease.
    LateDel { owner: u32 },
    /// The agent stops and starts.
    Restart,
    /// Time goes by.
    Wait { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owners = 0..12_u32;
    let step = prop_oneof![
        5 => (owners.clone(), prop::bool::weighted(0.15))
            .prop_map(|(owner, dies)| Step::Add { owner, dies }),
        4 => (owners.clone(), prop::bool::weighted(0.15))
            .prop_map(|(owner, dies)| Step::Del { owner, dies }),
        1 => owners.prop_map(|owner| Step::LateDel { owner }),
        1 => Just(Step::Restart),
        2 => (0..40_u64).prop_map(|seconds| Step::Wait { seconds }),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_given_twice_or_lost(
        blocks in prop::sample::select(vec![
            vec!["10.0.0.0/30", "fd00::/126"],
            vec!["10.0.0.0/29", "fd00::/64"],
            vec!["10.0.0.0/30", "10.0.4.0/29", "fd00::/125"],
        ]),
        steps in steps(),
    ) {
        let blocks = nets(&blocks);
        let cooldown = 30;
        let mut node = NodeAddresses::new(&blocks, cooldown).unwrap();
        let mut saved = node.snapshot(0);
        let mut now = 1_000;
        // What the runtime knows: leases whose ADD was answered and whose DEL was not.
        let mut answered: HashMap<u32, Lease> = HashMap::new();
        // Generations that each owner once had.
        let mut earlier: HashMap<u32, u64> = HashMap::new();
        // When an address was freed last, by somebody who had it in use.
        let mut freed_at: HashMap<IpAddr, u64> = HashMap::new();
        let total: HashMap<Family, u64> = Family::ALL
            .into_iter()
            .map(|family| (family, node.stats(family, now).total))
            .collect();
        for step in steps {
            let mut restart = false;
            match step {
                Step::Add { owner: number, dies } => {
                    let outcome = node.allocate(&owner(number), BOTH, now);
                    match outcome {
                        Ok(lease) if dies => {
                            let _unanswered = lease;
                            restart = true;
                        }
                        Ok(lease) => {
                            saved = node.snapshot(now);
                            for address in lease.addresses() {
                                let others = answered
                                    .iter()
                                    .filter(|(other, _)| **other != number)
                                    .flat_map(|(_, lease)| lease.addresses());
                                prop_assert!(others.into_iter().all(|other| other != address));
                                if answered.get(&number) != Some(&lease)
                                    && let Some(freed) = freed_at.get(&address)
                                {
                                    prop_assert!(now >= freed + cooldown, "{address} had no rest");
                                }
                            }
                            earlier.insert(number, lease.generation);
                            answered.insert(number, lease);
                        }
                        Err(error) => prop_assert_eq!(error.code(), "ipam/pool-exhausted"),
                    }
                }
                Step::Del { owner: number, dies } => {
                    let generation = node.lease(&owner(number)).map(|lease| lease.generation);
                    if let Some(generation) = generation {
                        node.release(&owner(number), generation, now);
                        if dies {
                            // The runtime got no answer: its lease is as it was, and it asks again.
                            restart = true;
                        } else {
                            saved = node.snapshot(now);
                            if let Some(lease) = answered.remove(&number) {
                                freed_at.extend(lease.addresses().map(|address| (address, now)));
                            }
                        }
                    }
                }
                Step::LateDel { owner: number } => {
                    let newest = earlier.get(&number).copied().unwrap_or(1);
                    node.release(&owner(number), newest.saturating_sub(1), now);
                }
                Step::Restart => restart = true,
                Step::Wait { seconds } => now += seconds,
            }
            if restart {
                let (again, refused) =
                    NodeAddresses::from_snapshot(&blocks, cooldown, saved.clone()).unwrap();
                prop_assert!(refused.is_empty(), "{refused:?}");
                node = again;
            }
            for (number, lease) in &answered {
                prop_assert_eq!(node.lease(&owner(*number)), Some(lease));
            }
            for family in Family::ALL {
                let stats = node.stats(family, now);
                prop_assert_eq!(stats.used + stats.resting + stats.free, total[&family]);
                prop_assert_eq!(stats.used, node.leases().count() as u64);
            }
        }
        // Everybody goes: after the rest, everything is there again.
        let leases: Vec<_> = node.leases().cloned().collect();
        for lease in leases {
            node.release(&lease.owner, lease.generation, now);
        }
        for family in Family::ALL {
            let stats = node.stats(family, now + cooldown);
            prop_assert_eq!((stats.free, stats.used), (total[&family], 0));
        }
    }
}
