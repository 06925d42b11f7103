//! Creating, reading, updating, deleting.

use super::{apply, in_shop, metadata, node, pod};
use crate::store::{Kind, Object, Scope, Store, StoreError};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn creates_set_metadata(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("meta", "a")).await.unwrap();
    assert_eq!(created.name, in_shop("meta"));
    assert_eq!(
        metadata(&created, "resourceVersion"),
        &json!(created.version)
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

pub(super) async fn updates_are_optimistic(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("upd", "a")).await.unwrap();
    let with_status = apply(store, &created, json!({"phase": "Running"})).await;
    assert_ne!(with_status.version, created.version);
    assert_eq!(metadata(&with_status, "generation"), 1);

    let mut stale = pod("upd", "b");
    stale["metadata"]["resourceVersion"] = json!(created.version);
    let refused = store.update(Kind::Pod, stale).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { .. })),
        "{refused:?}"
    );

    let mut fresh = pod("upd", "b");
    fresh["status"] = json!({"phase": "Pretended"});
    fresh["metadata"]["resourceVersion"] = json!(with_status.version);
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
    assert_ne!(labelled.version, updated.version);
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

pub(super) async fn deletes_have_preconditions(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("del", "a")).await.unwrap();
    let changed = apply(store, &created, json!({"x": 1})).await;
    assert!(matches!(
        store
            .delete(Kind::Pod, &created.name, Some(&created.version))
            .await,
        Err(StoreError::Conflict { .. })
    ));
    store
        .delete(Kind::Pod, &created.name, Some(&changed.version))
        .await
        .unwrap();
    assert!(matches!(
        store.delete(Kind::Pod, &created.name, None).await,
        Err(StoreError::NotFound { .. })
    ));
    let again = store.create(Kind::Pod, pod("del", "a")).await.unwrap();
    assert_ne!(again.version, changed.version);
    assert_ne!(metadata(&again, "uid"), metadata(&created, "uid"));
}

pub(super) async fn lists_are_ordered(store: &dyn Store) {
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
        names(
            store
                .list(&Scope::all(Kind::Pod).in_namespace("l1"))
                .await
                .unwrap()
        ),
        ["l1/a", "l1/b"]
    );
    let all = names(store.list(&Scope::all(Kind::Pod)).await.unwrap());
    let of_test: Vec<_> = all.iter().filter(|name| name.starts_with('l')).collect();
    assert_eq!(of_test, ["l1/a", "l1/b", "l10/a", "l2/a"]);
    assert_eq!(
        names(store.list(&Scope::all(Kind::Deployment)).await.unwrap()),
        [""; 0]
    );
}

pub(super) async fn bad_objects_are_refused(store: &dyn Store) {
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

pub(super) async fn one_creator_wins(store: &Arc<dyn Store>) {
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

pub(super) async fn one_updater_of_a_version_wins(store: &Arc<dyn Store>) {
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

pub(super) async fn versions_are_opaque(store: &dyn Store) {
    // What no store ever wrote is another version, not a malformed one; where there is an order, it is asked for.
    let created = store.create(Kind::Pod, pod("opaque", "a")).await.unwrap();
    for text in ["new", "18446744073709551616", "0"] {
        let mut value = pod("opaque", "b");
        value["metadata"]["resourceVersion"] = json!(text);
        assert!(matches!(
            store.update(Kind::Pod, value).await,
            Err(StoreError::Conflict { .. })
        ));
    }
    let updated = store.update(Kind::Pod, pod("opaque", "b")).await.unwrap();
    assert_ne!(updated.version, created.version);
    let (before, after) = (
        store.position(&created.version),
        store.position(&updated.version),
    );
    assert!(before.is_none() && after.is_none() || before < after);
}
