//! What holds for any cluster: changes in any order, an oracle written apart, and input that wishes harm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod draw;
mod hostile;
mod model;
mod oracle;

use draw::{Event, events};
use heddle_services::{Outcome, Services, Subject};
use model::Model;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The node from which everything is seen.
const HERE: &str = "n0";

/// Outcomes as somebody keeps them who computes only what is said to have changed.
fn follow(services: &mut Services, kept: &mut BTreeMap<Subject, Outcome>) {
    for subject in services.take_changes() {
        match services.outcome(&subject) {
            Some(outcome) => kept.insert(subject, outcome),
            None => kept.remove(&subject),
        };
    }
}

fn all(services: &Services) -> BTreeMap<Subject, Outcome> {
    let outcomes = services.subjects().map(|subject| {
        let outcome = services.outcome(&subject).unwrap();
        (subject, outcome)
    });
    outcomes.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_changes_name_is_all_that_changed(events in events(), order in any::<u64>()) {
        let (mut services, mut model) = (Services::new(HERE), Model::default());
        let mut kept = BTreeMap::new();
        for event in &events {
            if let Event::Look = event {
                follow(&mut services, &mut kept);
                prop_assert_eq!(&kept, &all(&model.anew(0)));
            }
            model.apply(event);
            event.apply(&mut services);
        }
        follow(&mut services, &mut kept);
        // From scratch, in an order of arrival of its own.
        let fresh = model.anew(order);
        prop_assert_eq!(&kept, &all(&fresh));
        for name in model.services.keys() {
            prop_assert_eq!(services.behind(name), fresh.behind(name));
        }
    }

    #[test]
    fn outcomes_are_those_of_an_oracle_that_filters_flat_lists(events in events()) {
        let mut model = Model::default();
        for event in &events {
            model.apply(event);
        }
        let services = model.anew(0);
        for (subject, outcome) in all(&services) {
            let found = oracle::Seen::of(&outcome);
            prop_assert_eq!(&found, &oracle::expect(&model, &subject), "{}", subject);
        }
    }

    #[test]
    fn a_subject_that_is_removed_leaves_nothing(events in events()) {
        let (mut services, mut model) = (Services::new(HERE), Model::default());
        for event in &events {
            model.apply(event);
            event.apply(&mut services);
        }
        for event in model.removals() {
            event.apply(&mut services);
        }
        prop_assert_eq!(services.subjects().count(), 0);
        services.take_changes();
        // Whatever comes then is alone.
        let mut kept = BTreeMap::new();
        let mut alone = Model::default();
        for event in events.iter().filter(|event| matches!(event, Event::Service(_))).take(1) {
            event.apply(&mut services);
            alone.apply(event);
            follow(&mut services, &mut kept);
        }
        prop_assert_eq!(kept, all(&alone.anew(0)));
    }
}
