//! What every store promises, run against each of them.

use super::memory::MemoryStore;
use super::{Event, Kind, Object, Store, StoreError, Watch};
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

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

pub(crate) fn in_shop(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

pub(crate) async fn next(watch: &mut Watch) -> Event {
    tokio::time::timeout(DEADLINE, watch.recv())
        .await
        .expect("an event in time")
        .expect("the watch goes on")
}

/// Everything said until a revision is synced that is at least `revision`.
pub(crate) async fn until_synced(watch: &mut Watch, revision: u64) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        match next(watch).await {
            Event::Synced { revision: synced } if synced >= revision => return events,
            Event::Synced { .. } => {}
            event => events.push(event),
        }
    }
}

fn metadata<'a>(object: &'a Object, field: &str) -> &'a Value {
    &object.value["metadata"][field]
}

/// The whole suite, on a store that nobody else writes.
pub(crate) async fn run(store: Arc<dyn Store>) {
    creates_set_metadata(&*store).await;
    updates_are_optimistic_and_keep_status(&*store).await;
    status_is_merged(&*store).await;
    deletes_have_preconditions(&*store).await;
    lists_are_ordered(&*store).await;
    bad_objects_are_refused(&*store).await;
    one_creator_wins(&store).await;
    one_updater_of_a_revision_wins(&store).await;
    watches_tell_everything_in_order(&*store).await;
    watches_report_progress_of_other_kinds(&*store).await;
    slow_watchers_start_over(&*store).await;
}

async fn creates_set_metadata(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("meta", "a")).await.unwrap();
    assert_eq!(created.name, in_shop("meta"));
    assert_eq!(
        metadata(&created, "resourceVersion"),
        &json!(created.revision.to_string())
    );
    assert_eq!(metadata(&created, "generation"), 1);
    assert_eq!(metadata(&created, "uid").as_str().unwrap().len(), 36);
    assert!(
        metadata(&created, "creationTimestamp")
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(store.get(Kind::Pod, &created.name).await.unwrap(), created);
    assert!(matches!(
        store.create(Kind::Pod, pod("meta", "b")).await,
        Err(StoreError::AlreadyExists { .. })
    ));
    assert!(matches!(
        store.get(Kind::Pod, &in_shop("none")).await,
        Err(StoreError::NotFound { .. })
    ));
    // Cluster-scoped kinds and namespaced ones of the same name do not meet.
    store.create(Kind::Node, node("meta")).await.unwrap();
}

async fn updates_are_optimistic_and_keep_status(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("upd", "a")).await.unwrap();
    let with_status = store
        .patch_status(Kind::Pod, &created.name, json!({"phase": "Running"}))
        .await
        .unwrap();
    assert!(with_status.revision > created.revision);
    assert_eq!(metadata(&with_status, "generation"), 1);

    let mut stale = pod("upd", "b");
    stale["metadata"]["resourceVersion"] = json!(created.revision.to_string());
    let refused = store.update(Kind::Pod, stale).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { have, stored, .. })
            if have == created.revision && stored == with_status.revision),
        "{refused:?}"
    );

    let mut fresh = pod("upd", "b");
    fresh["status"] = json!({"phase": "Pretended"});
    fresh["metadata"]["resourceVersion"] = json!(with_status.revision.to_string());
    let updated = store.update(Kind::Pod, fresh).await.unwrap();
    assert_eq!(updated.value["status"], json!({"phase": "Running"}));
    assert_eq!(metadata(&updated, "generation"), 2);
    assert_eq!(metadata(&updated, "uid"), metadata(&created, "uid"));
    assert_eq!(
        metadata(&updated, "creationTimestamp"),
        metadata(&created, "creationTimestamp")
    );

    // The same again, with and without the server's fields: no new revision.
    let again = store.update(Kind::Pod, pod("upd", "b")).await.unwrap();
    assert_eq!(again, updated);
    let again = store
        .update(Kind::Pod, updated.value.clone())
        .await
        .unwrap();
    assert_eq!(again, updated);

    // Labels are a change, but not one of generation.
    let mut labelled = pod("upd", "b");
    labelled["metadata"]["labels"] = json!({"app": "web"});
    let labelled = store.update(Kind::Pod, labelled).await.unwrap();
    assert!(labelled.revision > updated.revision);
    assert_eq!(metadata(&labelled, "generation"), 2);

    let mut other_uid = pod("upd", "c");
    other_uid["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000000");
    assert!(matches!(
        store.update(Kind::Pod, other_uid).await,
        Err(StoreError::Conflict { .. })
    ));
    assert!(matches!(
        store.update(Kind::Pod, pod("missing", "a")).await,
        Err(StoreError::NotFound { .. })
    ));
}

async fn status_is_merged(store: &dyn Store) {
    let name = in_shop("sta");
    store.create(Kind::Pod, pod("sta", "a")).await.unwrap();
    let patch = async |status: Value| store.patch_status(Kind::Pod, &name, status).await;
    patch(json!({"a": {"b": 1, "c": 2}})).await.unwrap();
    let merged = patch(json!({"a": {"b": null, "d": 3}})).await.unwrap();
    assert_eq!(merged.value["status"], json!({"a": {"c": 2, "d": 3}}));
    assert_eq!(patch(json!({"a": {"c": 2}})).await.unwrap(), merged);
    assert!(matches!(
        patch(json!([1])).await,
        Err(StoreError::Invalid { .. })
    ));
    assert!(matches!(
        store
            .patch_status(Kind::Pod, &in_shop("none"), json!({}))
            .await,
        Err(StoreError::NotFound { .. })
    ));
}

async fn deletes_have_preconditions(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("del", "a")).await.unwrap();
    let changed = store
        .patch_status(Kind::Pod, &created.name, json!({"x": 1}))
        .await
        .unwrap();
    assert!(matches!(
        store
            .delete(Kind::Pod, &created.name, Some(created.revision))
            .await,
        Err(StoreError::Conflict { .. })
    ));
    store
        .delete(Kind::Pod, &created.name, Some(changed.revision))
        .await
        .unwrap();
    assert!(matches!(
        store.delete(Kind::Pod, &created.name, None).await,
        Err(StoreError::NotFound { .. })
    ));
    let again = store.create(Kind::Pod, pod("del", "a")).await.unwrap();
    assert!(again.revision > changed.revision);
    assert_ne!(metadata(&again, "uid"), metadata(&created, "uid"));
}

async fn lists_are_ordered(store: &dyn Store) {
    for (namespace, name) in [("l2", "a"), ("l1", "b"), ("l1", "a"), ("l10", "a")] {
        let mut value = pod(name, "a");
        value["metadata"]["namespace"] = json!(namespace);
        store.create(Kind::Pod, value).await.unwrap();
    }
    let names = |objects: Vec<Object>| -> Vec<String> {
        objects
            .iter()
            .map(|object| object.name.to_string())
            .collect()
    };
    assert_eq!(
        names(store.list(Kind::Pod, Some("l1")).await.unwrap()),
        ["l1/a", "l1/b"]
    );
    let all = names(store.list(Kind::Pod, None).await.unwrap());
    let of_test: Vec<_> = all.iter().filter(|name| name.starts_with('l')).collect();
    assert_eq!(of_test, ["l1/a", "l1/b", "l10/a", "l2/a"]);
    assert_eq!(
        names(store.list(Kind::Deployment, None).await.unwrap()),
        [""; 0]
    );
}

async fn bad_objects_are_refused(store: &dyn Store) {
    let change = |path: &str, to: Value| {
        let mut value = pod("bad", "a");
        *value.pointer_mut(path).expect("a field to change") = to;
        value
    };
    let mut with_labels = pod("bad", "a");
    with_labels["metadata"]["labels"] = json!({"tier": 1});
    let cases = [
        (change("/kind", json!("Node")), "kind"),
        (change("/apiVersion", json!("v2")), "apiVersion"),
        (change("/metadata", Value::Null), "metadata"),
        (change("/metadata/name", json!("")), "metadata.name"),
        (change("/metadata/name", json!("Upper")), "metadata.name"),
        (change("/metadata/name", json!("a/b")), "metadata.name"),
        (change("/metadata/name", json!("-a")), "metadata.name"),
        (change("/metadata/name", json!("a..b")), "metadata.name"),
        (
            change("/metadata/name", json!("a".repeat(254))),
            "metadata.name",
        ),
        (change("/metadata/name", json!(7)), "metadata.name"),
        (
            change("/metadata/namespace", json!("")),
            "metadata.namespace",
        ),
        (
            change("/metadata/namespace", json!("a.b")),
            "metadata.namespace",
        ),
        (with_labels, "metadata.labels.tier"),
        (json!("text"), "(the whole object)"),
    ];
    for (value, wanted) in cases {
        for refused in [
            store.create(Kind::Pod, value.clone()).await,
            store.update(Kind::Pod, value.clone()).await,
        ] {
            assert!(
                matches!(&refused, Err(StoreError::Invalid { field, .. }) if field == wanted),
                "{value}: {refused:?}"
            );
        }
    }
    let mut placed = node("bad");
    placed["metadata"]["namespace"] = json!("shop");
    assert!(matches!(
        store.create(Kind::Node, placed).await,
        Err(StoreError::Invalid { field, .. }) if field == "metadata.namespace"
    ));
    store
        .create(Kind::Pod, pod("sub.domain-1", "a"))
        .await
        .unwrap();
    let mut wrong_revision = pod("sub.domain-1", "b");
    wrong_revision["metadata"]["resourceVersion"] = json!("new");
    assert!(matches!(
        store.update(Kind::Pod, wrong_revision).await,
        Err(StoreError::Invalid { field, .. }) if field == "metadata.resourceVersion"
    ));
    // More than an object may have, and more than a request may have.
    for megabytes in [5, 9] {
        let large = pod("large", &"x".repeat(megabytes << 20));
        let refused = store.create(Kind::Pod, large).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid { .. })),
            "{refused:?}"
        );
    }
}

async fn one_creator_wins(store: &Arc<dyn Store>) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            store
                .create(Kind::Pod, pod("race", &number.to_string()))
                .await
        });
    }
    let outcomes = tasks.join_all().await;
    let winners: Vec<_> = outcomes.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    for outcome in &outcomes {
        assert!(matches!(
            outcome,
            Ok(_) | Err(StoreError::AlreadyExists { .. })
        ));
    }
    assert_eq!(
        &store.get(Kind::Pod, &in_shop("race")).await.unwrap(),
        winners[0]
    );
}

async fn one_updater_of_a_revision_wins(store: &Arc<dyn Store>) {
    let read = store.create(Kind::Node, node("turn")).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        let store = Arc::clone(store);
        let mut value = read.value.clone();
        value["spec"] = json!({"podCIDRs": [format!("10.0.{number}.0/24")]});
        tasks.spawn(async move { store.update(Kind::Node, value).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().flatten().count(), 1, "{outcomes:?}");
    for outcome in &outcomes {
        assert!(matches!(outcome, Ok(_) | Err(StoreError::Conflict { .. })));
    }
}

async fn watches_tell_everything_in_order(store: &dyn Store) {
    let before = store
        .create(Kind::CiliumIdentity, identity("300"))
        .await
        .unwrap();
    let mut watch = store.watch(&[
        Kind::CiliumIdentity,
        Kind::CiliumEndpoint,
        Kind::CiliumIdentity,
    ]);
    assert_eq!(next(&mut watch).await, Event::Applied(before.clone()));
    assert!(
        matches!(next(&mut watch).await, Event::Synced { revision } if revision >= before.revision)
    );
    let created = store
        .create(Kind::CiliumIdentity, identity("301"))
        .await
        .unwrap();
    let patched = store
        .patch_status(Kind::CiliumIdentity, &before.name, json!({"x": 1}))
        .await
        .unwrap();
    store
        .delete(Kind::CiliumIdentity, &before.name, None)
        .await
        .unwrap();
    let events = until_synced(&mut watch, patched.revision + 1).await;
    assert_eq!(events.len(), 3, "{events:?}");
    assert_eq!(events[0], Event::Applied(created));
    assert_eq!(events[1], Event::Applied(patched.clone()));
    let Event::Deleted(last) = &events[2] else {
        panic!("{events:?}")
    };
    assert_eq!(last.value["status"], json!({"x": 1}));
    assert_eq!(last.revision, patched.revision + 1);
}

async fn watches_report_progress_of_other_kinds(store: &dyn Store) {
    let mut watch = store.watch(&[Kind::CiliumEndpoint]);
    until_synced(&mut watch, 0).await;
    let mut last = 0;
    for number in 0..50 {
        let name = format!("progress-{number}");
        last = store
            .create(Kind::Node, node(&name))
            .await
            .unwrap()
            .revision;
    }
    assert_eq!(until_synced(&mut watch, last).await, []);
}

async fn slow_watchers_start_over(store: &dyn Store) {
    let mut watch = store.watch(&[Kind::CiliumEndpoint]);
    until_synced(&mut watch, 0).await;
    let name = NamespacedName::new("shop", "busy");
    let endpoint = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": {"namespace": "shop", "name": "busy"},
    });
    store.create(Kind::CiliumEndpoint, endpoint).await.unwrap();
    // More than every queue and socket buffer on the way can hold.
    let padding = "x".repeat(2_000);
    let mut last = 0;
    for number in 0..4_000 {
        let status = json!({"number": number, "padding": padding});
        last = store
            .patch_status(Kind::CiliumEndpoint, &name, status)
            .await
            .unwrap()
            .revision;
    }
    let events = until_synced(&mut watch, last).await;
    assert!(
        events.contains(&Event::Restarted),
        "{} events",
        events.len()
    );
    let Some(Event::Applied(newest)) = events.last() else {
        panic!("{} events", events.len())
    };
    assert_eq!(newest.revision, last);
    store
        .delete(Kind::CiliumEndpoint, &name, None)
        .await
        .unwrap();
}

pub(crate) fn identity(name: &str) -> Value {
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumIdentity",
        "metadata": {"name": name}, "security-labels": {"k8s:app": "web"},
    })
}

#[tokio::test]
async fn memory_store() {
    run(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_memory_store_s_watches_end_with_it() {
    let store = MemoryStore::new();
    let mut watch = store.watch(&[Kind::Pod]);
    assert!(matches!(next(&mut watch).await, Event::Synced { .. }));
    drop(store);
    let ended = tokio::time::timeout(DEADLINE, watch.recv()).await.unwrap();
    assert_eq!(ended, None);
}
