//! The compiled rows, the decision on paper and an oracle written another way say the same, for random
//! policies of all tiers, identities, CIDRs, groups, services, ports and protocols, in whatever order things
//! arrive.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod draw;
mod live;
mod model;
mod oracle;
mod translate;

use draw::{GROUPS, QUESTIONS, SERVICES, ends_of};
use heddle_model::Identity;
use heddle_policy::{Because, CompiledPolicy, Direction, Engine, EntryVerdict, Traffic};
use model::{Pod, World};
use oracle::oracle;
use proptest::{prelude::*, strategy::ValueTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};
use translate::{
    address, cidr_of, identity, labels, mode, net, party, policy, set_addresses, set_group,
    set_pods, set_service, subject_party,
};

/// Packets whose answers were compared.
static PACKETS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn fill(engine: &mut Engine, world: &World) {
    set_pods(engine, world);
    set_addresses(engine, world);
    (0..GROUPS).for_each(|number| drop(set_group(engine, world, number)));
    (0..SERVICES).for_each(|number| drop(set_service(engine, world, number)));
    for (number, sheet) in world.sheets.iter().enumerate() {
        engine.set_policy(policy(number, sheet));
    }
    engine.set_mode(mode(world.mode));
}

pub(crate) fn forward(world: &World) -> Engine {
    let mut engine = Engine::new();
    fill(&mut engine, world);
    engine
}

fn backward(world: &World) -> Engine {
    let mut engine = Engine::new();
    engine.set_mode(mode(world.mode));
    for (number, sheet) in world.sheets.iter().enumerate().rev() {
        engine.set_policy(policy(number, sheet));
    }
    (0..SERVICES).for_each(|number| drop(set_service(&mut engine, world, number)));
    (0..GROUPS).for_each(|number| drop(set_group(&mut engine, world, number)));
    set_addresses(&mut engine, world);
    set_pods(&mut engine, world);
    engine
}

/// All at once, after other things were there and went.
fn at_once(world: &World, other: &World) -> Engine {
    let mut engine = forward(other);
    for id in engine.policy_ids() {
        engine.remove_policy(&id);
    }
    for number in 0..other.pods.len() {
        engine.remove_identity(identity(&other.pods, number));
        engine.remove_address(address(other.pods[number].address, false).into());
    }
    engine.set_mode(mode(world.mode));
    let policies: Vec<_> = world.sheets.iter().enumerate().collect();
    engine.set_policies(policies.into_iter().map(|(n, sheet)| policy(n, sheet)));
    set_pods(&mut engine, world);
    set_addresses(&mut engine, world);
    (0..GROUPS).for_each(|number| drop(set_group(&mut engine, world, number)));
    (0..SERVICES).for_each(|number| drop(set_service(&mut engine, world, number)));
    engine
}

pub(crate) const fn direction(ingress: bool) -> Direction {
    if ingress {
        Direction::Ingress
    } else {
        Direction::Egress
    }
}

fn agree(world: &World, engine: &mut Engine) -> Result<(), TestCaseError> {
    let mut asked: BTreeMap<Identity, CompiledPolicy> = BTreeMap::new();
    for subject in world.subjects() {
        let number = identity(&world.pods, subject);
        let compiled = asked
            .entry(number)
            .or_insert_with(|| engine.compile(number))
            .clone();
        let sorted = compiled
            .entries
            .windows(2)
            .all(|pair| pair[0].key < pair[1].key);
        prop_assert!(sorted, "keys are sorted and unique");
        let me = subject_party(world, subject);
        for end in ends_of(world.pods.len(), subject) {
            let peer = party(world, &end);
            let cidr = cidr_of(engine, &peer);
            for ingress in [true, false] {
                let direction = direction(ingress);
                for &(protocol, port) in QUESTIONS {
                    PACKETS.fetch_add(1, Ordering::Relaxed);
                    let traffic = Traffic { protocol, port };
                    let about = format!("{subject} {direction:?} {end:?} {protocol}/{port}");
                    let (allowed, because) = oracle(world, subject, &end, ingress, protocol, port);
                    let paper = engine.decide_direction(&me, &peer, direction, traffic);
                    prop_assert_eq!(paper.because, because, "paper: {}", &about);
                    prop_assert_eq!(paper.verdict == EntryVerdict::Allow, allowed);
                    let verdict = engine.verdict(&me, &peer, direction, traffic);
                    prop_assert_eq!(verdict, paper.verdict);
                    let outlook = engine.outlook(&me, direction);
                    prop_assert_eq!(outlook.towards(&peer).verdict(traffic), verdict);
                    let row = compiled.lookup(direction, peer.identity, cidr, protocol, port);
                    let row_allows = row.is_some_and(|row| row.verdict == EntryVerdict::Allow);
                    prop_assert_eq!(row_allows, allowed, "rows: {} {:?}", &about, row);
                    // A row names rules that decided, and only such.
                    let named = row.map_or(Vec::new(), |row| engine.rules_of(row.cookie));
                    prop_assert!(
                        named.iter().all(|rule| paper.rules.contains(rule)),
                        "{}: {:?} names {:?}, not {:?}",
                        &about,
                        row,
                        &named,
                        &paper.rules
                    );
                    let by_rule = matches!(because, Because::Rule | Because::ExplicitDeny);
                    prop_assert_eq!(by_rule, !named.is_empty(), "{} {:?}", &about, row);
                    prop_assert_eq!(
                        because == Because::NotEnforced,
                        row.is_some_and(|row| row.cookie == 0),
                        "{}",
                        &about
                    );
                    if because == Because::DefaultDeny {
                        prop_assert!(paper.enforced);
                        let always = world.mode == model::Mode::Always;
                        prop_assert!(always || !paper.isolated_by.is_empty());
                    }
                }
            }
        }
    }
    Ok(())
}

fn compile_all(world: &World, engine: &mut Engine) -> BTreeMap<Identity, CompiledPolicy> {
    world
        .subjects()
        .map(|pod| identity(&world.pods, pod))
        .map(|number| (number, engine.compile(number)))
        .collect()
}

fn stranger() -> Pod {
    Pod {
        namespace: "a",
        app: "x",
        web: Some((6, 8080)),
        address: 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn rows_paper_and_oracle_agree(world in draw::world(), other in draw::world()) {
        agree(&world, &mut forward(&world))?;
        agree(&world, &mut backward(&world))?;
        agree(&world, &mut at_once(&world, &other))?;
    }

    #[test]
    fn a_change_touches_what_it_says_and_leaves_no_trace(
        world in draw::world(),
        late in draw::sheet(),
        other in draw::world(),
        pick in any::<prop::sample::Index>(),
    ) {
        let mut engine = forward(&world);
        let mut before = compile_all(&world, &mut engine);
        let mut check = |engine: &mut Engine, touched: BTreeSet<Identity>, what: &str| {
            let after = compile_all(&world, engine);
            for (identity, compiled) in &after {
                if !touched.contains(identity) && before.get(identity) != Some(compiled) {
                    return Err(TestCaseError::fail(format!("{what} changed {identity} unsaid")));
                }
            }
            before = after;
            Ok(())
        };
        let number = pick.index(world.sheets.len() + 1);
        let touched = engine.set_policy(policy(number, &late));
        check(&mut engine, touched, "adding or replacing a policy")?;
        let touched = engine.remove_policy(&policy(number, &late).id);
        check(&mut engine, touched, "removing a policy")?;
        if let Some(sheet) = world.sheets.get(number) {
            let touched = engine.set_policy(policy(number, sheet));
            check(&mut engine, touched, "setting a policy again")?;
        }
        let changed = World { groups: other.groups, services: other.services, ..world.clone() };
        for number in 0..GROUPS {
            let touched = set_group(&mut engine, &changed, number);
            check(&mut engine, touched, "another list of CIDRs")?;
            let touched = set_group(&mut engine, &world, number);
            check(&mut engine, touched, "the list of CIDRs again")?;
        }
        for number in 0..SERVICES {
            let touched = set_service(&mut engine, &changed, number);
            check(&mut engine, touched, "another service")?;
            let touched = set_service(&mut engine, &world, number);
            check(&mut engine, touched, "the service again")?;
        }
        for wanted in [other.mode, world.mode] {
            let touched = engine.set_mode(mode(wanted));
            check(&mut engine, touched, "a mode")?;
        }
        let elsewhere = address(0x0a00_0045, false).into();
        let touched = engine.set_address(elsewhere, Identity(900));
        check(&mut engine, touched, "an address")?;
        let touched = engine.set_identity(Identity(900), labels(&stranger()));
        check(&mut engine, touched, "a new identity")?;
        let touched = engine.set_identity(Identity(900), labels(&Pod { web: None, app: "y", ..stranger() }));
        check(&mut engine, touched, "other labels")?;
        let touched = engine.remove_identity(Identity(900));
        check(&mut engine, touched, "an identity that goes")?;
        let touched = engine.remove_address(elsewhere);
        check(&mut engine, touched, "an address that goes")?;
        // Back where it started, up to the numbers of CIDRs.
        let mut fresh = forward(&world);
        agree(&world, &mut engine)?;
        for (identity, now) in compile_all(&world, &mut engine) {
            let then = fresh.compile(identity);
            prop_assert_eq!(now.entries.len(), then.entries.len());
            prop_assert_eq!(now.ingress_enforced, then.ingress_enforced);
        }
        for id in engine.policy_ids() {
            engine.remove_policy(&id);
        }
        prop_assert!(engine.cidrs().is_empty());
    }

    #[test]
    fn prefixes_share_a_number_exactly_when_no_rule_tells_them_apart(world in draw::world()) {
        let engine = forward(&world);
        let cidrs = engine.cidrs();
        for (at, one) in cidrs.iter().enumerate() {
            for other in &cidrs[..at] {
                if one.scope != other.scope
                    || one.prefix.addr().is_ipv4() != other.prefix.addr().is_ipv4()
                {
                    prop_assert_ne!(one.identity, other.identity);
                }
            }
        }
        // Every prefix that a rule names has a number of its own or shares one; none is missing.
        for sheet in &world.sheets {
            let heard = |line: &&model::Line| {
                sheet.level != model::Level::Normal || line.says != model::Says::Pass
            };
            let lines = sheet.lines.iter().filter(heard);
            for who in lines.filter_map(|line| line.who.as_ref()).flatten() {
                if let model::Who::Addresses { block, holes, .. } = who {
                    for prefix in std::iter::once(block).chain(holes).map(net) {
                        prop_assert!(cidrs.iter().any(|one| one.prefix == prefix));
                    }
                }
            }
        }
    }
}

#[test]
fn hundreds_of_thousands_of_packets_are_compared() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut compared = 0;
    while compared < 200_000 {
        let world = draw::world().new_tree(&mut runner).unwrap().current();
        let before = PACKETS.load(Ordering::Relaxed);
        agree(&world, &mut forward(&world)).unwrap();
        compared += PACKETS.load(Ordering::Relaxed) - before;
    }
    println!("{compared} packets compared here alone");
}
