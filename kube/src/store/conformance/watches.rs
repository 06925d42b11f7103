//! Watches: everything, in order, and again from the beginning where something was missed.

use super::{MANAGER, apply, identity, next, until_said, until_synced};
use crate::store::{Event, Kind, Scope, Store};
use heddle_model::NamespacedName;
use serde_json::json;

pub(super) async fn watches_tell_everything_in_order(store: &dyn Store) {
    let before = store
        .create(Kind::CiliumIdentity, identity("300"))
        .await
        .unwrap();
    let kinds = [
        Kind::CiliumIdentity,
        Kind::CiliumEndpoint,
        Kind::CiliumIdentity,
    ];
    let mut watch = store.watch(&Scope::each(&kinds));
    assert_eq!(next(&mut watch).await, Event::Applied(before.clone()));
    assert!(matches!(next(&mut watch).await, Event::Synced { .. }));
    let created = store
        .create(Kind::CiliumIdentity, identity("301"))
        .await
        .unwrap();
    let applied = apply(store, &before, json!({"x": 1})).await;
    store
        .delete(Kind::CiliumIdentity, &before.name, None)
        .await
        .unwrap();
    let end = store
        .create(Kind::CiliumIdentity, identity("302"))
        .await
        .unwrap();
    let events = until_said(&mut watch, &end).await;
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(events[0], Event::Applied(created));
    assert_eq!(events[1], Event::Applied(applied.clone()));
    let Event::Deleted(last) = &events[2] else {
        panic!("{events:?}")
    };
    assert_eq!(last.value["status"], json!({"x": 1}));
    assert_ne!(last.version, applied.version);
}

pub(super) async fn synced_never_goes_back(store: &dyn Store) {
    let scope = Scope::all(Kind::CiliumIdentity).named("310");
    let mut watch = store.watch(&[scope]);
    let mut last = 0;
    let mut object = store
        .create(Kind::CiliumIdentity, identity("310"))
        .await
        .unwrap();
    let mut heard = 0;
    while heard < 10 {
        match next(&mut watch).await {
            Event::Synced { revision } => {
                assert!(revision >= last, "{revision} after {last}");
                last = revision;
            }
            Event::Applied(said) if said.version == object.version => {
                heard += 1;
                object = apply(store, &object, json!({ "number": heard })).await;
            }
            event => panic!("{event:?}"),
        }
    }
}

pub(super) async fn slow_watchers_start_over(store: &dyn Store) {
    let mut watch = store.watch(&[Scope::all(Kind::CiliumEndpoint)]);
    assert_eq!(until_synced(&mut watch).await, []);
    let name = NamespacedName::new("shop", "busy");
    let endpoint = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint",
        "metadata": {"namespace": "shop", "name": "busy"},
    });
    store.create(Kind::CiliumEndpoint, endpoint).await.unwrap();
    // More than every queue and socket buffer on the way can hold.
    let padding = "x".repeat(8_000);
    let write = async |number: usize| {
        let status = json!({"number": number, "padding": padding});
        store
            .apply_status(Kind::CiliumEndpoint, &name, MANAGER, status)
            .await
            .unwrap()
    };
    for chunk in 0..32 {
        // Side by side, so that they share waits for a disk.
        futures_util::future::join_all((0..64).map(|number| write(chunk * 64 + number))).await;
    }
    let newest = write(usize::MAX).await;
    let events = until_said(&mut watch, &newest).await;
    assert!(
        events.contains(&Event::Restarted),
        "{} events",
        events.len()
    );
    assert_eq!(events.last(), Some(&Event::Applied(newest)));
    until_synced(&mut watch).await;
    store
        .delete(Kind::CiliumEndpoint, &name, None)
        .await
        .unwrap();
}
