//! The ADD transaction cut short at every step, and what a restart makes of it.

use crate::ledger::Ledger;
use crate::testing::{Cut, Node, eventually};
use heddle_kube::store::{Kind, Store};
use heddle_model::{Identity, NamespacedName};
use heddle_rpc::cni::{CheckParams, DelParams, GcParams};
use heddle_rpc::error_codes;
use heddle_rpc::pending;
use std::time::Duration;

use super::remove::finish_removals;
use super::step::Step;
use super::{add, check, collect_garbage};

#[tokio::test]
async fn an_add_is_in_force_and_repeats_its_answer() {
    let node = Node::start().await;
    node.pod("shop", "web", &[("app", "web")]).await;
    let first = node.add("c1", "shop", "web").await.unwrap();
    assert_eq!(first.addresses.len(), 2);
    assert_eq!(first.host_interface, "hd1");
    assert_eq!(node.add("c1", "shop", "web").await.unwrap(), first);
    assert_eq!(node.agent().attachments.addresses.leased(), 1);

    let kernel = node.datapath.kernel();
    assert_eq!(kernel.attached.len(), 1);
    let row = &kernel.peers[&format!("{}/32", first.addresses[0].address)
        .parse()
        .unwrap()];
    assert!(row.identity >= Identity::CLUSTER_FIRST && row.in_cluster && row.node.is_none());
    let published = node
        .store
        .get(Kind::CiliumEndpoint, &NamespacedName::new("shop", "web"))
        .await
        .unwrap();
    assert_eq!(published.value["status"]["identity"]["id"], row.identity.0);
    assert_eq!(published.value["status"]["nodeName"], "n1");

    node.delete("c1").await;
    node.delete("c1").await;
    node.assert_nothing_left().await;
}

#[tokio::test]
async fn a_failure_at_any_step_is_undone_and_the_next_add_succeeds() {
    for step in Step::ALL {
        let node = Node::start().await;
        node.pod("shop", "web", &[]).await;
        node.agent().attachments.faults.plan(step, Cut::Fail);
        let error = node.add("c1", "shop", "web").await.unwrap_err();
        assert_eq!(error.code, "test/fault", "{step:?}");
        node.assert_nothing_left().await;
        node.add("c1", "shop", "web").await.unwrap();
        node.add("c2", "shop", "web").await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_at_any_step_leaks_nothing() {
    for step in Step::ALL {
        let mut node = Node::start().await;
        node.pod("shop", "web", &[]).await;
        node.crash_in_add(step, "c1", "shop", "web").await;
        node.restart().await;
        if step == Step::Committed {
            // The answer was on the disk: the runtime may have it, and asks again otherwise.
            assert_eq!(node.agent().attachments.addresses.leased(), 1);
            node.add("c1", "shop", "web").await.unwrap();
            node.delete("c1").await;
        }
        node.assert_nothing_left().await;
        node.add("c1", "shop", "web").await.unwrap();
        assert!(node.differences().await.is_empty(), "{step:?}");
    }
}

#[tokio::test]
async fn a_kernel_failure_at_any_call_is_undone() {
    for call in [
        "create_link",
        "set_policy",
        "set_facts",
        "set_peers",
        "attach",
    ] {
        for after_effect in [false, true] {
            let node = Node::start().await;
            node.pod("shop", "web", &[]).await;
            node.datapath.fail_once(call, after_effect);
            let outcome = node.add("c1", "shop", "web").await;
            assert!(outcome.is_err(), "{call}");
            node.assert_nothing_left().await;
            node.add("c1", "shop", "web").await.unwrap();
            assert!(node.differences().await.is_empty(), "{call}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_undone_now_is_undone_later() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[]).await;
    node.add("c1", "shop", "web").await.unwrap();
    node.datapath.set_dead(true);
    // DEL succeeds although the kernel refuses; the address is not given to anybody meanwhile.
    node.delete("c1").await;
    assert_eq!(node.agent().attachments.addresses.leased(), 1);
    node.datapath.set_dead(false);
    node.restart().await;
    node.assert_nothing_left().await;
}

#[tokio::test]
async fn a_deletion_queued_while_the_agent_was_away_is_carried_out() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[]).await;
    node.add("c1", "shop", "web").await.unwrap();
    node.stop().await;
    let queue = pending::directory(&node.state().join("agent.sock"));
    let deletion = DelParams {
        container_id: "c1".into(),
        interface: "eth0".into(),
    };
    pending::record(&queue, &deletion).unwrap();
    node.restart().await;
    eventually("carried out", || async {
        pending::list(&queue).unwrap().is_empty()
    })
    .await;
    node.assert_nothing_left().await;
}

#[tokio::test]
async fn garbage_is_what_the_runtime_does_not_list() {
    let node = Node::start().await;
    for pod in ["a", "b"] {
        node.pod("shop", pod, &[]).await;
        node.add(pod, "shop", pod).await.unwrap();
    }
    let valid = serde_json::from_str(r#"[{"containerID":"a","ifname":"eth0"}]"#).unwrap();
    let params = GcParams {
        valid_attachments: valid,
    };
    let removed = collect_garbage(&node.agent(), params).await.unwrap();
    assert_eq!(removed, 1);
    assert_eq!(node.datapath.kernel().attached.len(), 1);
    assert_eq!(node.agent().attachments.addresses.leased(), 1);
}

#[tokio::test]
async fn check_finds_what_changed() {
    let node = Node::start().await;
    node.pod("shop", "web", &[]).await;
    let attachment = node.add("c1", "shop", "web").await.unwrap();
    let question = CheckParams {
        container_id: "c1".into(),
        netns: "/run/netns/c1".into(),
        interface: "eth0".into(),
        addresses: attachment.addresses.iter().map(|it| it.address).collect(),
    };
    let agent = node.agent();
    check(&agent, question.clone()).await.unwrap();
    let mut other = question.clone();
    other.addresses.pop();
    let error = check(&agent, other).await.unwrap_err();
    assert_eq!(error.code, error_codes::CHECK_FAILED);
    node.datapath.change(|kernel| kernel.attached.clear());
    let error = check(&agent, question).await.unwrap_err();
    assert!(error.message.contains("not attached"), "{error}");
}

#[tokio::test]
async fn restored_pods_keep_their_addresses_and_nothing_is_written_again() {
    let mut node = Node::start().await;
    let mut given = Vec::new();
    for i in 0..5 {
        let name = format!("p{i}");
        node.pod("shop", &name, &[("app", &name)]).await;
        given.push(node.add(&name, "shop", &name).await.unwrap());
    }
    let before = node.datapath.kernel();
    node.stop().await;
    node.datapath.take_calls();
    node.restart().await;
    let calls = node.datapath.take_calls();
    assert!(
        calls.iter().all(|call| call.starts_with("set_routes")),
        "{calls:?}"
    );
    assert_eq!(node.datapath.kernel(), before);
    for (i, attachment) in given.iter().enumerate() {
        let name = format!("p{i}");
        assert_eq!(&node.add(&name, "shop", &name).await.unwrap(), attachment);
    }
    node.pod("shop", "new", &[]).await;
    let fresh = node.add("new", "shop", "new").await.unwrap();
    assert!(
        given
            .iter()
            .all(|old| old.addresses[0].address != fresh.addresses[0].address)
    );
}

#[tokio::test]
async fn a_kernel_endpoint_without_a_record_is_removed() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[]).await;
    node.add("c1", "shop", "web").await.unwrap();
    node.stop().await;
    std::fs::remove_dir_all(node.state().join("endpoints")).unwrap();
    node.restart().await;
    assert!(node.datapath.kernel().has_no_endpoint());
}

#[tokio::test]
async fn a_damaged_record_is_rebuilt_and_its_pod_keeps_running() {
    let mut node = Node::start().await;
    node.pod("shop", "web", &[]).await;
    let before = node.add("c1", "shop", "web").await.unwrap();
    node.stop().await;
    let file = std::fs::read_dir(node.state().join("endpoints"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::fs::write(&file, b"\0\0\0\0").unwrap();
    let kernel = node.datapath.kernel();
    node.restart().await;
    assert_eq!(node.datapath.kernel().attached, kernel.attached);
    let kept = node
        .agent()
        .on_ledger(|ledger: &mut Ledger| ledger.endpoints.values().next().cloned())
        .await
        .unwrap();
    assert_eq!(kept.record.pod, NamespacedName::new("shop", "web"));
    assert_eq!(
        kept.record.addresses().next(),
        Some(before.addresses[0].address)
    );
    node.delete("c1").await;
    node.assert_nothing_left().await;
}

#[tokio::test]
async fn an_unknown_pod_is_a_clear_error_and_one_that_comes_is_waited_for() {
    let node = Node::start().await;
    let missing = node.add_within("c1", "shop", "ghost", 1).await.unwrap_err();
    assert_eq!(missing.code, error_codes::TRY_AGAIN);
    assert!(missing.message.contains("shop/ghost"), "{missing}");
    node.assert_nothing_left().await;
    let (added, ()) = tokio::join!(node.add("c2", "shop", "late"), async {
        tokio::time::sleep(Duration::from_millis(120)).await;
        node.pod("shop", "late", &[]).await;
    });
    added.unwrap();
}

#[tokio::test]
async fn a_full_pool_is_a_clear_error_and_recovers() {
    // A /29 has 8 addresses: network, gateway and broadcast are never given.
    let node = Node::start_with(&["10.244.0.0/29"], 0).await;
    for i in 0..5 {
        let name = format!("p{i}");
        node.pod("shop", &name, &[]).await;
        node.add(&name, "shop", &name).await.unwrap();
    }
    node.pod("shop", "p5", &[]).await;
    let error = node.add("p5", "shop", "p5").await.unwrap_err();
    assert_eq!(error.code, error_codes::POOL_EXHAUSTED);
    assert!(error.message.contains("10.244.0.0/29"), "{error}");
    node.delete("p0").await;
    node.add("p5", "shop", "p5").await.unwrap();
}

#[tokio::test]
async fn fifty_adds_at_once_get_fifty_addresses() {
    let node = Node::start().await;
    let mut waiting = tokio::task::JoinSet::new();
    for i in 0..50 {
        let name = format!("p{i}");
        node.pod("shop", &name, &[("app", "web")]).await;
        let (agent, params) = (node.agent(), Node::params(&name, "shop", &name, 30));
        waiting.spawn(async move { add(&agent, params).await.unwrap().addresses[0].address });
    }
    let mut given: Vec<_> = waiting.join_all().await;
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 50);
    assert!(node.differences().await.is_empty());
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let node = Node::start().await;
    node.pod("shop", "a", &[]).await;
    node.pod("shop", "b", &[]).await;
    node.add("a", "shop", "a").await.unwrap();
    // A file where the directory should be refuses every write, as a full disk does, also for root.
    let endpoints = node.state().join("endpoints");
    let aside = node.state().join("aside");
    std::fs::rename(&endpoints, &aside).unwrap();
    std::fs::write(&endpoints, "").unwrap();
    let error = node.add("b", "shop", "b").await.unwrap_err();
    assert_eq!(error.code, "agent/state-not-saved");
    std::fs::remove_file(&endpoints).unwrap();
    std::fs::rename(&aside, &endpoints).unwrap();
    finish_removals(&node.agent()).await;
    assert_eq!(node.agent().attachments.addresses.leased(), 1);
    assert_eq!(node.datapath.kernel().attached.len(), 1);
    node.add("b", "shop", "b").await.unwrap();
}

#[tokio::test]
async fn without_the_store_running_pods_go_on_and_removals_are_finished_later() {
    let node = Node::start().await;
    for pod in ["a", "b"] {
        node.pod("shop", pod, &[("app", pod)]).await;
    }
    node.add("a", "shop", "a").await.unwrap();
    node.wire.set_down(true);
    let error = node.add("b", "shop", "b").await.unwrap_err();
    assert_eq!(error.code, error_codes::TRY_AGAIN);
    assert!(error.message.contains("cannot be reached"), "{error}");
    assert_eq!(node.datapath.kernel().attached.len(), 1);
    node.delete("a").await;
    assert!(node.datapath.kernel().has_no_endpoint());
    assert_eq!(node.agent().attachments.addresses.leased(), 0);
    node.wire.set_down(false);
    finish_removals(&node.agent()).await;
    node.assert_nothing_left().await;
    node.add("b", "shop", "b").await.unwrap();
}

/// The one endpoint's file.
fn record_file(node: &Node) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(node.state().join("endpoints")).unwrap();
    files.next().unwrap().unwrap().path()
}

#[tokio::test]
async fn what_the_kernel_holds_for_a_damaged_record_is_given_to_nobody_else() {
    let mut node = Node::start_with(&["10.244.0.0/29"], 0).await;
    for pod in ["a", "b", "c", "d", "e", "f"] {
        node.pod("shop", pod, &[]).await;
    }
    let before = node.add("a", "shop", "a").await.unwrap();
    let held = before.addresses[0].address;
    node.stop().await;
    std::fs::write(record_file(&node), b"\0\0\0\0").unwrap();
    // Without its CiliumEndpoint the record cannot be rebuilt.
    let name = NamespacedName::new("shop", "a");
    node.store
        .delete(Kind::CiliumEndpoint, &name, None)
        .await
        .unwrap();
    node.restart().await;
    assert_eq!(node.datapath.kernel().attached.len(), 1, "it keeps running");
    let told = || node.agent().health.notice_about("records");
    assert!(told().unwrap().contains("a@eth0"));
    for pod in ["b", "c", "d", "e"] {
        let given = node.add(pod, "shop", pod).await.unwrap();
        assert_ne!(given.addresses[0].address, held);
    }
    let full = node.add("f", "shop", "f").await.unwrap_err();
    assert_eq!(full.code, error_codes::POOL_EXHAUSTED);
    // A DEL heals it.
    node.delete("a").await;
    assert_eq!(told(), None);
    assert_eq!(node.datapath.kernel().attached.len(), 4);
    let given = node.add("f", "shop", "f").await.unwrap();
    assert_eq!(given.addresses[0].address, held);
}

#[tokio::test]
async fn a_damaged_record_of_an_endpoint_that_is_gone_touches_no_later_one() {
    let mut node = Node::start().await;
    for pod in ["a", "b"] {
        node.pod("shop", pod, &[]).await;
    }
    node.add("a", "shop", "a").await.unwrap();
    node.stop().await;
    let path = record_file(&node);
    std::fs::write(&path, b"").unwrap();
    node.datapath.change(|kernel| *kernel = Default::default());
    node.restart().await;
    node.add("b", "shop", "b").await.unwrap();
    // The same with a file that a former version left behind beside the endpoint that has the number now.
    let later = record_file(&node);
    let id = later.file_name().unwrap().to_str().unwrap();
    let id = id.split_once('-').unwrap().0;
    let stale = later.with_file_name(format!("{id}-a@eth0.json.damaged"));
    std::fs::write(&stale, b"").unwrap();
    node.restart().await;
    assert!(!stale.exists());
    node.delete("a").await;
    let kernel = node.datapath.kernel();
    assert_eq!((kernel.links.len(), kernel.attached.len()), (1, 1));
    let pods = node
        .agent()
        .on_ledger(|ledger: &mut Ledger| {
            let all = ledger.endpoints.values();
            all.map(|it| it.record.pod.name.clone()).collect::<Vec<_>>()
        })
        .await;
    assert_eq!(pods, ["b"]);
}

#[tokio::test]
async fn of_two_records_with_one_address_the_kernels_one_has_it() {
    let mut node = Node::start().await;
    for pod in ["a", "b"] {
        node.pod("shop", pod, &[]).await;
    }
    node.add("a", "shop", "a").await.unwrap();
    node.stop().await;
    let path = record_file(&node);
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["endpoint"] = 9.into();
    record["containerId"] = "b".into();
    record["pod"]["name"] = "b".into();
    record["generation"] = 99.into();
    std::fs::write(path.with_file_name("9-b@eth0.json"), record.to_string()).unwrap();
    node.restart().await;
    let kept = node
        .agent()
        .on_ledger(|ledger: &mut Ledger| {
            let all = ledger.endpoints.values();
            all.map(|it| it.record.pod.name.clone()).collect::<Vec<_>>()
        })
        .await;
    assert_eq!(kept, ["a"]);
    assert_eq!(node.datapath.kernel().attached.len(), 1);
    assert_eq!(node.agent().attachments.addresses.leased(), 1);
    node.delete("a").await;
    node.assert_nothing_left().await;
}

#[tokio::test]
async fn what_could_not_be_removed_from_the_kernel_keeps_its_addresses() {
    let mut node = Node::start().await;
    for pod in ["a", "b"] {
        node.pod("shop", pod, &[]).await;
    }
    let held = node.add("a", "shop", "a").await.unwrap().addresses[0].address;
    node.stop().await;
    std::fs::remove_dir_all(node.state().join("endpoints")).unwrap();
    node.datapath.fail_once("remove_endpoint", false);
    node.restart().await;
    let given = node.add("b", "shop", "b").await.unwrap();
    assert_ne!(given.addresses[0].address, held);
    // It is tried again.
    eventually("removed", || async {
        node.datapath.kernel().attached.len() == 1
    })
    .await;
}
