//! Budgets against the definition, and reduced policies against the whole ones.

use super::*;
use proptest::prelude::*;

const LIMITS: CidrLimits = CidrLimits {
    total: 100,
    per_namespace: 60,
};

fn refused(budget: &CidrBudget<u32>, objects: impl IntoIterator<Item = u32>) -> Vec<u32> {
    objects
        .into_iter()
        .filter(|it| !budget.admits(it))
        .collect()
}

#[test]
fn the_object_that_does_not_fit_is_refused_and_comes_in_when_there_is_room() {
    let mut budget = CidrBudget::new(LIMITS);
    assert!(budget.set(1, "a", "2020", 40).is_empty());
    assert_eq!(budget.set(2, "a", "2021", 30), BTreeSet::from([2]));
    // A smaller one, made later, fits.
    assert!(budget.set(3, "a", "2022", 20).is_empty());
    assert_eq!(refused(&budget, 1..4), [2]);
    assert_eq!(budget.remove(&1), BTreeSet::from([2]));
    assert_eq!(refused(&budget, 2..4), [] as [u32; 0]);
}

#[test]
fn a_namespace_within_its_share_loses_nothing_by_what_others_write() {
    let mut budget = CidrBudget::new(LIMITS);
    budget.set(1, "small", "2022", 20);
    for (object, namespace) in [(2, "b"), (3, "c"), (4, "d")] {
        for part in 0..6 {
            budget.set(object * 10 + part, namespace, "2020", 9);
        }
    }
    assert!(budget.admits(&1));
    // 80 are left for three: 26 each, so two objects of 9.
    assert_eq!(budget.limit("b"), 26);
    assert_eq!(refused(&budget, 20..26), [22, 23, 24, 25]);
    // Cluster-wide objects are served first; 20 are still less than a quarter of what is left.
    budget.set(5, "", "2024", 10);
    assert_eq!(refused(&budget, [1, 5]), [] as [u32; 0]);
    assert_eq!(budget.limit("b"), 23);
    // All heals when the others go.
    for object in 30..46 {
        budget.remove(&object);
    }
    assert_eq!(refused(&budget, 20..26), [] as [u32; 0]);
}

#[test]
fn an_object_that_moves_or_costs_nothing_any_more_leaves_its_place() {
    let mut budget = CidrBudget::new(LIMITS);
    budget.set(1, "a", "2020", 50);
    budget.set(2, "a", "2021", 50);
    assert!(!budget.admits(&2));
    assert_eq!(budget.set(1, "b", "2020", 50), BTreeSet::from([2]));
    assert_eq!(budget.set(1, "a", "2020", 50), BTreeSet::from([2]));
    assert_eq!(budget.set(1, "a", "2020", 0), BTreeSet::from([2]));
    assert_eq!(budget.costs().collect::<Vec<_>>(), [("a", 50)]);
}

/// What is refused of these objects (namespace, age, cost), by the definition: the limit is tried downwards.
fn expected(objects: &BTreeMap<u32, (u8, u8, usize)>) -> BTreeSet<u32> {
    let serve = |namespace: u8, limit: usize| {
        let mut mine: Vec<_> = objects
            .iter()
            .filter(|(_, object)| object.0 == namespace)
            .map(|(key, (_, made, cost))| (*made, *key, *cost))
            .collect();
        mine.sort_unstable();
        let mut used = 0;
        let mut refused = BTreeSet::new();
        for (_, key, cost) in mine {
            if used + cost > limit {
                refused.insert(key);
            } else {
                used += cost;
            }
        }
        (used, refused)
    };
    let (cluster, mut refused) = serve(0, LIMITS.total);
    let sum = |namespace: u8| -> usize {
        let mine = objects.values().filter(|object| object.0 == namespace);
        mine.map(|object| object.2).sum()
    };
    let share = (0..=LIMITS.per_namespace)
        .rev()
        .find(|share| {
            let all: usize = (1..4).map(|namespace| sum(namespace).min(*share)).sum();
            all <= LIMITS.total - cluster
        })
        .unwrap();
    for namespace in 1..4 {
        refused.extend(serve(namespace, share).1);
    }
    refused
}

proptest! {
    #[test]
    fn the_answer_depends_on_the_objects_alone(
        steps in prop::collection::vec((0..12u32, 0..4u8, 0..4u8, prop_oneof![Just(0), 1..70usize]), 1..40)
    ) {
        let mut budget = CidrBudget::new(LIMITS);
        let mut objects = BTreeMap::new();
        for (key, namespace, made, cost) in steps {
            let before: BTreeSet<u32> = refused(&budget, 0..12).into_iter().collect();
            let name = ["", "a", "b", "c"][usize::from(namespace)];
            let changed = budget.set(key, name, &made.to_string(), cost);
            if cost == 0 {
                objects.remove(&key);
            } else {
                objects.insert(key, (namespace, made, cost));
            }
            let after: BTreeSet<u32> = refused(&budget, 0..12).into_iter().collect();
            prop_assert_eq!(&after, &expected(&objects));
            // What changed is told; an object that was taken out and put in again may be told, too.
            let flipped: BTreeSet<u32> = before.symmetric_difference(&after).copied().collect();
            prop_assert!(flipped.difference(&changed).all(|it| *it == key));
        }
    }
}
