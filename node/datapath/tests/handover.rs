//! Every interleaving of a writer's steps with a packet's, where two programs or two policy maps hand over.
//!
//! A model: the steps are those of `pod_hooks.rs`, `policy/mod.rs` and `policy/slots.rs`, each one system call
//! or one load. Each check is shown to find the fault of a wrong order.

/// One step of either side on the state they share.
type Step<S> = fn(&mut S);

/// Runs two sequences in every order that keeps each one's own; true when `holds` is true after all of them.
fn explore<S: Clone>(
    state: &S,
    left: &[Step<S>],
    right: &[Step<S>],
    holds: fn(&S) -> bool,
) -> bool {
    if left.is_empty() && right.is_empty() {
        return holds(state);
    }
    [(left, right, true), (right, left, false)]
        .into_iter()
        .filter(|(first, _, _)| !first.is_empty())
        .all(|(first, other, is_left)| {
            let mut next = state.clone();
            first[0](&mut next);
            let rest = &first[1..];
            if is_left {
                explore(&next, rest, other, holds)
            } else {
                explore(&next, other, rest, holds)
            }
        })
}

/// A link's hooks: tcx runs before clsact, and its verdict is final.
#[derive(Clone, Default)]
struct Hooks {
    tcx: bool,
    clsact: bool,
    decided_by_tcx: bool,
    programs_met: u32,
}

/// A packet: the kernel looks at the tcx hook, then, if nothing decided there, at clsact.
const PACKET: [Step<Hooks>; 2] = [
    |it| {
        it.decided_by_tcx = it.tcx;
        it.programs_met += u32::from(it.tcx);
    },
    |it| it.programs_met += u32::from(!it.decided_by_tcx && it.clsact),
];

/// To attach a tcx program waits until every packet that saw the hook without it is through (an RCU grace period in
/// the kernel), so a packet meets the attaching or the removal, not both: two explorations.
#[test]
fn a_packet_meets_one_program_while_a_link_moves_to_tcx() {
    let start = Hooks {
        clsact: true,
        ..Hooks::default()
    };
    let one = |it: &Hooks| it.programs_met == 1;
    assert!(explore(&start, &[|it| it.tcx = true], &PACKET, one));
    let settled = Hooks {
        tcx: true,
        ..start.clone()
    };
    assert!(explore(&settled, &[|it| it.clsact = false], &PACKET, one));
    // Without that wait a packet could meet neither.
    let at_once: [Step<Hooks>; 2] = [|it| it.tcx = true, |it| it.clsact = false];
    assert!(!explore(&start, &at_once, &PACKET, one));
    // The wrong order: a packet in between meets none.
    let wrong: [Step<Hooks>; 2] = [|it| it.clsact = false, |it| it.tcx = true];
    assert!(!explore(&start, &wrong, &PACKET, one));
}

/// A binding, what its slots hold, and a connection's stored verdict. Policy 1 allows, policy 2 denies.
#[derive(Clone)]
struct Bound {
    slot: usize,
    generation: u32,
    policies: [u32; 2],
    read: (usize, u32),
    verdict: (u32, u32),
}

const BOUND: Bound = Bound {
    slot: 0,
    generation: 1,
    policies: [1, 2],
    read: (0, 0),
    verdict: (0, 0),
};

/// A packet loads the binding's two halves (the order of a torn load is the worst one), then evaluates and
/// stores the verdict under the generation that it read.
const SLOT_FIRST: [Step<Bound>; 3] = [
    |it| it.read.0 = it.slot,
    |it| it.read.1 = it.generation,
    |it| it.verdict = (it.read.1, it.policies[it.read.0]),
];
const WHOLE: [Step<Bound>; 2] = [
    |it| it.read = (it.slot, it.generation),
    |it| it.verdict = (it.read.1, it.policies[it.read.0]),
];

/// A verdict that counts as the present policy's is the present policy's.
fn fresh(it: &Bound) -> bool {
    it.verdict.0 != it.generation || it.verdict.1 == it.policies[it.slot]
}

#[test]
fn a_stored_verdict_never_outlives_its_policy() {
    let change: [Step<Bound>; 2] = [|it| it.slot = 1, |it| it.generation += 1];
    assert!(explore(&BOUND, &change, &WHOLE, fresh));
    // That is why the binding is one word, and why its slot is written first.
    assert!(!explore(&BOUND, &change, &SLOT_FIRST, fresh));
    let wrong: [Step<Bound>; 2] = [|it| it.generation += 1, |it| it.slot = 1];
    assert!(!explore(&BOUND, &wrong, &WHOLE, fresh));
    // A run that ends between the two: the next start renews the generation.
    let ended: [Step<Bound>; 1] = [|it| it.slot = 1];
    assert!(!explore(&BOUND, &ended, &WHOLE, fresh));
    let restarted: [Step<Bound>; 2] = [|it| it.slot = 1, |it| it.generation += 1];
    assert!(explore(&BOUND, &restarted, &WHOLE, fresh));
}

/// A slot that is left, emptied and filled for another endpoint while a packet may still read it.
#[derive(Clone, Default)]
struct Slots {
    rebound: bool,
    running: bool,
    reads_old: bool,
    content: u32,
    waited: bool,
    seen: Option<u32>,
}

const READER: [Step<Slots>; 2] = [
    |it| {
        it.running = true;
        it.reads_old = !it.rebound;
    },
    |it| {
        if it.reads_old {
            it.seen = Some(it.content);
        }
        it.running = false;
    },
];

#[test]
fn a_slot_is_used_again_only_when_nobody_reads_it() {
    // The wait of an order in which the reader still runs does not end there: such orders do not exist.
    let holds = |it: &Slots| it.seen.is_none_or(|content| content == 0) || it.waited;
    let recycle: [Step<Slots>; 3] = [
        |it| it.rebound = true,
        |it| it.waited = it.running,
        |it| it.content = 9,
    ];
    assert!(explore(&Slots::default(), &recycle, &READER, holds));
    let without_wait: [Step<Slots>; 2] = [|it| it.rebound = true, |it| it.content = 9];
    assert!(!explore(&Slots::default(), &without_wait, &READER, holds));
    // Waiting before the binding changes is no wait.
    let wrong: [Step<Slots>; 3] = [
        |it| it.waited = it.running,
        |it| it.rebound = true,
        |it| it.content = 9,
    ];
    assert!(!explore(&Slots::default(), &wrong, &READER, holds));
}
