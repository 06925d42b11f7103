//! The table of cases: what must happen, and what did.

use heddle_abi::DropReason;
use std::collections::{BTreeMap, BTreeSet};

/// What must become of a hostile packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It reaches the pod, and nothing is dropped.
    Delivered,
    /// It goes nowhere, and this counter alone counts it, at most once for each frame.
    Dropped(DropReason),
    /// It goes nowhere; the kernel may drop it without a counter of ours.
    Nowhere,
}

/// Where a packet was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Victim,
    Neighbour,
    /// A listener of the node's heard it.
    Node,
    /// It left the node by its uplink.
    Outside,
}

/// What became of a packet.
#[derive(Default, Debug)]
pub struct Outcome {
    pub frames: u64,
    pub places: Vec<Place>,
    /// Drops by reason.
    pub drops: BTreeMap<u8, u64>,
}

impl Outcome {
    pub fn is(&self, expect: Expect) -> bool {
        let Self {
            frames,
            places,
            drops,
        } = self;
        match expect {
            Expect::Delivered => *places == [Place::Victim] && drops.is_empty(),
            Expect::Dropped(reason) => {
                let count = drops.get(&(reason as u8)).copied().unwrap_or(0);
                places.is_empty() && drops.len() == 1 && (1..=*frames).contains(&count)
            }
            Expect::Nowhere => places.is_empty(),
        }
    }
}

/// Cases with their classes; whoever holds it calls [`Table::finish`].
#[derive(Default)]
pub struct Table {
    classes: BTreeSet<String>,
    cases: usize,
    wrong: Vec<String>,
}

impl Table {
    pub fn check(&mut self, class: &str, name: &str, right: bool, found: &str) {
        self.classes.insert(class.to_owned());
        self.cases += 1;
        let mark = if right { "ok" } else { "WRONG" };
        let line = format!("{class} | {name} | {found} | {mark}");
        println!("{line}");
        if !right {
            self.wrong.push(line);
        }
    }

    pub fn record(&mut self, class: &str, name: &str, expect: Expect, outcome: &Outcome) {
        let found = format!("must be {expect:?}: {outcome:?}");
        self.check(class, name, outcome.is(expect), &found);
    }

    pub fn finish(self) {
        let Self {
            classes,
            cases,
            wrong,
        } = self;
        println!("wire: {cases} cases in {} classes", classes.len());
        assert!(
            wrong.is_empty(),
            "{} of {cases} cases are wrong:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}
