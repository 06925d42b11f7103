//! What every store promises, run against each of them. Each row is a behaviour, by its name.
//!
//! A row uses names of its own, so that it holds on a store that others write, too, and nothing that only one
//! implementation has: a store in front of Kubernetes is another call of [`run`].

mod leases;
mod objects;
mod scopes;
mod status;
mod watches;

use super::memory::MemoryStore;
use super::{Event, Kind, Object, Scope, Store, Watch};
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Who applies status where it does not matter who.
pub(crate) const MANAGER: &str = "conformance";

pub(crate) fn pod(name: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

pub(crate) fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

pub(crate) fn identity(name: &str) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumIdentity",
        "metadata": {"name": name}, "security-labels": {"k8s:app": "web"},
    })
}

pub(crate) fn in_shop(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

pub(crate) async fn next(watch: &mut Watch) -> Event {
    tokio::time::timeout(DEADLINE, watch.recv())
        .await
        .expect("an event in time")
        .expect("the watch goes on")
}

/// Everything said up to the next time that everything has been said.
pub(crate) async fn until_synced(watch: &mut Watch) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        match next(watch).await {
            Event::Synced { .. } => return events,
            event => events.push(event),
        }
    }
}

/// Everything said until this state of an object has been.
pub(crate) async fn until_said(watch: &mut Watch, object: &Object) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = next(watch).await;
        let last = matches!(&event, Event::Applied(said) | Event::Deleted(said)
            if said.kind == object.kind && said.name == object.name && said.version == object.version);
        if !matches!(event, Event::Synced { .. }) {
            events.push(event);
        }
        if last {
            return events;
        }
    }
}

fn metadata<'a>(object: &'a Object, field: &str) -> &'a Value {
    &object.value["metadata"][field]
}

async fn apply(store: &dyn Store, object: &Object, status: Value) -> Object {
    store
        .apply_status(object.kind, &object.name, MANAGER, status)
        .await
        .unwrap()
}

/// The whole suite.
pub(crate) async fn run(store: Arc<dyn Store>) {
    let one = &*store;
    objects::creates_set_metadata(one).await;
    objects::updates_are_optimistic(one).await;
    objects::versions_are_opaque(one).await;
    objects::deletes_have_preconditions(one).await;
    objects::lists_are_ordered(one).await;
    objects::bad_objects_are_refused(one).await;
    objects::one_creator_wins(&store).await;
    objects::one_updater_of_a_version_wins(&store).await;
    status::status_of_a_subresource_is_ignored_on_create_and_update(one).await;
    status::status_that_is_a_field_is_written_like_any_other(one).await;
    status::a_manager_s_application_is_all_it_says(one).await;
    status::conditions_are_merged_by_type(one).await;
    status::applications_that_change_nothing_keep_the_version(one).await;
    status::applications_are_no_change_of_generation(one).await;
    status::bad_applications_are_refused(one).await;
    scopes::lists_have_scopes(one).await;
    scopes::metadata_only_leaves_the_rest_out(one).await;
    scopes::watches_hear_of_nothing_out_of_scope(one).await;
    scopes::what_leaves_a_scope_is_deleted_from_it(one).await;
    scopes::scopes_of_one_watch_add_up(one).await;
    watches::watches_tell_everything_in_order(one).await;
    watches::synced_never_goes_back(one).await;
    watches::slow_watchers_start_over(one).await;
    leases::one_of_many_takes_a_free_lease(&store).await;
    leases::an_expired_lease_goes_to_one_of_many(&store).await;
}

#[tokio::test]
async fn memory_store() {
    run(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_memory_store_s_watches_end_with_it() {
    let store = MemoryStore::new();
    let mut watch = store.watch(&[Scope::all(Kind::Pod)]);
    assert!(matches!(next(&mut watch).await, Event::Synced { .. }));
    drop(store);
    let ended = tokio::time::timeout(DEADLINE, watch.recv()).await.unwrap();
    assert_eq!(ended, None);
}

#[tokio::test]
async fn where_writes_have_one_order_watches_say_how_far_all_kinds_are() {
    let store = MemoryStore::new();
    let mut watch = store.watch(&[Scope::all(Kind::CiliumEndpoint)]);
    assert_eq!(until_synced(&mut watch).await, []);
    let mut last = None;
    for number in 0..50 {
        let name = format!("progress-{number}");
        let created = store.create(Kind::Node, node(&name)).await.unwrap();
        last = store.position(&created.version);
    }
    loop {
        match next(&mut watch).await {
            Event::Synced { revision } if Some(revision) >= last => break,
            Event::Synced { .. } => {}
            event => panic!("{event:?}"),
        }
    }
}
