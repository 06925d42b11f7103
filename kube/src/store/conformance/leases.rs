//! Leases: one of many candidates takes one, and its version keeps the others from it.

use crate::lease::{Election, Step, Timing};
use crate::objects::LeaseSpec;
use crate::store::{Kind, Store, StoreError};
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn lease(name: &str, spec: &LeaseSpec) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": "shop", "name": name}, "spec": spec,
    })
}

fn candidates() -> impl Iterator<Item = Election> {
    (0..8).map(|number| Election::new(format!("candidate-{number}"), Timing::of_seconds(15)))
}

pub(super) async fn one_of_many_takes_a_free_lease(store: &Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for mut election in candidates() {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let Step::Create(spec) = election.look(Duration::ZERO, None, "then") else {
                panic!("a lease that is not there is created")
            };
            store.create(Kind::Lease, lease("free", &spec)).await
        });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().flatten().count(), 1, "{outcomes:?}");
}

pub(super) async fn an_expired_lease_goes_to_one_of_many(store: &Arc<dyn Store>) {
    let held = LeaseSpec {
        holder_identity: Some("gone".into()),
        lease_duration_seconds: Some(15),
        lease_transitions: Some(7),
        ..LeaseSpec::default()
    };
    let read = store
        .create(Kind::Lease, lease("expired", &held))
        .await
        .unwrap();
    assert_eq!(LeaseSpec::of(&read.value), held);
    let mut tasks = tokio::task::JoinSet::new();
    for mut election in candidates() {
        let (store, mut read) = (Arc::clone(store), read.clone());
        tasks.spawn(async move {
            let spec = LeaseSpec::of(&read.value);
            let lease = Some((&read.version, &spec));
            assert_eq!(election.look(Duration::ZERO, lease, "then"), Step::Wait);
            let Step::Update(taken) = election.look(Duration::from_secs(15), lease, "then") else {
                panic!("a lease that nobody renewed is taken")
            };
            read.value["spec"] = json!(taken);
            store.update(Kind::Lease, read.value).await
        });
    }
    let outcomes = tasks.join_all().await;
    let taken: Vec<LeaseSpec> = outcomes
        .iter()
        .flatten()
        .map(|object| LeaseSpec::of(&object.value))
        .collect();
    assert_eq!(taken.len(), 1, "{outcomes:?}");
    assert_eq!(taken[0].lease_transitions, Some(8));
    for outcome in &outcomes {
        assert!(matches!(outcome, Ok(_) | Err(StoreError::Conflict { .. })));
    }
    let name = NamespacedName::new("shop", "expired");
    let stored = store.get(Kind::Lease, &name).await.unwrap();
    assert_eq!(LeaseSpec::of(&stored.value), taken[0]);
}
