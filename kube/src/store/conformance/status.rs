//! Status: a subresource where Kubernetes has one, applied by managers that leave each other alone.

use super::{MANAGER, apply, in_shop, metadata, node, pod};
use crate::store::{Kind, Store, StoreError};
use heddle_model::NamespacedName;
use serde_json::{Value, json};

pub(super) async fn status_of_a_subresource_is_ignored_on_create_and_update(store: &dyn Store) {
    for (kind, mut value) in [
        (Kind::Pod, pod("sub", "a")),
        (Kind::Node, node("sub")),
        (
            Kind::CiliumNetworkPolicy,
            json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
                "metadata": {"namespace": "shop", "name": "sub"}, "spec": {},
            }),
        ),
    ] {
        value["status"] = json!({"phase": "Pretended"});
        let created = store.create(kind, value.clone()).await.unwrap();
        assert_eq!(created.value.get("status"), None, "{kind}");
        let updated = store.update(kind, value.clone()).await.unwrap();
        assert_eq!(updated, created, "nothing else changed: {kind}");
        let applied = apply(store, &created, json!({"phase": "Running"})).await;
        value["metadata"]["labels"] = json!({"app": "web"});
        let updated = store.update(kind, value).await.unwrap();
        assert_eq!(updated.value["status"], json!({"phase": "Running"}));
        assert_ne!(updated.version, applied.version);
    }
}

pub(super) async fn status_that_is_a_field_is_written_like_any_other(store: &dyn Store) {
    let endpoint = |number: u64| {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
            "metadata": {"namespace": "shop", "name": "plain"}, "status": {"id": number},
        })
    };
    let kind = Kind::CiliumEndpoint;
    let created = store.create(kind, endpoint(1)).await.unwrap();
    assert_eq!(created.value["status"], json!({"id": 1}));
    let updated = store.update(kind, endpoint(2)).await.unwrap();
    assert_eq!(updated.value["status"], json!({"id": 2}));
    let applied = apply(store, &created, json!({"state": "ready"})).await;
    assert_eq!(applied.value["status"], json!({"id": 2, "state": "ready"}));
    store.delete(kind, &created.name, None).await.unwrap();
}

pub(super) async fn a_manager_s_application_is_all_it_says(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("ssa", "a")).await.unwrap();
    let by = async |manager: &str, status: Value| {
        let applied = store
            .apply_status(Kind::Pod, &created.name, manager, status)
            .await;
        applied.unwrap().value["status"].clone()
    };
    by("a", json!({"x": {"one": 1, "two": 2}, "list": [1, 2]})).await;
    let both = by("b", json!({"x": {"three": 3}, "y": 1})).await;
    assert_eq!(
        both,
        json!({"x": {"one": 1, "two": 2, "three": 3}, "list": [1, 2], "y": 1})
    );
    // What it says no more goes; what another says stays, and is not touched by it.
    let fewer = by("a", json!({"x": {"two": 4}})).await;
    assert_eq!(fewer, json!({"x": {"two": 4, "three": 3}, "y": 1}));
    // By force: the last word counts, and its owner alone can take it back.
    assert_eq!(
        by("b", json!({"x": {"two": 5}})).await,
        json!({"x": {"two": 5}})
    );
    assert_eq!(by("a", json!({})).await, json!({"x": {"two": 5}}));
}

pub(super) async fn conditions_are_merged_by_type(store: &dyn Store) {
    let name = NamespacedName::new("", "conditions");
    store.create(Kind::Node, node("conditions")).await.unwrap();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    let by = async |manager: &str, conditions: Value| {
        let status = json!({"conditions": conditions});
        let applied = store.apply_status(Kind::Node, &name, manager, status).await;
        let conditions = applied.unwrap().value["status"]["conditions"].clone();
        let mut conditions = conditions.as_array().cloned().unwrap_or_default();
        conditions.sort_by_key(|condition| condition["type"].to_string());
        conditions
    };
    by("kubelet", json!([condition("Ready", "False")])).await;
    by("operator", json!([condition("Addressed", "True")])).await;
    assert_eq!(
        by("kubelet", json!([condition("Ready", "True")])).await,
        [condition("Addressed", "True"), condition("Ready", "True")]
    );
    // One manager's silence takes away its own condition only.
    assert_eq!(
        by("operator", json!([condition("Fenced", "True")])).await,
        [condition("Fenced", "True"), condition("Ready", "True")]
    );
    assert_eq!(
        by("operator", json!([])).await,
        [condition("Ready", "True")]
    );
}

pub(super) async fn applications_that_change_nothing_keep_the_version(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("same", "a")).await.unwrap();
    let status = json!({"a": {"b": 1}, "conditions": [{"type": "A", "status": "True"}]});
    let first = apply(store, &created, status.clone()).await;
    assert_ne!(first.version, created.version);
    assert_eq!(apply(store, &created, status).await, first);
}

pub(super) async fn applications_are_no_change_of_generation(store: &dyn Store) {
    let created = store.create(Kind::Pod, pod("gen", "a")).await.unwrap();
    let applied = apply(store, &created, json!({"phase": "Running"})).await;
    assert_eq!(metadata(&applied, "generation"), 1);
    assert_eq!(applied.value["metadata"].get("managedFields"), None);
    let updated = store.update(Kind::Pod, pod("gen", "b")).await.unwrap();
    assert_eq!(metadata(&updated, "generation"), 2);
}

pub(super) async fn bad_applications_are_refused(store: &dyn Store) {
    store.create(Kind::Pod, pod("wrong", "a")).await.unwrap();
    let by = async |name: &str, status: Value| {
        store
            .apply_status(Kind::Pod, &in_shop(name), MANAGER, status)
            .await
    };
    assert!(matches!(
        by("wrong", json!([1])).await,
        Err(StoreError::Invalid { .. })
    ));
    assert!(matches!(
        by("none", json!({})).await,
        Err(StoreError::NotFound { .. })
    ));
}
