//! An agent that follows the order of `Engine::stage_cidrs` opens and closes nothing on the way: after every
//! single write each packet's verdict is the one before the change or the one after it.

use crate::{
    direction, draw,
    draw::{GROUPS, SERVICES, ends_of},
    forward,
    model::{Sheet, World},
    oracle::oracle,
    translate::{identity, party, policy, scope, set_group, set_service},
};
use heddle_model::Identity;
use heddle_policy::{CidrChange, CidrScope, CompiledPolicy, Engine, EntryVerdict};
use ipnet::IpNet;
use proptest::{prelude::*, strategy::ValueTree};
use std::collections::{BTreeMap, BTreeSet};

const QUESTIONS: &[(u8, u16)] = &[(6, 80), (6, 8080), (17, 80), (1, 8)];

/// What a kernel holds.
#[derive(Clone, Default)]
struct Kernel {
    policies: BTreeMap<Identity, CompiledPolicy>,
    /// What was compiled last: an agent puts it in force wherever another policy is.
    wished: BTreeMap<Identity, CompiledPolicy>,
    ipcache: BTreeMap<(CidrScope, IpNet), Identity>,
}

impl Kernel {
    fn cidr(&self, prefix: IpNet, scope: CidrScope) -> Identity {
        let mut at = Some(prefix);
        while let Some(candidate) = at {
            if let Some(identity) = self.ipcache.get(&(scope, candidate)) {
                return *identity;
            }
            at = candidate.supernet();
        }
        Identity::UNKNOWN
    }

    fn compile(&mut self, engine: &mut Engine, identity: Identity) {
        let wished = engine.compile(identity);
        self.policies.insert(identity, wished.clone());
        self.wished.insert(identity, wished);
    }

    /// Every packet's verdict.
    fn verdicts(&self, world: &World) -> Vec<bool> {
        let mut verdicts = Vec::new();
        for subject in world.subjects() {
            let compiled = &self.policies[&identity(&world.pods, subject)];
            for end in ends_of(world.pods.len(), subject) {
                let peer = party(world, &end);
                let cidr = self.cidr(peer.prefix.unwrap(), scope(&peer));
                for ingress in [true, false] {
                    for &(protocol, port) in QUESTIONS {
                        let row = compiled.lookup(
                            direction(ingress),
                            peer.identity,
                            cidr,
                            protocol,
                            port,
                        );
                        verdicts.push(row.is_some_and(|r| r.verdict == EntryVerdict::Allow));
                    }
                }
            }
        }
        verdicts
    }
}

/// What the oracle says of the same packets.
fn expected(world: &World) -> Vec<bool> {
    let mut verdicts = Vec::new();
    for subject in world.subjects() {
        for end in ends_of(world.pods.len(), subject) {
            for ingress in [true, false] {
                for &(protocol, port) in QUESTIONS {
                    verdicts.push(oracle(world, subject, &end, ingress, protocol, port).0);
                }
            }
        }
    }
    verdicts
}

fn numbers(world: &World) -> BTreeSet<Identity> {
    world
        .subjects()
        .map(|pod| identity(&world.pods, pod))
        .collect()
}

/// Brings changes into the kernel; `check` looks at it after every write.
fn bring(
    engine: &mut Engine,
    kernel: &mut Kernel,
    touched: BTreeSet<Identity>,
    check: &mut impl FnMut(&Kernel, &str) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let changes = engine.take_cidr_changes();
    let mut origins: BTreeMap<Identity, Identity> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.fresh) {
        let origin = origins.entry(change.after).or_insert(change.before);
        prop_assert_eq!(*origin, change.before, "a fresh number has one origin");
    }
    for (fresh, origin) in &origins {
        for compiled in kernel.policies.values_mut() {
            // Written out: every identity has entries of its own here.
            let mut entries: Vec<_> = compiled
                .expanded()
                .filter(|entry| entry.key.identity != *fresh)
                .collect();
            let mut copies: Vec<_> = entries
                .iter()
                .filter(|entry| origin.0 != 0 && entry.key.identity == *origin)
                .copied()
                .collect();
            copies
                .iter_mut()
                .for_each(|copy| copy.key.identity = *fresh);
            entries.extend(copies);
            entries.sort_unstable_by_key(|entry| entry.key);
            compiled.entries = entries;
            compiled.aliases.clear();
        }
        check(kernel, "rows for a fresh number")?;
    }
    write_ipcache(kernel, &changes, check)?;
    for identity in touched
        .into_iter()
        .filter(|it| kernel.policies.contains_key(it))
        .collect::<Vec<_>>()
    {
        kernel.compile(engine, identity);
        check(kernel, "a policy")?;
    }
    kernel.policies.clone_from(&kernel.wished);
    check(kernel, "what was wished")?;
    let touched = engine.settle_cidrs();
    let changes = engine.take_cidr_changes();
    prop_assert!(changes.iter().all(|change| !change.fresh));
    write_ipcache(kernel, &changes, check)?;
    for identity in touched
        .into_iter()
        .filter(|it| kernel.policies.contains_key(it))
        .collect::<Vec<_>>()
    {
        kernel.compile(engine, identity);
        check(kernel, "a settled policy")?;
    }
    // What is in the kernel is all there is to know.
    for assignment in engine.cidrs() {
        let known = kernel
            .ipcache
            .remove(&(assignment.scope, assignment.prefix));
        prop_assert_eq!(known, Some(assignment.identity));
    }
    prop_assert!(kernel.ipcache.is_empty(), "left over: {:?}", kernel.ipcache);
    kernel.ipcache = ipcache(engine);
    for (identity, compiled) in &kernel.policies {
        let now = engine.compile(*identity);
        prop_assert!(
            compiled.expanded().eq(now.expanded()),
            "somebody was forgotten"
        );
    }
    Ok(())
}

fn ipcache(engine: &Engine) -> BTreeMap<(CidrScope, IpNet), Identity> {
    let rows = engine.cidrs().into_iter();
    rows.map(|one| ((one.scope, one.prefix), one.identity))
        .collect()
}

fn write_ipcache(
    kernel: &mut Kernel,
    changes: &[CidrChange],
    check: &mut impl FnMut(&Kernel, &str) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    for change in changes {
        let key = (change.scope, change.prefix);
        if change.named {
            kernel.ipcache.insert(key, change.after);
        } else {
            kernel.ipcache.remove(&key);
        }
        check(kernel, "a prefix")?;
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Change {
    Policy(usize, Option<Sheet>),
    Group(usize),
    Service(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..5usize, prop::option::weighted(0.8, draw::sheet()))
            .prop_map(|(number, sheet)| Change::Policy(number, sheet)),
        2 => (0..GROUPS).prop_map(Change::Group),
        1 => (0..SERVICES).prop_map(Change::Service),
    ]
}

/// Makes a change in the world and in the engine.
fn make(
    world: &mut World,
    engine: &mut Engine,
    other: &World,
    change: &Change,
) -> BTreeSet<Identity> {
    match change {
        Change::Policy(number, sheet) => {
            let number = number % world.sheets.len().max(1);
            let mut touched = BTreeSet::new();
            if let Some(before) = world.sheets.get(number) {
                let id = policy(number, before).id;
                let same = sheet.as_ref().is_some_and(|s| policy(number, s).id == id);
                if !same {
                    touched.extend(engine.remove_policy(&id));
                    // Gone: about nobody.
                    world.sheets[number].lines.clear();
                    world.sheets[number].isolates = (false, false);
                }
            }
            if let Some(sheet) = sheet {
                touched.extend(engine.set_policy(policy(number, sheet)));
                match world.sheets.get_mut(number) {
                    Some(place) => *place = sheet.clone(),
                    None => world.sheets.push(sheet.clone()),
                }
            }
            touched
        }
        Change::Group(number) => {
            world.groups[*number] = other.groups[*number].clone();
            set_group(engine, world, *number)
        }
        Change::Service(number) => {
            world.services[*number] = other.services[*number].clone();
            set_service(engine, world, *number)
        }
    }
}

/// A kernel in which a world is in force, and the engine that brought it there.
fn in_force(world: &World) -> Result<(Engine, Kernel), TestCaseError> {
    let mut engine = Engine::new();
    engine.stage_cidrs();
    crate::fill(&mut engine, world);
    let mut kernel = Kernel::default();
    for number in numbers(world) {
        kernel.compile(&mut engine, number);
    }
    bring(&mut engine, &mut kernel, numbers(world), &mut |_, _| Ok(()))?;
    prop_assert_eq!(kernel.verdicts(world), expected(world));
    Ok((engine, kernel))
}

fn old_or_new<'a>(
    world: &'a World,
    before: Vec<bool>,
    after: Vec<bool>,
) -> impl FnMut(&Kernel, &str) -> Result<(), TestCaseError> + 'a {
    move |kernel, what| {
        let now = kernel.verdicts(world);
        for (at, verdict) in now.iter().enumerate() {
            prop_assert!(
                *verdict == before[at] || *verdict == after[at],
                "after {what}: packet {at} is {verdict}, neither the old nor the new verdict"
            );
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_write_shows_the_old_verdict_or_the_new(
        world in draw::world(),
        other in draw::world(),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let mut world = world;
        let (mut engine, mut kernel) = in_force(&world)?;
        for change in &changes {
            let before = expected(&world);
            let touched = make(&mut world, &mut engine, &other, change);
            let after = expected(&world);
            let mut check = old_or_new(&world, before, after.clone());
            bring(&mut engine, &mut kernel, touched, &mut check)?;
            prop_assert_eq!(kernel.verdicts(&world), after);
        }
    }

    #[test]
    fn many_changes_at_once_end_where_they_should(
        world in draw::world(),
        other in draw::world(),
        changes in prop::collection::vec(change(), 2..6),
    ) {
        let mut world = world;
        let (mut engine, mut kernel) = in_force(&world)?;
        let mut touched = BTreeSet::new();
        for change in &changes {
            touched.extend(make(&mut world, &mut engine, &other, change));
        }
        bring(&mut engine, &mut kernel, touched, &mut |_, _| Ok(()))?;
        prop_assert_eq!(kernel.verdicts(&world), expected(&world));
    }

    #[test]
    fn a_restart_keeps_the_numbers_and_opens_nothing(
        world in draw::world(),
        other in draw::world(),
        meanwhile in prop::option::of(change()),
    ) {
        let mut world = world;
        let (mut engine, mut kernel) = in_force(&world)?;
        let before = expected(&world);
        if let Some(change) = &meanwhile {
            // Nobody brings this into the kernel.
            make(&mut world, &mut engine, &other, change);
        }
        let mut engine = Engine::new();
        engine.stage_cidrs();
        for ((scope, prefix), number) in &kernel.ipcache {
            engine.restore_cidr(*prefix, *scope, *number);
        }
        crate::fill(&mut engine, &world);
        let after = expected(&world);
        let held = kernel.clone();
        let mut check = old_or_new(&world, before, after.clone());
        bring(&mut engine, &mut kernel, numbers(&world), &mut check)?;
        prop_assert_eq!(kernel.verdicts(&world), after);
        if meanwhile.is_none() {
            prop_assert_eq!(held.ipcache, kernel.ipcache, "nothing changed, so no number did");
        }
    }
}

/// `forward` is what a fresh agent does; without a kernel to mind it ends in the same numbers or fewer.
#[test]
fn staged_or_not_the_rows_are_as_many() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..50 {
        let world = draw::world().new_tree(&mut runner).unwrap().current();
        let (mut engine, _) = in_force(&world).unwrap();
        let mut direct = forward(&world);
        for number in numbers(&world) {
            let (staged, direct) = (engine.compile(number), direct.compile(number));
            assert_eq!(staged.entries.len(), direct.entries.len());
        }
        assert_eq!(engine.cidrs().len(), direct.cidrs().len());
    }
}
