//! Every interleaving of a writer's steps with a packet's, where two programs or two policy maps hand over.
//!
//! The writer's steps are the lists that the datapath itself goes through, each one system call; what a step does to
//! the kernel, and a packet's loads, are a model. Each check is shown to find the fault of a wrong order.

use crate::{
    pod_hooks::{SETTLE_STEPS, SettleStep},
    policy::{BINDING_STEPS, BindingStep, REUSE_STEPS, ReuseStep, renewed},
};
use heddle_abi::PolicyBinding;

/// One step of either side on the state they share.
type Step<S> = Box<dyn Fn(&mut S)>;

/// The steps of a list, as a model takes them.
fn modelled<S: 'static, T: Copy + 'static>(list: &[T], model: fn(T, &mut S)) -> Vec<Step<S>> {
    list.iter()
        .map(|step| -> Step<S> {
            let step = *step;
            Box::new(move |it| model(step, it))
        })
        .collect()
}

/// Steps that are nothing but a model.
fn steps<S: 'static, const N: usize>(list: [fn(&mut S); N]) -> Vec<Step<S>> {
    list.into_iter()
        .map(|step| Box::new(step) as Step<S>)
        .collect()
}

fn reversed<T: Copy>(list: &[T]) -> Vec<T> {
    list.iter().rev().copied().collect()
}

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
    /// A packet is between the two hooks.
    is_on_its_way: bool,
    /// To attach did not return while the packet was on its way: an order that there is not.
    cannot_be: bool,
}

/// A packet: the kernel looks at the tcx hook, then, if nothing decided there, at clsact.
const PACKET: [fn(&mut Hooks); 2] = [
    |it| {
        it.is_on_its_way = true;
        it.decided_by_tcx = it.tcx;
        it.programs_met += u32::from(it.tcx);
    },
    |it| {
        it.is_on_its_way = false;
        it.programs_met += u32::from(!it.decided_by_tcx && it.clsact);
    },
];

/// A step of the datapath in two: what it does to the hook, and the wait for packets on their way (an RCU grace
/// period in the kernel) with which to attach by tcx returns.
fn settling(list: &[SettleStep], waits: bool) -> Vec<Step<Hooks>> {
    let mut steps: Vec<Step<Hooks>> = Vec::new();
    for step in list {
        match step {
            SettleStep::AttachTcx => {
                steps.push(Box::new(|it| it.tcx = true));
                if waits {
                    steps.push(Box::new(|it| it.cannot_be |= it.is_on_its_way));
                }
            }
            SettleStep::RemoveClsact => steps.push(Box::new(|it| it.clsact = false)),
        }
    }
    steps
}

#[test]
fn a_packet_meets_one_program_while_a_link_moves_to_tcx() {
    let start = Hooks {
        clsact: true,
        ..Hooks::default()
    };
    let packet = steps(PACKET);
    let one = |it: &Hooks| it.cannot_be || it.programs_met == 1;
    assert!(explore(
        &start,
        &settling(&SETTLE_STEPS, true),
        &packet,
        one
    ));
    // Without that wait a packet could meet neither.
    let at_once = settling(&SETTLE_STEPS, false);
    assert!(!explore(&start, &at_once, &packet, one));
    // The wrong order: a packet in between meets none.
    let wrong = settling(&reversed(&SETTLE_STEPS), true);
    assert!(!explore(&start, &wrong, &packet, one));
}

/// A binding, what its slots hold, and a connection's stored verdict. Policy 1 allows, policy 2 denies.
#[derive(Clone)]
struct Bound {
    binding: PolicyBinding,
    policies: [u32; 2],
    read: (u32, u32),
    verdict: (u32, u32),
}

fn bound() -> Bound {
    Bound {
        binding: PolicyBinding::new(0, 1),
        policies: [1, 2],
        read: (0, 0),
        verdict: (0, 0),
    }
}

/// A packet loads the binding's two halves (the order of a torn load is the worst one), then evaluates and
/// stores the verdict under the generation that it read.
const SLOT_FIRST: [fn(&mut Bound); 3] = [
    |it| it.read.0 = it.binding.slot(),
    |it| it.read.1 = it.binding.generation(),
    |it| it.verdict = (it.read.1, it.policies[it.read.0 as usize]),
];
const WHOLE: [fn(&mut Bound); 2] = [
    |it| it.read = (it.binding.slot(), it.binding.generation()),
    |it| it.verdict = (it.read.1, it.policies[it.read.0 as usize]),
];

/// A verdict that counts as the present policy's is the present policy's.
fn fresh(it: &Bound) -> bool {
    it.verdict.0 != it.binding.generation()
        || it.verdict.1 == it.policies[it.binding.slot() as usize]
}

/// Writes of the binding, by which it gets slot 1.
fn change(list: &[BindingStep]) -> Vec<Step<Bound>> {
    modelled(list, |step, it: &mut Bound| {
        it.binding = step.after(it.binding, 1, false);
    })
}

#[test]
fn a_stored_verdict_never_outlives_its_policy() {
    let start = bound();
    let (whole, torn) = (steps(WHOLE), steps(SLOT_FIRST));
    assert!(explore(&start, &change(&BINDING_STEPS), &whole, fresh));
    // That is why the binding is one word, and why its slot is written first.
    assert!(!explore(&start, &change(&BINDING_STEPS), &torn, fresh));
    let wrong = change(&reversed(&BINDING_STEPS));
    assert!(!explore(&start, &wrong, &whole, fresh));
    // A run that ends between the two: the next start renews the generation.
    for written in 0..BINDING_STEPS.len() {
        let mut ended = change(&BINDING_STEPS[..written]);
        assert_eq!(explore(&start, &ended, &whole, fresh), written == 0);
        ended.push(Box::new(|it| it.binding = renewed(it.binding)));
        assert!(explore(&start, &ended, &whole, fresh));
    }
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

const READER: [fn(&mut Slots); 2] = [
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

/// A map becomes another endpoint's: its endpoint is bound to another one before all that, or after the first step.
fn reuse(list: &[ReuseStep], bound_late: bool) -> Vec<Step<Slots>> {
    let mut all = modelled(list, |step, it: &mut Slots| match step {
        ReuseStep::Wait => it.waited |= it.running,
        ReuseStep::Empty => it.content = 9,
    });
    let at = usize::from(bound_late);
    all.insert(at, Box::new(|it| it.rebound = true));
    all
}

#[test]
fn a_slot_is_used_again_only_when_nobody_reads_it() {
    // The wait of an order in which the reader still runs does not end there: such orders do not exist.
    let holds = |it: &Slots| it.seen.is_none_or(|content| content == 0) || it.waited;
    let (start, reader) = (Slots::default(), steps(READER));
    assert!(explore(&start, &reuse(&REUSE_STEPS, false), &reader, holds));
    let without_wait: Vec<_> = REUSE_STEPS
        .into_iter()
        .filter(|step| *step != ReuseStep::Wait)
        .collect();
    assert!(!explore(
        &start,
        &reuse(&without_wait, false),
        &reader,
        holds
    ));
    let wrong = reuse(&reversed(&REUSE_STEPS), false);
    assert!(!explore(&start, &wrong, &reader, holds));
    // Waiting before the binding changes is no wait.
    assert!(!explore(&start, &reuse(&REUSE_STEPS, true), &reader, holds));
}
