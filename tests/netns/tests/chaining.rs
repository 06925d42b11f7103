//! Heddle chained with the reference plugins portmap, bandwidth and tuning (Debian: containernetworking-plugins).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, eventually, idle};
use std::path::Path;
use std::time::Duration;

const CHAIN: &str = "
cni:
  plugins:
  - {type: portmap, capabilities: {portMappings: true}}
  - {type: bandwidth, capabilities: {bandwidth: true}}
  - {type: tuning, sysctl: {net.core.somaxconn: '321'}}
";

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
  annotations: {kubernetes.io/ingress-bandwidth: 50M}
spec:
  nodeName: node-1
  containers:
  - name: echo
    image: heddle/echo
    ports: [{containerPort: 8080, hostPort: 18080}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
";

fn node_addresses(lab: &Lab) -> Vec<String> {
    let node = lab.object("node", "node-1");
    let addresses = node["status"]["addresses"].as_array().unwrap().iter();
    addresses
        .filter(|address| address["type"] == "InternalIP")
        .map(|address| address["address"].as_str().unwrap().to_owned())
        .collect()
}

fn url(address: &str) -> String {
    if address.contains(':') {
        format!("http://[{address}]:18080/")
    } else {
        format!("http://{address}:18080/")
    }
}

/// Whether the kernel makes the devices that the bandwidth plugin limits egress with.
fn has_ifb(lab: &Lab) -> bool {
    lab.on("world", "ip link add try0 type ifb && ip link del try0")
        .code
        == 0
}

fn check(host_routing: &str) {
    for plugin in ["portmap", "bandwidth", "tuning"] {
        assert!(
            Path::new("/usr/lib/cni").join(plugin).exists(),
            "install containernetworking-plugins, as scripts/setup.sh does"
        );
    }
    let lab = Lab::with(CHAIN, &["--host-routing", host_routing]);
    let said = lab.apply(&[WEB, &idle("client", "node-2")].concat());
    assert!(!said.err.contains("hostPort"), "{said:?}");

    // tuning, in the pod.
    let said = lab.exec("web", "cat /proc/sys/net/core/somaxconn");
    assert_eq!(said.out.trim(), "321", "{said:?}");
    // bandwidth, on the pod's link.
    let shaped = lab.on("node-1", "tc qdisc show").ok().out;
    assert_eq!(shaped.matches("qdisc tbf").count(), 1, "{shaped}");
    assert!(shaped.contains("rate 50Mbit"), "{shaped}");

    // portmap, from outside, from a pod of the other node, and from the other node.
    let addresses = node_addresses(&lab);
    assert_eq!(addresses.len(), 2);
    for address in &addresses {
        let fetch = format!("curl -sS --max-time 3 {}", url(address));
        for node in ["world", "node-2"] {
            let said = lab.on(node, &fetch);
            assert!(
                said.code == 0 && said.out.contains("web"),
                "{node} to {address}, host routing {host_routing}: {said:?}"
            );
        }
        let said = lab.exec("client", &fetch);
        assert!(
            said.code == 0 && said.out.contains("web"),
            "a pod to {address}, host routing {host_routing}: {said:?}"
        );
    }
    let said = lab.run(&["diff"]);
    assert_eq!(said.code, 0, "{said:?}");

    // The host port is a way in like any other: policy has the last word.
    lab.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed}\nspec:\n  \
         podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress]\n",
    );
    let said = lab.on(
        "world",
        &format!("curl -sS --max-time 1 {}", url(&addresses[0])),
    );
    assert_ne!(said.code, 0, "{said:?}");

    if host_routing == "off" {
        // What the pod was sent has gone through the limit; with host routing it passes by.
        let sent = sent_through_limits(&lab);
        assert!(sent.iter().all(|bytes| *bytes > 0), "{sent:?}");
    }

    let rules = "iptables-save; ip6tables-save";
    assert!(lab.on("node-1", rules).ok().out.contains("18080"));
    let _ = lab
        .run(&["lab", "delete", "pod", "web", "-n", "default"])
        .ok();
    eventually("DEL removes the rules", Duration::from_secs(10), || {
        !lab.on("node-1", rules).ok().out.contains("18080")
    });
    let left = lab.on("node-1", "tc qdisc show").ok().out;
    assert!(!left.contains("qdisc tbf"), "{left}");
}

/// Bytes that each of the first node's token buckets has let pass.
fn sent_through_limits(lab: &Lab) -> Vec<u64> {
    let shown = lab.on("node-1", "tc -s -j qdisc show").ok().json();
    let qdiscs = shown.as_array().unwrap().iter();
    qdiscs
        .filter(|qdisc| qdisc["kind"] == "tbf")
        .map(|qdisc| qdisc["bytes"].as_u64().unwrap())
        .collect()
}

/// What a pod sends is limited on a device of its own, to which an ingress qdisc on the pod's link leads.
#[test]
#[ignore = "the qdisc that first holds Heddle's programs on a pod's link keeps bandwidth from adding its own"]
fn what_a_pod_sends_is_limited() {
    let lab = Lab::with(CHAIN, &["--nodes", "1", "--host-routing", "off"]);
    assert!(has_ifb(&lab), "this kernel has no ifb devices");
    lab.apply(&WEB.replace("ingress-bandwidth", "egress-bandwidth"));
    let address = lab.addresses("web").remove(0);
    let fetch = format!("curl -sS --max-time 3 'http://{address}:8080/bytes?n=100000' | wc -c");
    let said = lab.on("node-1", &fetch).ok();
    assert_eq!(said.out.trim(), "100000", "{said:?}");
    let sent = sent_through_limits(&lab);
    assert!(sent.len() == 1 && sent[0] > 100_000, "{sent:?}");
}

/// A plugin that puts a qdisc of its own on the ingress of a pod's link finds the place free when programs are
/// attached by tcx at once.
#[test]
fn a_plugin_may_have_the_links_ingress_qdisc() {
    let config = format!("{CHAIN}agent: {{quickAttach: false}}\n");
    let lab = Lab::with(&config, &["--nodes", "1", "--host-routing", "off"]);
    lab.apply(&WEB.replace("ingress-bandwidth", "egress-bandwidth"));
    let address = lab.addresses("web").remove(0);
    let fetch = format!("curl -sS --max-time 3 'http://{address}:8080/bytes?n=1000' | wc -c");
    let said = lab.on("node-1", &fetch).ok();
    assert_eq!(said.out.trim(), "1000", "{said:?}");
}

/// Answers of a mapped port go back through the node's stack, which alone knows what to turn back; a redirect
/// out of the node would pass it by.
#[test]
fn host_ports_bandwidth_and_sysctls_with_host_routing() {
    check("on");
}

#[test]
fn host_ports_bandwidth_and_sysctls_through_the_stack() {
    check("off");
}

#[test]
fn without_portmap_a_host_port_is_a_warning() {
    let lab = Lab::up(&["--nodes", "1"]);
    let said = lab.run_with(&["lab", "apply", "-f", "-"], WEB).ok();
    assert!(
        said.err.contains("hostPort") && said.err.contains("portmap"),
        "{said:?}"
    );
}
