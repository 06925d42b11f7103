//! The table of cases: what must happen, and what did.

use heddle_abi::DropReason;
use std::collections::{BTreeMap, BTreeSet};

/// What must become of a hostile packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It reaches the pod, and nothing is dropped.
    Delivered,
    /// It goes nowhere, and exactly this counter counts it, once for each frame.
    Dropped(DropReason),
    /// It goes nowhere; the kernel may drop it without a counter of ours.
    Nowhere,
}

/// What became of it.
#[derive(Default, Debug)]
pub struct Outcome {
    /// It was seen in the pod.
    pub delivered: bool,
    /// It left the node by its uplink.
    pub left: bool,
    /// Drops by reason.
    pub drops: BTreeMap<u8, u64>,
}

impl Outcome {
    fn is(&self, expect: Expect) -> bool {
        match expect {
            Expect::Delivered => self.delivered && !self.left && self.drops.is_empty(),
            Expect::Dropped(reason) => {
                !self.delivered
                    && !self.left
                    && self.drops.len() == 1
                    && self.drops.contains_key(&(reason as u8))
            }
            Expect::Nowhere => !self.delivered && !self.left,
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
