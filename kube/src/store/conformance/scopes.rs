//! Lists and watches of some objects: by namespace, name, node, labels; whole or metadata only.

use super::{apply, next, pod, until_said, until_synced};
use crate::store::{Event, Kind, Object, Scope, Store};
use heddle_model::{Operator, Requirement, Selector};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A pod of a namespace, placed and labelled.
fn placed(namespace: &str, name: &str, node: &str, app: &str) -> Value {
    let mut value = pod(name, "a");
    value["metadata"]["namespace"] = json!(namespace);
    value["metadata"]["labels"] = json!({"app": app});
    value["spec"]["nodeName"] = json!(node);
    value
}

fn selector(key: &str, operator: Operator, values: &[&str]) -> Selector {
    let requirement = Requirement {
        key: key.into(),
        operator,
        values: values.iter().map(ToString::to_string).collect(),
    };
    Selector::new(BTreeMap::new(), vec![requirement]).unwrap()
}

fn names(objects: &[Object]) -> Vec<String> {
    let names = objects.iter().map(|object| object.name.to_string());
    names.collect()
}

pub(super) async fn lists_have_scopes(store: &dyn Store) {
    for (namespace, name, node, app) in [
        ("scope-1", "a", "n1", "web"),
        ("scope-1", "b", "n2", "db"),
        ("scope-2", "a", "n2", "web"),
    ] {
        let value = placed(namespace, name, node, app);
        store.create(Kind::Pod, value).await.unwrap();
    }
    let one = Scope::all(Kind::Pod).in_namespace("scope-1");
    let list = async |scope: Scope| names(&store.list(&scope).await.unwrap());
    assert_eq!(list(one.clone()).await, ["scope-1/a", "scope-1/b"]);
    assert_eq!(list(one.clone().named("b")).await, ["scope-1/b"]);
    assert_eq!(list(one.clone().on_node("n1")).await, ["scope-1/a"]);
    let app = |operator, values: &[&str]| selector("app", operator, values);
    let on_n2 = Scope::all(Kind::Pod).on_node("n2");
    for (selector, expected) in [
        (app(Operator::In, &["web"]), vec!["scope-2/a"]),
        (app(Operator::NotIn, &["web", "x"]), vec!["scope-1/b"]),
        (app(Operator::Exists, &[]), vec!["scope-1/b", "scope-2/a"]),
        (app(Operator::DoesNotExist, &[]), vec![]),
    ] {
        assert_eq!(list(on_n2.clone().labelled(&selector)).await, expected);
    }
}

pub(super) async fn metadata_only_leaves_the_rest_out(store: &dyn Store) {
    let value = placed("scope-3", "a", "n1", "web");
    let created = store.create(Kind::Pod, value).await.unwrap();
    let scope = Scope::all(Kind::Pod)
        .in_namespace("scope-3")
        .on_node("n1")
        .metadata_only();
    let mut expected = created.clone();
    let fields = expected.value.as_object_mut().unwrap();
    fields.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata"));
    let listed = store.list(&scope).await.unwrap();
    assert_eq!(listed, [expected.clone()]);
    let mut watch = store.watch(&[scope]);
    assert_eq!(next(&mut watch).await, Event::Applied(expected));
}

pub(super) async fn watches_hear_of_nothing_out_of_scope(store: &dyn Store) {
    let scope = Scope::all(Kind::Pod).in_namespace("scope-4").on_node("n1");
    let mut watch = store.watch(&[scope]);
    assert_eq!(until_synced(&mut watch).await, []);
    for (namespace, name, node) in [
        ("scope-4", "other-node", "n2"),
        ("scope-5", "other-namespace", "n1"),
    ] {
        let value = placed(namespace, name, node, "web");
        store.create(Kind::Pod, value).await.unwrap();
    }
    let value = placed("scope-4", "in", "n1", "web");
    let created = store.create(Kind::Pod, value).await.unwrap();
    assert_eq!(
        until_said(&mut watch, &created).await,
        [Event::Applied(created)]
    );
}

pub(super) async fn what_leaves_a_scope_is_deleted_from_it(store: &dyn Store) {
    let web = selector("app", Operator::In, &["web"]);
    let scope = Scope::all(Kind::Pod).in_namespace("scope-6").labelled(&web);
    let mut watch = store.watch(&[scope]);
    until_synced(&mut watch).await;
    let with = async |app: &str| {
        let value = placed("scope-6", "moves", "n1", app);
        store.update(Kind::Pod, value).await.unwrap()
    };
    let value = placed("scope-6", "moves", "n1", "db");
    let outside = store.create(Kind::Pod, value).await.unwrap();
    let came = with("web").await;
    assert_eq!(until_said(&mut watch, &came).await, [Event::Applied(came)]);
    let left = with("db").await;
    let events = until_said(&mut watch, &left).await;
    let [Event::Deleted(last)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(last.value["metadata"]["labels"]["app"], "web");
    // What changes and goes outside is nothing to this watch.
    let changed = apply(store, &outside, json!({"phase": "Running"})).await;
    assert_ne!(changed.version, left.version);
    let back = with("web").await;
    assert_eq!(until_said(&mut watch, &back).await, [Event::Applied(back)]);
}

pub(super) async fn scopes_of_one_watch_add_up(store: &dyn Store) {
    let value = placed("scope-7", "a", "n1", "web");
    let a = store.create(Kind::Pod, value).await.unwrap();
    let value = placed("scope-7", "b", "n2", "web");
    let b = store.create(Kind::Pod, value).await.unwrap();
    let pods = || Scope::all(Kind::Pod).in_namespace("scope-7");
    let mut watch = store.watch(&[
        pods().metadata_only(),
        pods().on_node("n1"),
        pods().on_node("n1"),
        Scope::all(Kind::Lease).named("nobody"),
    ]);
    let events = until_synced(&mut watch).await;
    let said: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Applied(object) => (&object.name, object.value.get("spec").is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    // One event for each object: whole where one scope wants it whole.
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.contains(&(&a.name, true)) && said.contains(&(&b.name, false)));
}
