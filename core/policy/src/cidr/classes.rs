//! Classes of prefixes that policy cannot tell apart, and what a change does to them.

use super::{
    Area, AreaNo, CidrAssignment, CidrScope, RegionNo,
    areas::Areas,
    number::Numbers,
    points::{Lengths, Points},
};
use crate::{
    facts::{PrefixSet, family, shorten},
    fast::{NumberHasher, NumberMap},
    link::SpecNo,
};
use heddle_model::Identity;
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

pub(super) type ClassNo = u32;

/// What prefixes of one class have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ClassKey {
    /// Of all the rest: lists of regions may be long, and are hashed and compared often.
    digest: u64,
    pub(super) scope: CidrScope,
    pub(super) family: usize,
    /// The regions that cover them, sorted.
    pub(super) regions: Arc<[RegionNo]>,
    /// The identity of the addresses there, where rules need it (see [`Cidrs::split_by_identity`]).
    pub(super) base: Option<Identity>,
}

impl ClassKey {
    pub(super) fn new(
        scope: CidrScope,
        family: usize,
        regions: Arc<[RegionNo]>,
        base: Option<Identity>,
    ) -> Self {
        let mut hasher = NumberHasher::default();
        (scope, family, base).hash(&mut hasher);
        for region in regions.iter() {
            hasher.write_u32(*region);
        }
        Self {
            digest: hasher.finish(),
            scope,
            family,
            regions,
            base,
        }
    }
}

impl Hash for ClassKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

/// Prefixes that policy cannot tell apart.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    pub(super) key: ClassKey,
    pub(super) number: Identity,
    /// The number its prefixes had when changes were taken last; its own for a class that is not fresh.
    pub(super) was: Identity,
    pub(super) fresh: bool,
    /// It became another class as a whole since then.
    pub(super) relabelled: bool,
    pub(super) members: usize,
}

impl Class {
    /// The number that its addresses bear.
    pub(crate) const fn number(&self) -> Identity {
        self.number
    }

    /// The identity that addresses of the cluster there have, as far as rules need it.
    pub(crate) const fn base(&self) -> Option<Identity> {
        self.key.base
    }

    pub(crate) const fn in_cluster(&self) -> bool {
        matches!(self.key.scope, CidrScope::InCluster)
    }

    /// The identity of addresses outside the cluster there.
    pub(crate) const fn world(&self) -> Identity {
        match self.key.family {
            0 => Identity::WORLD_IPV4,
            _ => Identity::WORLD_IPV6,
        }
    }
}

/// Regions, prefixes and classes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cidrs {
    pub(super) areas: Areas,
    pub(super) points: [Points; 2],
    pub(super) classes: Vec<Option<Class>>,
    pub(super) free: Vec<ClassNo>,
    /// A class of each key that is not fresh.
    pub(super) by_key: NumberMap<ClassKey, ClassNo>,
    /// The fresh classes, by where their prefixes come from.
    pub(super) split: NumberMap<(Identity, ClassKey), ClassNo>,
    /// A class came, went or became another since changes were taken, and since alike classes were joined: both look at
    /// every class, and a change that is not about policy CIDRs must not cost that.
    pub(super) relinked_since_told: bool,
    pub(super) relinked_since_joined: bool,
    pub(super) of_region: NumberMap<RegionNo, BTreeSet<ClassNo>>,
    pub(super) live: NumberMap<Identity, ClassNo>,
    pub(super) numbers: Numbers,
    /// Numbers from before a restart.
    pub(super) hints: BTreeMap<(CidrScope, IpNet), Identity>,
    pub(super) hinted: BTreeSet<Identity>,
    /// Blocks in which prefixes have to be looked at again.
    pub(super) dirty: BTreeSet<(CidrScope, IpNet)>,
    /// The identities of addresses in the cluster, longest prefix first.
    pub(super) bases: BTreeMap<IpNet, Identity>,
    pub(super) base_lengths: Lengths,
    /// Whether classes in the cluster tell identities apart.
    pub(super) by_identity: bool,
    /// They need not, once the change is settled.
    pub(super) stop_splitting_by_identity: bool,
    /// Whether changes wait until they are settled, and are reported.
    pub(super) staged: bool,
    /// Rows say the same of all that becomes alike now.
    pub(super) settling: bool,
    /// Prefixes from before a restart are held, and their old meaning is not known.
    pub(super) restoring: bool,
    /// Regions without users, until the change is settled.
    pub(super) retired: BTreeSet<RegionNo>,
    /// What was reported last.
    pub(super) reported: [BTreeMap<IpNet, Identity>; 2],
    pub(super) moved: BTreeSet<(CidrScope, IpNet)>,
    /// Prefixes without a name, until the change is settled.
    pub(super) leftover: BTreeSet<(CidrScope, IpNet)>,
}

pub(super) const fn at(scope: CidrScope) -> usize {
    match scope {
        CidrScope::World => 0,
        CidrScope::InCluster => 1,
    }
}

/// The regions that are not in another list; both are sorted.
fn without<'a>(
    regions: &'a [RegionNo],
    kept: &'a [RegionNo],
) -> impl Iterator<Item = &'a RegionNo> {
    regions
        .iter()
        .filter(|region| kept.binary_search(region).is_err())
}

impl Cidrs {
    // ---- regions ----

    /// The region of a rule with these areas (sorted), for one more user; `blocks` gives an area's blocks.
    pub(crate) fn acquire(
        &mut self,
        areas: Vec<Area>,
        user: SpecNo,
        blocks: impl Fn(&Area) -> Vec<Arc<PrefixSet>>,
    ) -> RegionNo {
        let mut numbers = Vec::with_capacity(areas.len());
        for area in areas {
            let (number, new) = self.areas.area(area, &blocks);
            if new {
                self.mark_all(number);
            }
            numbers.push(number);
        }
        numbers.sort_unstable();
        let (region, new) = self.areas.region(numbers.clone());
        if new {
            for number in numbers {
                self.mark_dirty(number);
            }
        }
        self.retired.remove(&region);
        if let Some(slot) = self.areas.region_slot_mut(region) {
            *slot.users.entry(user).or_default() += 1;
        }
        region
    }

    /// Counts one user less.
    pub(crate) fn release(&mut self, region: RegionNo, user: SpecNo) {
        let Some(slot) = self.areas.region_slot_mut(region) else {
            return;
        };
        if let Some(count) = slot.users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                slot.users.remove(&user);
            }
        }
        if slot.users.is_empty() {
            self.retired.insert(region);
        }
    }

    /// The parts of policies that use a region.
    pub(crate) fn users(&self, region: RegionNo) -> impl Iterator<Item = SpecNo> + '_ {
        self.areas
            .region_slot(region)
            .into_iter()
            .flat_map(|slot| slot.users.keys().copied())
    }

    /// True when a region selects all addresses of `prefix`.
    pub(crate) fn covers(&self, region: RegionNo, prefix: IpNet, in_cluster: bool) -> bool {
        self.areas.region_slot(region).is_some_and(|slot| {
            slot.areas
                .iter()
                .filter_map(|area| self.areas.slot(*area))
                .any(|area| area.covers(prefix, in_cluster))
        })
    }

    /// The classes that a region covers.
    pub(crate) fn classes(&self, region: RegionNo) -> impl Iterator<Item = &Class> {
        self.of_region
            .get(&region)
            .into_iter()
            .flatten()
            .filter_map(|number| self.class(*number))
    }

    /// The areas for which `depends` holds.
    pub(crate) fn areas_that(&self, depends: impl Fn(&Area) -> bool) -> Vec<(AreaNo, Arc<Area>)> {
        self.areas
            .iter()
            .filter(|(_, slot)| depends(&slot.area))
            .map(|(number, slot)| (number, Arc::clone(&slot.area)))
            .collect()
    }

    /// Replaces an area's blocks.
    pub(crate) fn set_blocks(&mut self, area: AreaNo, blocks: Vec<Arc<PrefixSet>>) {
        let (come, go) = self.areas.set_blocks(area, blocks);
        for prefix in go {
            self.unmark(area, prefix, false);
        }
        for prefix in come {
            self.mark(area, prefix, false);
        }
    }

    fn scopes(&self, area: AreaNo) -> &'static [CidrScope] {
        let in_cluster = |slot: &super::areas::AreaSlot| slot.area.in_cluster();
        if self.areas.slot(area).is_some_and(in_cluster) {
            &CidrScope::ALL
        } else {
            &[CidrScope::World]
        }
    }

    fn mark_all(&mut self, area: AreaNo) {
        let Some(slot) = self.areas.slot(area) else {
            return;
        };
        let marks: Vec<(IpNet, bool)> = slot
            .blocks()
            .into_iter()
            .map(|prefix| (prefix, false))
            .chain(slot.holes().map(|prefix| (prefix, true)))
            .collect();
        for (prefix, hole) in marks {
            self.mark(area, prefix, hole);
        }
    }

    fn mark(&mut self, area: AreaNo, prefix: IpNet, hole: bool) {
        for scope in self.scopes(area) {
            self.points[at(*scope)]
                .entry(prefix)
                .marks
                .push((area, hole));
            self.dirty.insert((*scope, prefix));
        }
    }

    fn unmark(&mut self, area: AreaNo, prefix: IpNet, hole: bool) {
        for scope in CidrScope::ALL {
            let points = &mut self.points[at(scope)];
            if points.get(prefix).is_none() {
                continue;
            }
            let marks = &mut points.entry(prefix).marks;
            if let Some(found) = marks.iter().position(|mark| *mark == (area, hole)) {
                marks.swap_remove(found);
                self.dirty.insert((scope, prefix));
            }
        }
    }

    /// What an area covers has to be looked at again.
    fn mark_dirty(&mut self, area: AreaNo) {
        let scopes = self.scopes(area);
        if let Some(slot) = self.areas.slot(area) {
            let blocks = slot.blocks();
            for scope in scopes {
                self.dirty
                    .extend(blocks.iter().map(|block| (*scope, *block)));
            }
        }
    }

    /// Forgets the regions that nobody uses any more.
    pub(super) fn drop_retired(&mut self) {
        for region in std::mem::take(&mut self.retired) {
            let areas: Vec<AreaNo> = self
                .areas
                .region_slot(region)
                .map(|slot| slot.areas.to_vec())
                .unwrap_or_default();
            for area in areas {
                self.mark_dirty(area);
            }
            for (area, slot) in self.areas.drop_region(region) {
                for prefix in slot.blocks() {
                    self.unmark(area, prefix, false);
                }
                for prefix in slot.holes() {
                    self.unmark(area, prefix, true);
                }
            }
        }
    }

    // ---- identities of addresses in the cluster ----

    /// Who the addresses of a prefix in the cluster are; `None` forgets it.
    pub(crate) fn set_base(&mut self, prefix: IpNet, identity: Option<Identity>) {
        let prefix = prefix.trunc();
        let before = match identity {
            Some(identity) => self.bases.insert(prefix, identity),
            None => self.bases.remove(&prefix),
        };
        if before == identity {
            return;
        }
        let lengths = &mut self.base_lengths[family(prefix)];
        match (before, identity) {
            (None, _) => *lengths.entry(prefix.prefix_len()).or_default() += 1,
            (_, None) => {
                if let Some(count) = lengths.get_mut(&prefix.prefix_len()) {
                    *count -= 1;
                    if *count == 0 {
                        lengths.remove(&prefix.prefix_len());
                    }
                }
            }
            _ => {}
        }
        if self.by_identity {
            self.points[at(CidrScope::InCluster)].entry(prefix);
            self.dirty.insert((CidrScope::InCluster, prefix));
        }
    }

    /// Whether classes in the cluster shall tell apart the identities of their addresses: passes make the
    /// answer for an identity and an address depend on both, and the datapath finds rows for each alone.
    pub(crate) fn split_by_identity(&mut self, wanted: bool) {
        // Classes join when the change is settled.
        self.stop_splitting_by_identity = !wanted && self.staged;
        if wanted || !self.staged {
            self.set_by_identity(wanted);
        }
    }

    pub(super) fn set_by_identity(&mut self, wanted: bool) {
        if std::mem::replace(&mut self.by_identity, wanted) == wanted {
            return;
        }
        let prefixes: Vec<IpNet> = self.bases.keys().copied().collect();
        for prefix in prefixes {
            self.points[at(CidrScope::InCluster)].entry(prefix);
            self.dirty.insert((CidrScope::InCluster, prefix));
        }
        let all = self.points[at(CidrScope::InCluster)].points.keys();
        self.dirty
            .extend(all.map(|prefix| (CidrScope::InCluster, *prefix)));
    }

    fn base(&self, prefix: IpNet) -> Option<Identity> {
        self.base_lengths[family(prefix)]
            .range(..=prefix.prefix_len())
            .rev()
            .find_map(|(length, _)| self.bases.get(&shorten(prefix, *length)?))
            .copied()
    }

    // ---- classes ----

    pub(super) fn class(&self, number: ClassNo) -> Option<&Class> {
        self.classes.get(number as usize)?.as_ref()
    }

    fn key(&self, scope: CidrScope, prefix: IpNet) -> ClassKey {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for point in self.points[at(scope)].around(prefix) {
            for (area, hole) in &point.marks {
                if *hole { &mut outside } else { &mut inside }.push(*area);
            }
        }
        outside.sort_unstable();
        inside.retain(|area| outside.binary_search(area).is_err());
        let mut regions: Vec<RegionNo> = inside
            .into_iter()
            .filter_map(|area| self.areas.slot(area))
            .flat_map(|slot| slot.regions.iter().copied())
            .collect();
        regions.sort_unstable();
        regions.dedup();
        let told_apart = scope == CidrScope::InCluster && self.by_identity && !regions.is_empty();
        let base = told_apart.then(|| self.base(prefix)).flatten();
        ClassKey::new(scope, family(prefix), regions.into(), base)
    }

    /// Brings the classes up to date. `facts` says that no rule changed, only what rules refer to: then a
    /// prefix may join a class at once. Returns the regions whose rows may change.
    pub(crate) fn flush(&mut self, facts: bool) -> BTreeSet<RegionNo> {
        if !self.staged {
            self.drop_retired();
        }
        let join = !self.staged || (facts && !self.restoring);
        self.reclassify(join)
    }

    pub(super) fn reclassify(&mut self, join: bool) -> BTreeSet<RegionNo> {
        let mut touched = BTreeSet::new();
        // What leaves each class, and for what.
        let mut leaving: BTreeMap<Option<ClassNo>, BTreeMap<Option<ClassKey>, Vec<IpNet>>> =
            BTreeMap::new();
        let dirty = std::mem::take(&mut self.dirty);
        let mut done: Option<(CidrScope, IpNet)> = None;
        for (scope, block) in dirty {
            // Sorted: what lies inside a block comes after it.
            if done.is_some_and(|(known, outer)| known == scope && outer.contains(&block)) {
                continue;
            }
            done = Some((scope, block));
            for (prefix, point) in self.points[at(scope)].within(block) {
                let key = self.key(scope, prefix);
                let told = self.by_identity && self.bases.contains_key(&prefix);
                let named = point.is_named() || (told && !key.regions.is_empty());
                // What loses its name goes when the change is settled: the class around it may be fresh, and
                // come from elsewhere.
                let stays = self.staged && !self.settling && point.class.is_some();
                if !named && stays {
                    self.leftover.insert((scope, prefix));
                }
                let key = (named || stays).then_some(key);
                let before = point.class.and_then(|class| self.class(class));
                if before.map(|class| &class.key) == key.as_ref() && key.is_some() {
                    continue;
                }
                leaving
                    .entry(point.class)
                    .or_default()
                    .entry(key)
                    .or_default()
                    .push(prefix);
                if self.staged {
                    self.moved.insert((scope, prefix));
                }
            }
        }
        for (class, goals) in leaving {
            self.part(class, goals, join, &mut touched);
        }
        touched
    }

    /// Moves prefixes out of a class (or from nowhere) to where they are alike.
    fn part(
        &mut self,
        class: Option<ClassNo>,
        mut goals: BTreeMap<Option<ClassKey>, Vec<IpNet>>,
        join: bool,
        touched: &mut BTreeSet<RegionNo>,
    ) {
        let leaving: usize = goals.values().map(Vec::len).sum();
        if let Some(number) = class
            && self
                .class(number)
                .is_some_and(|class| class.members == leaving)
        {
            // Nobody stays: the largest group keeps the number, unless it finds its like.
            let largest = goals
                .iter()
                .filter_map(|(goal, prefixes)| Some((goal.clone()?, prefixes.len())))
                .max_by_key(|(_, size)| *size);
            if let Some((goal, _)) = largest
                && !(join && self.by_key.contains_key(&goal))
            {
                self.relabel(number, goal.clone(), touched);
                goals.remove(&Some(goal));
            }
        }
        for (goal, prefixes) in goals {
            for prefix in prefixes {
                // The key knows the scope; a prefix that goes has lost its marks in one scope only.
                let scope = match (&goal, class.and_then(|class| self.class(class))) {
                    (Some(goal), _) => goal.scope,
                    (None, Some(class)) => class.key.scope,
                    (None, None) => {
                        self.forget_unnamed(prefix);
                        continue;
                    }
                };
                let target = goal
                    .as_ref()
                    .map(|goal| self.target(goal, prefix, join, touched));
                let named = {
                    let point = self.points[at(scope)].entry(prefix);
                    point.class = target;
                    point.is_named()
                };
                if let Some(target) =
                    target.and_then(|number| self.classes[number as usize].as_mut())
                {
                    target.members += 1;
                }
                if target.is_none() && !named {
                    self.drop_point(scope, prefix);
                }
                if let Some(number) = class {
                    self.leave(number, touched);
                }
            }
        }
    }

    /// A prefix that never had a class and has no reason to be known.
    fn forget_unnamed(&mut self, prefix: IpNet) {
        for scope in CidrScope::ALL {
            let unnamed = self.points[at(scope)]
                .get(prefix)
                .is_some_and(|point| point.class.is_none() && !point.is_named());
            if unnamed {
                self.drop_point(scope, prefix);
            }
        }
    }

    fn drop_point(&mut self, scope: CidrScope, prefix: IpNet) {
        let kept =
            scope == CidrScope::InCluster && self.by_identity && self.bases.contains_key(&prefix);
        if !kept {
            self.points[at(scope)].remove(prefix);
        }
    }

    /// The class that a prefix goes to.
    fn target(
        &mut self,
        goal: &ClassKey,
        prefix: IpNet,
        join: bool,
        touched: &mut BTreeSet<RegionNo>,
    ) -> ClassNo {
        if join && let Some(number) = self.by_key.get(goal) {
            return *number;
        }
        let was = if self.staged {
            self.told_covering(goal.scope, prefix)
        } else {
            Identity::UNKNOWN
        };
        if let Some(number) = self.split.get(&(was, goal.clone())) {
            return *number;
        }
        let hinted = self
            .hints
            .remove(&(goal.scope, prefix))
            .filter(|identity| !self.live.contains_key(identity));
        let identity = match hinted {
            Some(identity) => {
                self.numbers.take(identity);
                identity
            }
            None => self.numbers.any(),
        };
        // Whoever has rows for the number they come from gets copies for this one, and loses them again.
        if let Some(class) = self.live.get(&was).and_then(|number| self.class(*number)) {
            touched.extend(class.key.regions.iter());
        }
        self.create(goal.clone(), identity, was, self.staged, touched)
    }

    pub(super) fn create(
        &mut self,
        key: ClassKey,
        identity: Identity,
        was: Identity,
        fresh: bool,
        touched: &mut BTreeSet<RegionNo>,
    ) -> ClassNo {
        let number = self.free.pop().unwrap_or_else(|| {
            self.classes.push(None);
            (self.classes.len() - 1) as ClassNo
        });
        self.live.insert(identity, number);
        self.classes[number as usize] = Some(Class {
            key,
            number: identity,
            was,
            fresh,
            relabelled: false,
            members: 0,
        });
        self.link(number, &[], touched);
        number
    }

    /// Puts a class into the indexes; those of the regions in `kept` have it.
    fn link(&mut self, number: ClassNo, kept: &[RegionNo], touched: &mut BTreeSet<RegionNo>) {
        self.relinked();
        let Some(class) = self.classes[number as usize].as_ref() else {
            return;
        };
        for region in without(&class.key.regions, kept) {
            self.of_region.entry(*region).or_default().insert(number);
            touched.insert(*region);
        }
        if class.fresh {
            self.split.insert((class.was, class.key.clone()), number);
        } else if !class.relabelled {
            self.by_key.entry(class.key.clone()).or_insert(number);
        }
    }

    const fn relinked(&mut self) {
        self.relinked_since_told = true;
        self.relinked_since_joined = true;
    }

    fn unlink(&mut self, number: ClassNo, kept: &[RegionNo], touched: &mut BTreeSet<RegionNo>) {
        self.relinked();
        let Some(class) = self.classes[number as usize].as_ref() else {
            return;
        };
        for region in without(&class.key.regions, kept) {
            if let Some(set) = self.of_region.get_mut(region) {
                set.remove(&number);
                if set.is_empty() {
                    self.of_region.remove(region);
                }
            }
            touched.insert(*region);
        }
        if self.by_key.get(&class.key) == Some(&number) {
            self.by_key.remove(&class.key);
        }
        let split = (class.was, class.key.clone());
        if self.split.get(&split) == Some(&number) {
            self.split.remove(&split);
        }
    }

    /// A class becomes another as a whole, and keeps its number.
    fn relabel(&mut self, number: ClassNo, goal: ClassKey, touched: &mut BTreeSet<RegionNo>) {
        // Rows of rules about regions that it had and has do not change, unless who lives there does.
        let kept: Vec<RegionNo> = match self.class(number) {
            Some(class) if class.key.base == goal.base => class
                .key
                .regions
                .iter()
                .copied()
                .filter(|region| goal.regions.binary_search(region).is_ok())
                .collect(),
            _ => Vec::new(),
        };
        self.unlink(number, &kept, touched);
        if let Some(class) = self.classes[number as usize].as_mut() {
            class.key = goal;
            // Its rows still say what it was: nothing may join it before they are written.
            class.relabelled = self.staged && !self.settling;
        }
        self.link(number, &kept, touched);
    }

    pub(super) fn leave(&mut self, number: ClassNo, touched: &mut BTreeSet<RegionNo>) {
        let empty = self.classes[number as usize].as_mut().is_some_and(|class| {
            class.members -= 1;
            class.members == 0
        });
        if empty {
            self.unlink(number, &[], touched);
            if let Some(class) = self.classes[number as usize].take() {
                self.live.remove(&class.number);
                self.numbers.free(class.number);
            }
            self.free.push(number);
        }
    }

    // ---- questions ----

    pub(crate) fn all(&self) -> impl Iterator<Item = CidrAssignment> + '_ {
        CidrScope::ALL.into_iter().flat_map(move |scope| {
            self.points[at(scope)]
                .points
                .iter()
                .filter_map(move |(prefix, point)| {
                    Some(CidrAssignment {
                        prefix: *prefix,
                        scope,
                        identity: self.class(point.class?)?.number,
                    })
                })
        })
    }

    /// The identity of the longest prefix in use that covers `prefix`.
    pub(crate) fn covering(&self, prefix: IpNet, scope: CidrScope) -> Identity {
        self.points[at(scope)]
            .around(prefix.trunc())
            .find_map(|point| self.class(point.class?))
            .map_or(Identity::UNKNOWN, Class::number)
    }
}
