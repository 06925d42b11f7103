//! Many agents, one number per label set; and everything that can go wrong between the two objects.

use super::*;
use crate::store::Scope;
use crate::store::embedded;
use crate::store::memory::MemoryStore;
use heddle_model::Source;
use std::collections::BTreeMap;
use tokio::task::JoinSet;

fn labels(app: &str) -> LabelSet {
    let mut labels = LabelSet::new();
    labels.insert(Source::K8s, "app", app);
    labels.insert(Source::K8s, LabelSet::NAMESPACE, "shop");
    labels.insert(Source::Heddle, LabelSet::NAMED_PORTS, "http=TCP/8080");
    labels
}

fn cluster_name(name: impl ToString) -> NamespacedName {
    NamespacedName::new("", name.to_string())
}

#[test]
fn labels_survive_the_object() {
    let labels = labels("web");
    let object = identity_object(Identity(300), &labels);
    assert_eq!(object["security-labels"]["k8s:app"], "web");
    assert_eq!(
        parse_identity(&object),
        Some((Identity(300), labels.clone()))
    );
    assert_eq!(
        parse_claim(&claim_object(Identity(300), &labels)),
        Some(Identity(300))
    );
    let mut foreign = object.clone();
    foreign["security-labels"]["container:x"] = json!("y");
    assert_eq!(parse_identity(&foreign), None);
    foreign["metadata"]["name"] = json!("web");
    assert_eq!(parse_identity(&foreign), None);
    assert_eq!(claim_name(&labels).len(), 64);
    assert_ne!(claim_name(&labels), claim_name(&self::labels("api")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_agree_on_the_embedded_store() {
    let dir = tempfile::TempDir::new().unwrap();
    let socket = dir.path().join("sock");
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let server = tokio::spawn({
        let (dir, socket) = (dir.path().to_owned(), socket.clone());
        async move { embedded::serve(&dir, &socket, stopped).await }
    });
    let probe = embedded::Client::new(&socket);
    let ready = async {
        while probe.list(&Scope::all(Kind::Node)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready)
        .await
        .unwrap();

    // A range so small that different label sets often want the same number.
    let (first, last) = (Identity(256), Identity(279));
    let mut agents = JoinSet::new();
    for agent in 0..16 {
        let socket = socket.clone();
        agents.spawn(async move {
            let store = Arc::new(embedded::Client::new(socket));
            let allocator = IdentityAllocator::with_range(store, first, last);
            let mut found = Vec::new();
            for step in 0..20 {
                let app = format!("app-{}", (step + agent) % 20);
                found.push((app.clone(), allocator.resolve(&labels(&app)).await.unwrap()));
            }
            found
        });
    }
    let mut numbers: BTreeMap<String, BTreeSet<Identity>> = BTreeMap::new();
    for (app, identity) in agents.join_all().await.into_iter().flatten() {
        numbers.entry(app).or_default().insert(identity);
    }
    assert_eq!(numbers.len(), 20);
    assert!(
        numbers.values().all(|numbers| numbers.len() == 1),
        "{numbers:?}"
    );
    let distinct: BTreeSet<_> = numbers.values().flatten().collect();
    assert_eq!(distinct.len(), 20);
    // Nothing was left behind: one identity and one claim per label set.
    assert_eq!(
        probe
            .list(&Scope::all(Kind::CiliumIdentity))
            .await
            .unwrap()
            .len(),
        20
    );
    assert_eq!(
        probe
            .list(&Scope::all(Kind::IdentityClaim))
            .await
            .unwrap()
            .len(),
        20
    );
    for (app, found) in &numbers {
        let object = probe
            .get(Kind::CiliumIdentity, &cluster_name(found.first().unwrap()))
            .await;
        assert_eq!(
            parse_identity(&object.unwrap().value).unwrap().1,
            labels(app)
        );
    }
    stop.send_replace(true);
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn exhaustion_is_clear_and_ends() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let allocator = IdentityAllocator::with_range(Arc::clone(&store), Identity(256), Identity(275));
    for number in 0..20 {
        allocator
            .resolve(&labels(&number.to_string()))
            .await
            .unwrap();
    }
    let full = allocator.resolve(&labels("more")).await.unwrap_err();
    assert_eq!(full.code(), "identity/exhausted");
    let text = full.to_string();
    assert!(
        text.contains("20 of 20") && text.contains("k8s:app=more"),
        "{text}"
    );
    let gone = allocator.resolve(&labels("7")).await.unwrap();
    store
        .delete(Kind::CiliumIdentity, &cluster_name(gone), None)
        .await
        .unwrap();
    assert_eq!(allocator.resolve(&labels("more")).await.unwrap(), gone);
}

#[tokio::test]
async fn reserved_labels_need_no_store() {
    let allocator = IdentityAllocator::new(Arc::new(MemoryStore::new()));
    let host = allocator
        .resolve(&LabelSet::reserved("host"))
        .await
        .unwrap();
    assert_eq!(host, Identity::HOST);
}

#[tokio::test]
async fn what_a_crash_left_is_used() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let wanted = IdentityAllocator::new(Arc::clone(&store))
        .resolve(&labels("web"))
        .await
        .unwrap();
    // Died between the identity and the claim.
    let claim = cluster_name(claim_name(&labels("web")));
    store
        .delete(Kind::IdentityClaim, &claim, None)
        .await
        .unwrap();
    let fresh = || IdentityAllocator::new(Arc::clone(&store));
    assert_eq!(fresh().resolve(&labels("web")).await.unwrap(), wanted);
    assert_eq!(
        store
            .list(&Scope::all(Kind::CiliumIdentity))
            .await
            .unwrap()
            .len(),
        1
    );
    // A claim whose identity is gone, and one whose number went to other labels.
    store
        .delete(Kind::CiliumIdentity, &cluster_name(wanted), None)
        .await
        .unwrap();
    assert_eq!(fresh().resolve(&labels("web")).await.unwrap(), wanted);
    store
        .delete(Kind::CiliumIdentity, &cluster_name(wanted), None)
        .await
        .unwrap();
    store
        .create(
            Kind::CiliumIdentity,
            identity_object(wanted, &labels("api")),
        )
        .await
        .unwrap();
    let moved = fresh().resolve(&labels("web")).await.unwrap();
    assert_ne!(moved, wanted);
    assert_eq!(fresh().resolve(&labels("web")).await.unwrap(), moved);
}

#[tokio::test]
async fn handing_out_removes_the_mark_for_collection() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let allocator = IdentityAllocator::new(Arc::clone(&store));
    let identity = allocator.resolve(&labels("web")).await.unwrap();
    let name = cluster_name(identity);
    let mut value = store.get(Kind::CiliumIdentity, &name).await.unwrap().value;
    value["metadata"]["annotations"] = json!({UNUSED_SINCE: "1"});
    let marked = store.update(Kind::CiliumIdentity, value).await.unwrap();
    // What is remembered needs no look into the store; it is forgotten long before the operator deletes.
    assert_eq!(allocator.resolve(&labels("web")).await.unwrap(), identity);
    allocator.forget(identity);
    assert_eq!(allocator.resolve(&labels("web")).await.unwrap(), identity);
    let late = store
        .delete(Kind::CiliumIdentity, &name, Some(&marked.version))
        .await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
}

#[tokio::test]
async fn a_lost_store_is_said() {
    let dir = tempfile::TempDir::new().unwrap();
    let store = Arc::new(embedded::Client::new(dir.path().join("none")));
    let lost = IdentityAllocator::new(store)
        .resolve(&labels("web"))
        .await
        .unwrap_err();
    assert_eq!(lost.code(), "store/unavailable");
    assert!(lost.to_string().contains("k8s:app=web"), "{lost}");
}
