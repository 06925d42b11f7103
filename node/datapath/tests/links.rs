//! Links of programs: what becomes of one that cannot be replaced, and of its pin.
//!
//! Needs root. Everything lives in network namespaces that the test makes and removes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

mod bed;

use aya::programs::{
    LinkOrder, SchedClassifier,
    tc::{TcAttachOptions, TcAttachType},
};
use bed::Bed;
use heddle_datapath::Datapath;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Programs on the ingress of a pod's link.
fn on_ingress(bed: &Bed) -> Vec<aya::programs::ProgramInfo> {
    bed.in_node(|| SchedClassifier::query_tcx("hd1", TcAttachType::Ingress).unwrap())
        .1
}

fn pin(bed: &Bed) -> PathBuf {
    let version = heddle_abi::ABI_VERSION;
    bed.pin_dir().join(format!("v{version}/links/hd1-ingress"))
}

/// The kernel refuses a program on a hook that it stands on already. So with the program in the way, a link
/// neither takes it nor can it be attached anew.
#[test]
fn a_program_that_cannot_be_replaced_stays() {
    let mut bed = Bed::new(|settings| settings.quick_attach = false);
    let (a, b) = (bed.pod(1, 300), bed.pod(2, 301));
    let former = on_ingress(&bed).remove(0);
    let former_id = former.id();
    let mut former = SchedClassifier::from_program_info(former, "from_pod".into()).unwrap();
    let first = bed.open_another();
    let present = on_ingress(&bed)[0].id();
    assert_ne!(present, former_id, "the second run's program");
    bed.in_node(|| {
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        former
            .attach_with_options("hd1", TcAttachType::Ingress, options)
            .unwrap();
    });
    let ifindex = first
        .endpoints()
        .unwrap()
        .iter()
        .find(|it| it.facts.endpoint == 1)
        .unwrap()
        .facts
        .ifindex;
    let refused = bed.in_node(|| first.attach(1, ifindex)).unwrap_err();
    assert!(refused.to_string().contains("from_pod"), "{refused}");
    // The one in the way goes.
    former.unload().unwrap();
    drop(former);
    // A child of another test may have its descriptor still, until it runs its program.
    let deadline = Instant::now() + Duration::from_secs(10);
    let left = || -> Vec<_> { on_ingress(&bed).iter().map(|it| it.id()).collect() };
    while left() != [present] {
        assert!(Instant::now() < deadline, "{:?}: {refused}", left());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(pin(&bed).exists());
    drop(first);
    bed.reopen();
    assert_eq!(on_ingress(&bed).len(), 1);
    assert!(bed.ping(&a, &b.ipv4.to_string()));
}

/// A link whose interface is gone gives way to a new one, and what an end in the middle of that left goes.
#[test]
fn a_link_without_its_interface_gives_way() {
    let mut bed = Bed::new(|settings| settings.quick_attach = false);
    let (a, b) = (bed.pod(1, 300), bed.pod(2, 301));
    bed.pod(3, 302);
    assert!(bed::sh(&format!("ip -n {} link del hd3", bed.node())));
    let pin_of = |name: &str| pin(&bed).with_file_name(name);
    let (beside, dead) = (pin_of("hd1-ingress-next"), pin_of("hd3-ingress"));
    std::fs::rename(pin(&bed), &beside).unwrap();
    std::fs::rename(dead, pin(&bed)).unwrap();
    for _ in 0..2 {
        bed.reopen();
        assert!(!beside.exists() && pin(&bed).exists());
        assert_eq!(on_ingress(&bed).len(), 1);
        for address in b.addresses() {
            assert!(bed.ping(&a, &address), "{address}");
        }
        // The second time: the one beside is another's, and the one in place is in use.
        let another = beside.with_file_name("hd2-ingress");
        std::fs::rename(another, &beside).unwrap();
    }
    // The same where the next run attaches by clsact.
    bed.change(|settings| settings.force_clsact = true);
    bed.reopen();
    assert!(!beside.exists() && !pin(&bed).exists());
    assert!(on_ingress(&bed).is_empty());
}

/// A bpffs takes no dot in a name; the link of a VLAN usually has one.
#[test]
fn an_uplink_with_a_dot_in_its_name_has_links() {
    let mut bed = Bed::new(|_| {});
    assert!(bed::sh(&format!(
        "ip -n {0} link add eth0.100 type veth peer name far; ip -n {0} link set eth0.100 up",
        bed.node()
    )));
    bed.change(|settings| settings.uplink = "eth0.100".to_owned());
    bed.reopen();
    bed.reopen();
    let attached = bed.in_node(|| SchedClassifier::query_tcx("eth0.100", TcAttachType::Ingress));
    assert_eq!(attached.unwrap().1.len(), 1);
}

/// A runtime that asks for a CHECK right after an ADD asks while the link goes from clsact to tcx.
#[test]
fn a_pod_is_attached_at_every_moment_after_its_add() {
    const PODS: u16 = 8;
    let bed = Bed::new(|settings| settings.quick_attach = true);
    let _pods: Vec<_> = (1..=PODS).map(|n| bed.pod(n, 300)).collect();
    let version = heddle_abi::ABI_VERSION;
    let links = bed.pin_dir().join(format!("v{version}/links"));
    let is_settled = |n: u16| {
        let mut hooks = ["ingress", "egress"].into_iter();
        hooks.all(|hook| links.join(format!("hd{n}-{hook}")).exists())
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut looks = 0;
    loop {
        let all_settled = (1..=PODS).all(is_settled);
        let endpoints = bed.in_node(|| bed.datapath.endpoints().unwrap());
        let without: Vec<_> = endpoints.iter().filter(|it| !it.attached).collect();
        assert!(without.is_empty(), "look {looks}: {without:?}");
        assert_eq!(endpoints.len(), usize::from(PODS));
        if all_settled {
            break;
        }
        assert!(Instant::now() < deadline, "not settled in 60 s");
        looks += 1;
    }
    assert!(looks > 0, "all were settled at once: nothing was seen");
}
