//! Policies' status: valid or not, and on how many nodes and endpoints in force.

use super::*;
use heddle_kube::objects::{Condition, NodePolicyReport, OpenEndpoints};
use heddle_kube::policy::ObservedPolicies;
use std::collections::BTreeMap;

const KEY: &str = "NetworkPolicy/shop/p";
const KIND: Kind = Kind::NetworkPolicy;

fn name() -> NamespacedName {
    NamespacedName::new("shop", "p")
}

fn policy(ports: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "shop", "name": "p"},
        "spec": {"podSelector": {}, "ingress": [{"ports": ports}]},
    })
}

/// Says what a node has in force: everything that the store has now.
async fn report(store: &dyn Store, node: &str, more: NodePolicyReport) {
    let mut observed = ObservedPolicies::default();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_policy()) {
        for object in store.list(&Scope::all(kind)).await.unwrap() {
            observed.set(kind, &object.name, &object.value);
        }
    }
    let status = json!(NodePolicyReport {
        observed: observed.digests(),
        ..more
    });
    let kind = Kind::NodePolicyReport;
    let object = json!({
        "apiVersion": "heddle.dev/v1", "kind": "NodePolicyReport", "metadata": {"name": node},
    });
    let _ = store.create(kind, object).await;
    let name = cluster_name(node);
    let applied = store.apply_status(kind, &name, "heddle-agent", status);
    applied.await.unwrap();
}

fn about(endpoints: u64) -> NodePolicyReport {
    NodePolicyReport {
        endpoints: BTreeMap::from([(KEY.to_owned(), endpoints)]),
        ..NodePolicyReport::default()
    }
}

async fn told(store: &dyn Store, kind: &str, wanted: impl Fn(&Condition) -> bool) -> Condition {
    wait(async || {
        let object = store.get(KIND, &name()).await.unwrap();
        let generation = object.value["metadata"]["generation"].as_u64();
        condition_in(&object.value, kind)
            .filter(|condition| condition.observed_generation == generation)
            .filter(|condition| wanted(condition))
    })
    .await
}

async fn enforced(store: &dyn Store, message: &str) -> Condition {
    told(store, "Enforced", |condition| condition.message == message).await
}

async fn with_nodes(names: &[&str]) -> MemoryStore {
    let store = MemoryStore::new();
    for name in names {
        store.create(Kind::Node, node(name, &[])).await.unwrap();
    }
    store
}

fn start(store: &MemoryStore) -> Operator {
    Operator::start(config("10.0.0.0/16", 24), Arc::new(store.clone()))
}

#[tokio::test]
async fn policies_say_on_how_many_nodes_and_endpoints_they_are_in_force() {
    let store = with_nodes(&["n1", "n2"]).await;
    let created = store
        .create(KIND, policy(&json!([{"port": 80}])))
        .await
        .unwrap();
    let operator = start(&store);
    let shows = async |nodes: u64, endpoints: u64, since: &Object| {
        wait(async || {
            let object = store.get(KIND, &name()).await.unwrap();
            let told = &object.value["status"]["enforcement"];
            let generation = &object.value["metadata"]["generation"];
            (told["nodes"] == nodes
                && told["ofNodes"] == 2
                && told["endpoints"] == endpoints
                && told["revision"].as_u64() >= store.position(&since.version)
                && told["observedGeneration"] == *generation)
                .then(|| told["revision"].clone())
        })
        .await
    };
    shows(0, 0, &created).await;
    report(&store, "n1", about(3)).await;
    report(&store, "n2", about(2)).await;
    // Of a node that is gone nothing counts.
    report(&store, "n3", about(7)).await;
    shows(2, 5, &created).await;
    // A new generation is in force where it is reported; the status' own writes are none.
    let updated = store
        .update(KIND, policy(&json!([{"port": 81}])))
        .await
        .unwrap();
    shows(0, 5, &updated).await;
    report(&store, "n1", NodePolicyReport::default()).await;
    let before = shows(1, 2, &updated).await;
    // Another operator goes on where this one was; what holds a node back is named.
    operator.stop().await;
    let traffic = "the SSH session from 192.0.2.7".to_owned();
    let lock_outs = BTreeMap::from([(KEY.to_owned(), vec![traffic.clone()])]);
    report(
        &store,
        "n2",
        NodePolicyReport {
            lock_outs,
            ..about(2)
        },
    )
    .await;
    let operator = start(&store);
    let held_back = json!([{"node": "n2", "traffic": [traffic]}]);
    wait(async || {
        let object = store.get(KIND, &name()).await.unwrap();
        (object.value["status"]["enforcement"]["lockOuts"] == held_back).then_some(())
    })
    .await;
    assert_eq!(shows(1, 2, &updated).await, before);
    let held = told(&store, "Enforced", |one| one.reason == "LockOut").await;
    assert_eq!(held.status, ConditionStatus::False);
    assert!(held.message.contains("n2 holds it back") && held.message.contains("SSH"));
    operator.stop().await;
}

#[tokio::test]
async fn a_policy_in_force_on_one_of_two_nodes_never_reads_as_enforced() {
    let store = with_nodes(&["n1", "n2"]).await;
    store
        .create(KIND, policy(&json!([{"port": 80}])))
        .await
        .unwrap();
    let operator = start(&store);
    enforced(&store, "enforced on 0 of 2 nodes; not heard from: n1, n2").await;
    report(&store, "n1", about(1)).await;
    let partly = enforced(&store, "enforced on 1 of 2 nodes; not heard from: n2").await;
    assert_eq!(partly.status, ConditionStatus::Unknown);
    let valid = told(&store, "Valid", |_| true).await;
    assert_eq!(
        (valid.status, valid.reason.as_str()),
        (ConditionStatus::True, "Accepted")
    );
    assert!(!valid.message.contains("enforced"), "{}", valid.message);
    report(&store, "n2", about(0)).await;
    let whole = enforced(&store, "enforced on 2 of 2 nodes").await;
    assert_eq!(whole.status, ConditionStatus::True);
    // Another policy's change is none of this one's, and a node behind it is as good as unheard.
    store
        .update(KIND, policy(&json!([{"port": 81}])))
        .await
        .unwrap();
    enforced(&store, "enforced on 0 of 2 nodes; not heard from: n1, n2").await;
    let mut other = policy(&json!([{"port": 80}]));
    other["metadata"]["name"] = json!("other");
    report(&store, "n1", about(1)).await;
    store.create(KIND, other).await.unwrap();
    enforced(&store, "enforced on 1 of 2 nodes; not heard from: n2").await;
    // What does not fit somewhere is not enforced.
    let reason = "endpoint 3 (shop/web): more entries than a policy map has".to_owned();
    let not_in_force = BTreeMap::from([(KEY.to_owned(), reason)]);
    report(
        &store,
        "n2",
        NodePolicyReport {
            not_in_force,
            ..about(1)
        },
    )
    .await;
    let part = told(&store, "Enforced", |one| one.reason == "DoesNotFit").await;
    assert_eq!(part.status, ConditionStatus::False);
    assert!(
        part.message
            .starts_with("enforced on 1 of 2 nodes; n2: endpoint 3")
    );
    operator.stop().await;
}

#[tokio::test]
async fn what_is_refused_says_why_and_which_pods_are_open() {
    let store = with_nodes(&["n1", "n2"]).await;
    store
        .create(KIND, policy(&json!([{"port": "not a name!"}])))
        .await
        .unwrap();
    let operator = start(&store);
    let valid = told(&store, "Valid", |one| one.status == ConditionStatus::False).await;
    assert!(valid.reason.starts_with("Policy"), "{}", valid.reason);
    assert!(
        valid.message.contains("spec.ingress[0]"),
        "{}",
        valid.message
    );
    assert!(
        valid
            .message
            .ends_with("the policy is not in force; not heard from: n1, n2"),
        "{}",
        valid.message
    );
    let open = |count: u64, pods: &[&str]| NodePolicyReport {
        open: BTreeMap::from([(
            KEY.to_owned(),
            OpenEndpoints {
                count,
                pods: pods.iter().map(ToString::to_string).collect(),
            },
        )]),
        ..NodePolicyReport::default()
    };
    report(&store, "n1", open(9, &["shop/b", "shop/c"])).await;
    // Nobody knows yet of the pods of the other node.
    let message = "9 pods are open because of it: shop/b, shop/c and 7 more; not heard from: n2";
    told(&store, "Valid", |one| one.message.ends_with(message)).await;
    report(&store, "n2", open(1, &["shop/a"])).await;
    let message = "10 pods are open because of it: shop/a, shop/b, shop/c and 7 more";
    told(&store, "Valid", |one| one.message.ends_with(message)).await;
    let enforced = told(&store, "Enforced", |_| true).await;
    assert_eq!(
        (enforced.status, enforced.reason.as_str()),
        (ConditionStatus::False, "Refused")
    );
    // Where an earlier version stays in force nobody is open, and that is said.
    let kept = vec![KEY.to_owned()];
    report(
        &store,
        "n1",
        NodePolicyReport {
            kept,
            ..NodePolicyReport::default()
        },
    )
    .await;
    report(&store, "n2", NodePolicyReport::default()).await;
    let stays = "the last accepted version stays in force";
    told(&store, "Valid", |one| one.message.ends_with(stays)).await;
    // Isolation is said, too.
    let isolated = vec![KEY.to_owned()];
    report(
        &store,
        "n1",
        NodePolicyReport {
            isolated,
            ..NodePolicyReport::default()
        },
    )
    .await;
    told(&store, "Valid", |one| one.message.contains("are isolated")).await;
    // Corrected, it is valid at once.
    store
        .update(KIND, policy(&json!([{"port": 80}])))
        .await
        .unwrap();
    let valid = told(&store, "Valid", |one| one.status == ConditionStatus::True).await;
    assert!(valid.last_transition_time.is_some());
    operator.stop().await;
}

#[tokio::test]
async fn addresses_that_do_not_fit_are_said_by_the_operator() {
    let store = with_nodes(&["n1"]).await;
    let blocks: Vec<Value> = (0..200)
        .map(|number| json!({"ipBlock": {"cidr": format!("20.0.{number}.0/24")}}))
        .collect();
    let mut large = policy(&json!([{"port": 80}]));
    large["spec"]["ingress"][0]["from"] = json!(blocks);
    store.create(KIND, large).await.unwrap();
    let config = OperatorConfig {
        max_cidrs_per_namespace: 100,
        ..config("10.0.0.0/16", 24)
    };
    let operator = Operator::start(config, Arc::new(store.clone()));
    let valid = told(&store, "Valid", |one| one.status == ConditionStatus::False).await;
    assert_eq!(valid.reason, "PolicyTooManyCidrs");
    report(&store, "n1", about(1)).await;
    let enforced = told(&store, "Enforced", |one| one.message.contains("1 of 1")).await;
    assert_eq!(enforced.status, ConditionStatus::False);
    store
        .update(KIND, policy(&json!([{"port": 80}])))
        .await
        .unwrap();
    told(&store, "Valid", |one| one.status == ConditionStatus::True).await;
    operator.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_node_that_is_gone_goes_after_two_looks_and_others_stay() {
    let store = Arc::new(MemoryStore::new());
    for name in ["n1", "n2"] {
        store.create(Kind::Node, node(name, &[])).await.unwrap();
        report(&*store, name, NodePolicyReport::default()).await;
    }
    let started = tokio::time::Instant::now();
    let operator = Operator::start(collecting(), store.clone());
    let gone = cluster_name("n2");
    store.delete(Kind::Node, &gone, None).await.unwrap();
    wait_gone(&*store, Kind::NodePolicyReport, &gone).await;
    assert!(
        started.elapsed() >= Duration::from_secs(60),
        "one look is not enough"
    );
    // A node that comes back before the second look keeps what it says.
    report(&*store, "n3", NodePolicyReport::default()).await;
    let looks = async |count: u64| tokio::time::sleep(Duration::from_secs(60 * count)).await;
    looks(1).await;
    store.create(Kind::Node, node("n3", &[])).await.unwrap();
    looks(3).await;
    for name in ["n1", "n3"] {
        assert!(exists(&*store, Kind::NodePolicyReport, &cluster_name(name)).await);
    }
    operator.stop().await;
}
