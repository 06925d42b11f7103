//! Changes in an order that suits a running datapath: classes part first, and join once rows say the same of
//! them.

use super::RegionNo;
use super::{
    CidrChange, CidrScope,
    classes::{Cidrs, ClassKey, ClassNo, at},
};
use crate::facts::family;
use heddle_model::Identity;
use ipnet::IpNet;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

impl Cidrs {
    /// From now on changes of rules only split classes, until they are settled, and changes are reported.
    pub(crate) fn stage(&mut self) {
        self.staged = true;
    }

    /// Gives a prefix the number it had before a restart.
    pub(crate) fn restore(&mut self, prefix: IpNet, scope: CidrScope, identity: Identity) {
        let prefix = prefix.trunc();
        let known = self.live.get(&identity).copied();
        if !self.staged {
            if self.hinted.contains(&identity) || self.numbers.take(identity) {
                self.hinted.insert(identity);
                self.hints.insert((scope, prefix), identity);
            }
            return;
        }
        if self.points[at(scope)].get(prefix).is_some() {
            return;
        }
        let key = ClassKey::new(scope, family(prefix), Arc::new([]), None);
        let number = match known {
            Some(number) if self.class(number).is_some_and(|c| c.key == key) => number,
            Some(_) => return,
            None if self.numbers.take(identity) => {
                self.create(key, identity, identity, false, &mut BTreeSet::new())
            }
            None => return,
        };
        if let Some(class) = self.classes[number as usize].as_mut() {
            class.members += 1;
        }
        let point = self.points[at(scope)].entry(prefix);
        point.held = true;
        point.class = Some(number);
        self.reported[at(scope)].insert(prefix, identity);
        self.restoring = true;
    }

    /// What was reported last of a prefix's addresses.
    pub(super) fn told_covering(&self, scope: CidrScope, prefix: IpNet) -> Identity {
        let reported = &self.reported[at(scope)];
        let mut at = Some(prefix);
        while let Some(candidate) = at {
            if let Some(identity) = reported.get(&candidate) {
                return *identity;
            }
            at = candidate.supernet();
        }
        Identity::UNKNOWN
    }

    /// The prefixes whose addresses bear another number than when this was asked last, in the order to write
    /// them in.
    pub(crate) fn take_changes(&mut self) -> Vec<CidrChange> {
        let mut changes = Vec::new();
        let moved = std::mem::take(&mut self.moved);
        for (scope, prefix) in &moved {
            let own = self.points[at(*scope)]
                .get(*prefix)
                .and_then(|point| self.class(point.class?));
            let named = own.is_some();
            let (after, fresh) = match own {
                Some(class) => (class.number, class.fresh),
                None => (self.covering(*prefix, *scope), false),
            };
            let was_named = self.reported[at(*scope)].get(prefix).copied();
            let before = was_named.unwrap_or_else(|| self.told_covering(*scope, *prefix));
            if was_named.is_none() && !named || was_named == Some(after) && named {
                continue;
            }
            changes.push(CidrChange {
                prefix: *prefix,
                scope: *scope,
                before,
                after,
                fresh,
                named,
            });
        }
        for change in &changes {
            let reported = &mut self.reported[at(change.scope)];
            if change.named {
                reported.insert(change.prefix, change.after);
            } else {
                reported.remove(&change.prefix);
            }
        }
        // Longest first, then what goes, shortest first: on the way an address finds what it bore or is to
        // bear, and never the row of a prefix in between.
        changes.sort_by_key(|change| {
            let length = i16::from(change.prefix.prefix_len());
            let order = if change.named { -length } else { length };
            (!change.named, order, *change)
        });
        if !std::mem::take(&mut self.relinked_since_told) {
            return changes;
        }
        self.split.clear();
        for (number, class) in self.classes.iter_mut().enumerate() {
            let Some(class) = class else { continue };
            class.fresh = false;
            class.relabelled = false;
            class.was = class.number;
            if !self.by_key.contains_key(&class.key) {
                self.by_key.insert(class.key.clone(), number as ClassNo);
            }
        }
        changes
    }

    /// Joins classes that have become alike, and forgets the prefixes that rules named before.
    pub(crate) fn settle(&mut self) -> BTreeSet<RegionNo> {
        if !self.staged || !self.moved.is_empty() {
            return BTreeSet::new();
        }
        self.settling = true;
        self.drop_retired();
        if std::mem::take(&mut self.stop_splitting_by_identity) {
            self.set_by_identity(false);
        }
        if std::mem::take(&mut self.restoring) {
            for scope in CidrScope::ALL {
                for (prefix, point) in &mut self.points[at(scope)].points {
                    if std::mem::take(&mut point.held) && point.marks.is_empty() {
                        self.dirty.insert((scope, *prefix));
                    }
                }
            }
        }
        let leftover = std::mem::take(&mut self.leftover);
        self.dirty.extend(leftover);
        let mut touched = self.reclassify(true);
        self.merge(&mut touched);
        self.settling = false;
        touched
    }

    /// Joins classes of the same key into the largest of them.
    fn merge(&mut self, touched: &mut BTreeSet<RegionNo>) {
        if !self.relinked_since_joined {
            return;
        }
        let mut largest: HashMap<&ClassKey, (usize, ClassNo)> = HashMap::new();
        for (number, class) in self.classes.iter().enumerate() {
            let Some(class) = class else { continue };
            let candidate = (class.members, number as ClassNo);
            let best = largest.entry(&class.key).or_insert(candidate);
            if candidate.0 > best.0 {
                *best = candidate;
            }
        }
        let goals: HashMap<ClassNo, ClassNo> = self
            .classes
            .iter()
            .enumerate()
            .filter_map(|(number, class)| {
                let (_, goal) = largest.get(&class.as_ref()?.key)?;
                (*goal != number as ClassNo).then_some((number as ClassNo, *goal))
            })
            .collect();
        if goals.is_empty() {
            self.relinked_since_joined = false;
            return;
        }
        for scope in CidrScope::ALL {
            let mut moves = Vec::new();
            for (prefix, point) in &mut self.points[at(scope)].points {
                if let Some(class) = point.class
                    && let Some(goal) = goals.get(&class)
                {
                    point.class = Some(*goal);
                    moves.push((*prefix, class, *goal));
                }
            }
            for (prefix, class, goal) in moves {
                self.moved.insert((scope, prefix));
                if let Some(goal) = self.classes[goal as usize].as_mut() {
                    goal.members += 1;
                }
                self.leave(class, touched);
            }
        }
        for goal in goals.values() {
            if let Some(class) = self.class(*goal).filter(|class| !class.fresh) {
                self.by_key.insert(class.key.clone(), *goal);
            }
        }
        self.relinked_since_joined = false;
    }
}
