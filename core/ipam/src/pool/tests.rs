//! Blocks of a pool: rules one by one, then any interleaving of nodes, restarts and foreign blocks.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn config(cidrs: &[&str], mask_v4: u8, mask_v6: u8) -> PoolConfig {
    PoolConfig {
        name: "p".into(),
        cidrs: nets(cidrs),
        mask_v4,
        mask_v6,
    }
}

fn pool(cidrs: &[&str], mask_v4: u8, mask_v6: u8) -> PoolAllocator {
    PoolAllocator::new(&config(cidrs, mask_v4, mask_v6)).unwrap()
}

fn node(number: u32) -> NodeKey {
    NodeKey::new(format!("uid-{number}"), format!("node-{number}"))
}

#[test]
fn each_node_gets_a_block_of_each_family() {
    let mut pool = PoolAllocator::new(&PoolConfig::default()).unwrap();
    assert_eq!(
        pool.allocate(&node(1)).unwrap(),
        nets(&["10.244.0.0/24", "fd10:244::/64"])
    );
    assert_eq!(
        pool.allocate(&node(2)).unwrap(),
        nets(&["10.244.1.0/24", "fd10:244:0:1::/64"])
    );
    assert_eq!(
        pool.allocate(&node(1)).unwrap(),
        nets(&["10.244.0.0/24", "fd10:244::/64"])
    );
    let stats: Vec<_> = pool.stats().collect();
    assert_eq!(
        stats[0].1,
        BlockStats {
            total: 256,
            used: 2,
            addresses_per_block: 253
        }
    );
    assert_eq!((stats[1].1.total, stats[1].1.used), (65_536, 2));
}

#[test]
fn several_ranges_are_used_in_order_and_exhaustion_is_clear() {
    let mut pool = pool(&["10.0.0.0/25", "10.9.0.0/26"], 26, 64);
    let blocks: Vec<_> = (0..3)
        .flat_map(|number| pool.allocate(&node(number)).unwrap())
        .collect();
    assert_eq!(
        blocks,
        nets(&["10.0.0.0/26", "10.0.0.64/26", "10.9.0.0/26"])
    );
    let full = pool.allocate(&node(3)).unwrap_err();
    assert_eq!(full.code(), "ipam/pool-exhausted");
    let text = full.to_string();
    for part in ["pool p", "IPv4", "node-3", "3 of 3"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!full.help().is_empty());
    // Space appears: the next attempt has it.
    pool.release("uid-1");
    assert_eq!(pool.allocate(&node(3)).unwrap(), nets(&["10.0.0.64/26"]));
}

#[test]
fn both_families_or_none() {
    let mut pool = pool(&["10.0.0.0/24", "fd00::/126"], 26, 126);
    pool.allocate(&node(1)).unwrap();
    assert!(pool.allocate(&node(2)).is_err());
    assert!(pool.blocks_of("uid-2").is_empty());
    assert_eq!(pool.stats().next().unwrap().1.used, 1);
}

#[test]
fn a_node_of_the_same_name_with_another_uid_is_another_node() {
    let mut pool = pool(&["10.0.0.0/24"], 26, 64);
    let first = pool.allocate(&NodeKey::new("old", "n")).unwrap();
    let second = pool.allocate(&NodeKey::new("new", "n")).unwrap();
    assert_ne!(first, second);
    pool.release("old");
    assert_eq!(pool.blocks_of("new"), second);
}

#[test]
fn released_blocks_come_last_but_a_name_that_comes_back_has_its_block() {
    let mut pool = pool(&["10.0.0.0/24"], 26, 64);
    let one = pool.allocate(&node(1)).unwrap();
    let two = pool.allocate(&node(2)).unwrap();
    assert_eq!(pool.release("uid-1"), one);
    pool.release("uid-2");
    assert_eq!(pool.release("uid-2"), []);
    assert_eq!(pool.allocate(&node(3)).unwrap(), nets(&["10.0.0.128/26"]));
    assert_eq!(
        pool.allocate(&NodeKey::new("again", "node-2")).unwrap(),
        two
    );
    assert_eq!(pool.allocate(&node(4)).unwrap(), nets(&["10.0.0.192/26"]));
    assert_eq!(pool.allocate(&node(5)).unwrap(), one);
    assert!(pool.allocate(&node(6)).is_err());
}

#[test]
fn restored_blocks_are_respected_even_foreign_ones() {
    let mut pool = pool(&["10.0.0.0/24"], 26, 64);
    pool.restore(&node(1), &nets(&["10.0.0.64/26"])).unwrap();
    pool.restore(&node(1), &nets(&["10.0.0.64/26"])).unwrap();
    // Of another size, and outside: the configuration changed while the node lived.
    pool.restore(&node(2), &nets(&["10.0.0.0/28"])).unwrap();
    pool.restore(&node(3), &nets(&["192.168.0.0/24"])).unwrap();
    assert_eq!(pool.allocate(&node(3)).unwrap(), nets(&["192.168.0.0/24"]));
    let clash = pool.restore(&node(4), &nets(&["10.0.0.0/20"])).unwrap_err();
    assert!(clash.to_string().contains("node-"), "{clash}");
    assert!(
        pool.restore(&node(5), &nets(&["192.168.0.128/25"]))
            .is_err()
    );
    assert_eq!(pool.allocate(&node(6)).unwrap(), nets(&["10.0.0.128/26"]));
    assert_eq!(pool.allocate(&node(7)).unwrap(), nets(&["10.0.0.192/26"]));
    assert!(pool.allocate(&node(8)).is_err());
    assert_eq!(pool.stats().next().unwrap().1.used, 4);
    // The small foreign block goes: its place is one whole block again.
    pool.release("uid-2");
    assert_eq!(pool.allocate(&node(8)).unwrap(), nets(&["10.0.0.0/26"]));
}

#[test]
fn tiny_masks_work_or_say_why_not() {
    let mut pool = pool(&["10.0.0.0/29", "fd00::/125"], 30, 126);
    assert_eq!(
        pool.allocate(&node(1)).unwrap(),
        nets(&["10.0.0.0/30", "fd00::/126"])
    );
    assert_eq!(
        pool.allocate(&node(2)).unwrap(),
        nets(&["10.0.0.4/30", "fd00::4/126"])
    );
    assert!(pool.allocate(&node(3)).is_err());
    for (cidr, mask_v4, mask_v6, field) in [
        ("10.0.0.0/24", 31, 64, "maskV4"),
        ("10.0.0.0/24", 32, 64, "maskV4"),
        ("10.0.0.0/24", 23, 64, "maskV4"),
        ("10.0.0.0/24", 33, 64, "maskV4"),
        ("fd00::/64", 24, 127, "maskV6"),
        ("fd00::/64", 24, 128, "maskV6"),
        ("fd00::/64", 24, 48, "maskV6"),
        ("fd00::/64", 24, 129, "maskV6"),
    ] {
        let refused = PoolAllocator::new(&config(&[cidr], mask_v4, mask_v6)).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(field) && text.contains("pool p"), "{text}");
    }
}

#[test]
fn bad_ranges_are_refused() {
    for (cidrs, part) in [
        (vec![], "empty"),
        (vec!["10.0.0.1/24"], "10.0.0.0/24"),
        (vec!["10.0.0.0/16", "10.0.9.0/24"], "overlap"),
        (vec!["fd00::/64", "fd00::/64"], "overlap"),
    ] {
        let refused = PoolAllocator::new(&config(&cidrs, 24, 64)).unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
    }
}

#[test]
fn a_huge_pool_costs_nothing() {
    let mut pool = pool(&["::/0"], 24, 126);
    assert_eq!(pool.allocate(&node(1)).unwrap(), nets(&["::/126"]));
    assert_eq!(pool.stats().next().unwrap().1.total, 1 << 126);
    let mut whole = self::pool(&["::/0"], 24, 0);
    assert_eq!(whole.allocate(&node(1)).unwrap(), nets(&["::/0"]));
    assert!(whole.allocate(&node(2)).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u32),
    Release(u32),
    /// The operator starts again and reads the nodes.
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_address_has_two_nodes_and_no_block_is_lost(
        shape in prop::sample::select(vec![
            (vec!["10.0.0.0/29", "fd00::/124"], 30, 126),
            (vec!["10.0.0.0/28", "10.1.0.0/29", "fd00::/122"], 30, 125),
            (vec!["10.0.0.0/22"], 24, 64),
        ]),
        foreign in prop::option::of(prop::sample::select(vec![
            "10.0.0.0/32", "10.0.0.0/29", "10.0.0.6/31", "10.0.0.8/30", "10.0.2.0/25", "10.0.0.0/8",
        ])),
        steps in prop::collection::vec(prop_oneof![
            4 => (0..9_u32).prop_map(Step::Allocate),
            3 => (0..10_u32).prop_map(Step::Release),
            1 => Just(Step::Restart),
        ], 1..80),
    ) {
        let (cidrs, mask_v4, mask_v6) = shape;
        let config = config(&cidrs, mask_v4, mask_v6);
        let mut pool = PoolAllocator::new(&config).unwrap();
        // The Node objects: what a restart reads.
        let mut nodes: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
        if let Some(foreign) = foreign {
            let blocks = nets(&[foreign]);
            pool.restore(&node(9), &blocks).unwrap();
            nodes.insert(9, blocks);
        }
        for step in steps {
            match step {
                Step::Allocate(number) => match pool.allocate(&node(number)) {
                    Ok(blocks) => {
                        if let Some(had) = nodes.insert(number, blocks.clone()) {
                            prop_assert_eq!(had, blocks);
                        }
                    }
                    Err(error) => {
                        // Only when a block of every place overlaps somebody's.
                        let PoolError::Exhausted { family, used, total, .. } = error;
                        prop_assert_eq!(used, total, "{}", family);
                        prop_assert!(!nodes.contains_key(&number));
                    }
                },
                Step::Release(number) => {
                    pool.release(&node(number).uid);
                    nodes.remove(&number);
                }
                Step::Restart => {
                    pool = PoolAllocator::new(&config).unwrap();
                    for (number, blocks) in &nodes {
                        pool.restore(&node(*number), blocks).unwrap();
                    }
                }
            }
            let all: Vec<_> = nodes.values().flatten().collect();
            for (position, block) in all.iter().enumerate() {
                for other in &all[..position] {
                    prop_assert!(!block.contains(*other) && !other.contains(*block));
                }
            }
        }
        // Everybody goes: every block can be given again.
        for number in 0..10 {
            pool.release(&node(number).uid);
        }
        let (_, stats) = pool.stats().next().unwrap();
        prop_assert_eq!(stats.used, 0);
        for number in 0..u32::try_from(stats.total).unwrap().min(16) {
            prop_assert!(pool.allocate(&node(100 + number)).is_ok());
        }
    }
}
