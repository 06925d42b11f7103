//! What goes on when something is gone: the agent, the store, everything.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::{Lab, allow_only, eventually, idle, server};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// Seconds without an agent (the issue asks for at least 30).
const WITHOUT_AGENT: u64 = 30;

#[test]
fn without_the_agent_nothing_is_lost_and_nothing_opens() {
    let lab = Lab::up(&[]);
    lab.apply(
        &[
            server("near", "node-1"),
            server("far", "node-2"),
            idle("client", "node-1"),
            idle("stranger", "node-1"),
        ]
        .concat(),
    );
    lab.apply(&[allow_only("near", "client"), allow_only("far", "client")].concat());
    lab.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: ping, namespace: default}\nspec:\n  \
         podSelector: {matchLabels: {app: far}}\n  ingress:\n  - from: [{podSelector: {matchLabels: {app: client}}}]\n",
    );
    let far = lab.addresses("far");
    let near = lab.addresses("near");
    // Steady traffic across nodes, both families, and one request after another over TCP.
    let count = WITHOUT_AGENT * 100 + 500;
    let pings: Vec<_> = far
        .iter()
        .map(|address| {
            lab.start(
                "client",
                &format!("ping -n -q -i 0.01 -c {count} {address}"),
            )
        })
        .collect();
    let requests = lab.start(
        "client",
        &format!(
            "exec 3<>/dev/tcp/{}/8080; end=$((SECONDS+{WITHOUT_AGENT}+3)); n=0
             while [ $SECONDS -lt $end ]; do
               echo ping >&3
               read -t 10 -r line <&3 || {{ echo \"answer $((n+1)) did not come, read: $?, second $SECONDS of $end\"; exit 9; }}
               n=$((n+1))
             done; echo $n",
            far[0]
        ),
    );
    let _ = lab.run(&["lab", "agent", "kill", "node-1"]).ok();
    let _ = lab.run(&["lab", "agent", "kill", "node-2"]).ok();
    let killed = Instant::now();
    // A new pod cannot start meanwhile, and says why.
    let _ = lab
        .run_with(
            &["lab", "apply", "--no-wait", "-f", "-"],
            &idle("late", "node-1"),
        )
        .ok();
    while killed.elapsed() < Duration::from_secs(WITHOUT_AGENT) {
        for address in near.iter().chain(&far) {
            assert!(
                !lab.connects("stranger", address, 8080),
                "stranger reaches {address}"
            );
            assert!(
                lab.connects("client", address, 8080),
                "client loses {address}"
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let late = lab
        .run(&["lab", "get", "pod", "late", "-o", "json"])
        .ok()
        .out;
    assert!(
        late.contains("agent"),
        "the waiting pod names the agent: {late}"
    );
    let _ = lab.run(&["lab", "agent", "start", "node-1"]).ok();
    let _ = lab.run(&["lab", "agent", "start", "node-2"]).ok();
    for ping in pings {
        let output = ping.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
    let output = requests.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    eventually("the late pod runs", Duration::from_secs(30), || {
        lab.run(&["lab", "get", "pod", "late", "-o", "json"])
            .out
            .contains("10.244.")
    });
    for address in near.iter().chain(&far) {
        assert!(!lab.connects("stranger", address, 8080));
    }
    eventually("nothing differs", Duration::from_secs(10), || {
        lab.run(&["diff"]).code == 0
    });
}

/// What a lab could leave behind: namespaces, cgroups, pins, files, processes.
fn remains(lab: &str) -> Vec<String> {
    let line = format!(
        "ls /run/netns 2>/dev/null | grep heddle-{lab}-
         find /sys/fs/bpf/heddle -path '*/{lab}*' 2>/dev/null
         find /run/heddle -path '*/{lab}*' 2>/dev/null
         find /sys/fs/cgroup -maxdepth 3 -type d -name 'heddle-{lab}*' 2>/dev/null
         grep -lz HEDDLE_LAB={lab}$ /proc/[0-9]*/environ 2>/dev/null | grep -v /proc/$$/
         mount | grep heddle-{lab}- ; true"
    );
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn down_leaves_nothing_even_after_everything_was_killed() {
    let lab = Lab::up(&["--fabric", "vxlan"]);
    lab.apply(&[server("one", "node-1"), idle("two", "node-2")].concat());
    assert!(
        !remains(&lab.name).is_empty(),
        "the search finds what there is"
    );
    std::fs::write(lab.cgroup().join("cgroup.kill"), "1").unwrap();
    let _ = lab.run(&["lab", "down"]).ok();
    let left = remains(&lab.name);
    assert!(left.is_empty(), "{left:#?}");
    // And once more is no error.
    let _ = lab.run(&["lab", "down"]).ok();
}

#[test]
fn a_lost_store_is_said_and_made_good() {
    let lab = Lab::up(&[]);
    lab.apply(
        &[
            server("near", "node-1"),
            idle("client", "node-1"),
            idle("stranger", "node-1"),
        ]
        .concat(),
    );
    lab.apply(&allow_only("near", "client"));
    let address = lab.addresses("near").remove(0);
    let group = lab.cgroup().join("store");
    std::fs::write(group.join("cgroup.kill"), "1").unwrap();
    for _ in 0..3 {
        assert!(lab.connects("client", &address, 8080));
        assert!(!lab.connects("stranger", &address, 8080));
    }
    // The lab starts it again, with everything that was acknowledged.
    eventually(
        "the store is back with all it knew",
        Duration::from_secs(20),
        || {
            let said = lab.run(&["lab", "get", "networkpolicy", "-n", "default", "-o", "json"]);
            said.code == 0 && said.out.contains("only-client-to-near")
        },
    );
    lab.apply(&idle("another", "node-2"));
    assert!(lab.connects("client", &address, 8080));
    assert!(!lab.connects("stranger", &address, 8080));
}

#[test]
fn a_full_pool_is_said_and_recovers() {
    let config = std::env::temp_dir().join(format!("heddle-pool-{}.yaml", std::process::id()));
    std::fs::write(&config, "pools:\n- {name: tiny, cidrs: [10.244.0.0/28], maskV4: 29}\nfamilies: [4]\nagent: {addressCooldownSeconds: 1}\n")
        .unwrap();
    let lab = Lab::up(&["--config", config.to_str().unwrap()]);
    std::fs::remove_file(&config).unwrap();
    // A /29 has eight addresses: network, gateway and broadcast are never given.
    let pods: String = (0..5)
        .map(|number| idle(&format!("p{number}"), "node-1"))
        .collect();
    lab.apply(&pods);
    let _ = lab
        .run_with(
            &["lab", "apply", "--no-wait", "-f", "-"],
            &idle("p5", "node-1"),
        )
        .ok();
    eventually("the pod says why it waits", Duration::from_secs(10), || {
        lab.run(&["lab", "get", "pod", "p5", "-o", "json"])
            .out
            .contains("pool")
    });
    let _ = lab
        .run(&["lab", "delete", "pod", "p0", "-n", "default"])
        .ok();
    eventually(
        "the pod starts when an address is free",
        Duration::from_secs(30),
        || {
            lab.run(&["lab", "get", "pod", "p5", "-o", "json"])
                .out
                .contains("10.244.0.")
        },
    );
}
