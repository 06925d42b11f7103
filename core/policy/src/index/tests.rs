//! Whatever comes and goes in whatever order, the index knows what trying every selector would find.

use super::*;
use heddle_model::{LabelFilter, NamespacedName, Selector};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A pod of one of three namespaces with some labels, or a reserved identity.
fn label_sets() -> impl Strategy<Value = LabelSet> {
    let label =
        |values: &'static [&'static str]| prop::option::of(prop::sample::select(values.to_vec()));
    let pod = (
        prop::sample::select(vec!["a", "b", "c"]),
        label(&["x", "y", "z"]),
        label(&["1", "2"]),
    )
        .prop_map(|(namespace, app, tier)| {
            let labels = [("app", app), ("tier", tier)];
            LabelSet::of_pod(
                &NamespacedName::new(namespace, "pod"),
                labels
                    .iter()
                    .filter_map(|(key, value)| Some((*key, (*value)?))),
                [("team", namespace)],
                "default",
                "",
                "default",
                &LabelFilter::default(),
            )
        });
    let reserved = prop::sample::select(vec!["host", "world-ipv4", "init", "kube-apiserver"]);
    prop_oneof![5 => pod, 1 => reserved.prop_map(LabelSet::reserved)]
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let keys = vec![
        "app",
        "tier",
        LabelSet::NAMESPACE,
        "io.cilium.k8s.namespace.labels.team",
        "reserved:host",
        "reserved:world",
        "nobody-has-this",
    ];
    let operators = vec![
        Operator::In,
        Operator::NotIn,
        Operator::Exists,
        Operator::DoesNotExist,
    ];
    let values = vec!["x", "y", "z", "1", "2", "a", "b", "c", ""];
    (
        prop::sample::select(keys),
        prop::sample::select(operators),
        prop::collection::vec(prop::sample::select(values), 1..4),
        // Now and then more values than a selector hangs on anchors.
        prop::option::weighted(0.1, Just(MOST_ANCHORS)),
    )
        .prop_map(|(key, operator, mut values, many)| {
            let many: Vec<String> = (0..many.unwrap_or(0)).map(|n| format!("v{n}")).collect();
            if matches!(operator, Operator::Exists | Operator::DoesNotExist) {
                values.clear();
            }
            let mut values: Vec<String> = values.into_iter().map(str::to_owned).collect();
            if !values.is_empty() {
                values.extend(many);
            }
            Requirement {
                key: key.to_owned(),
                operator,
                values,
            }
        })
}

fn selector() -> impl Strategy<Value = EndpointSelector> {
    prop::collection::vec(requirement(), 0..4).prop_map(|requirements| {
        EndpointSelector::new(Selector::new(BTreeMap::new(), requirements).unwrap())
    })
}

#[derive(Clone, Debug)]
enum Step {
    Identity(u32, Option<LabelSet>),
    Use(usize, SpecNo),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (300..308u32, prop::option::weighted(0.8, label_sets()))
            .prop_map(|(number, labels)| Step::Identity(number, labels)),
        4 => (0..6usize, 0..4 as SpecNo).prop_map(|(which, user)| Step::Use(which, user)),
        2 => (0..8usize).prop_map(Step::Drop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_index_knows_what_trying_everything_finds(
        selectors in prop::collection::vec(selector(), 6),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut index = SelectorIndex::default();
        let mut label_index = LabelIndex::default();
        let mut used: Vec<(SelectorNo, SpecNo, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Identity(number, labels) => {
                    let identity = Identity(number);
                    index.remove_identity(identity);
                    label_index.remove(identity);
                    if let Some(labels) = labels {
                        let marks = Marks::of(&labels);
                        index.add_identity(identity, &labels, &marks);
                        label_index.add(identity, Arc::new(labels), &marks);
                    }
                }
                Step::Use(which, user) => {
                    used.push((index.add(&selectors[which], user, &label_index), user, which));
                }
                Step::Drop(which) if which < used.len() => {
                    let (number, user, _) = used.swap_remove(which);
                    index.remove(number, user);
                }
                Step::Drop(_) => {}
            }
            for (number, _, which) in &used {
                let expected: Vec<Identity> = label_index
                    .iter()
                    .filter(|(_, labels)| selectors[*which].matches(labels))
                    .map(|(identity, _)| identity)
                    .collect();
                prop_assert_eq!(index.matches(*number), expected.as_slice(), "{:?}", &selectors[*which]);
            }
            for (identity, labels) in label_index.iter() {
                let mut expected: Vec<SpecNo> = used
                    .iter()
                    .filter(|(.., which)| selectors[*which].matches(labels))
                    .map(|(_, user, _)| *user)
                    .collect();
                let mut found: Vec<SpecNo> = index.users_matching(identity).collect();
                for list in [&mut expected, &mut found] {
                    list.sort_unstable();
                    list.dedup();
                }
                prop_assert_eq!(found, expected);
            }
        }
        for (number, user, _) in used {
            index.remove(number, user);
        }
        prop_assert!(index.numbers.is_empty() && index.anchored.is_empty() && index.matched.is_empty());
        for (identity, _) in label_index.clone().iter() {
            label_index.remove(identity);
        }
        prop_assert!(label_index.bearing.is_empty());
    }
}
