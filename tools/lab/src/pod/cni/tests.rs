//! The chain calls real executables: scripts that record what they were asked.

use super::*;
use crate::pod::runtime::Runtime;
use std::os::unix::fs::PermissionsExt;

fn script(folder: &Path, name: &str, body: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A chain whose plugins run in a namespace of the test; needs root.
struct Fixture {
    folder: tempfile::TempDir,
    namespace: String,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let namespace = format!("heddle-test-{name}-{}", std::process::id());
        crate::namespace::create(&namespace).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            namespace,
        }
    }

    fn chain(&self, plugins: Value) -> Chain {
        self.chain_of("1.1.0", plugins)
    }

    fn chain_of(&self, version: &str, plugins: Value) -> Chain {
        Chain {
            configuration: json!({"cniVersion": version, "name": "t", "plugins": plugins}),
            folders: vec![self.folder.path().to_owned()],
            node_namespace: self.namespace.clone(),
            cgroup: None,
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        crate::namespace::remove(&self.namespace);
    }
}

fn attachment() -> Attachment {
    Attachment::of_pod("c0ffee", Path::new("/run/netns/x"), ("ns", "pod", "uid-1"))
}

#[tokio::test]
async fn add_hands_each_result_on_and_delete_goes_backwards() {
    let fixture = Fixture::new("cni-chain");
    let log = fixture.folder.path().join("log");
    let log = log.display();
    script(
        fixture.folder.path(),
        "first",
        &format!(
            "cat > {log}.first.$CNI_COMMAND; echo first $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME >> {log}; \
             echo \"$CNI_ARGS\" > {log}.args; readlink /proc/self/ns/net > {log}.net; \
             [ $CNI_COMMAND = DEL ] || echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[{{\"address\":\"fd00::5/64\"}},{{\"address\":\"10.0.0.5/24\"}}]}}'"
        ),
    );
    script(
        fixture.folder.path(),
        "second",
        &format!(
            "cat > {log}.second.$CNI_COMMAND; echo second $CNI_COMMAND >> {log}; \
             [ $CNI_COMMAND = DEL ] || echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[{{\"address\":\"10.0.0.5/24\"}}],\"chained\":true}}'"
        ),
    );
    let chain = fixture.chain(json!([{"type": "first", "colour": "blue"}, {"type": "second"}]));
    let result = chain.add(&attachment()).await.unwrap();
    assert_eq!(result["chained"], true);
    chain.delete(&attachment(), Some(&result)).await.unwrap();

    let read = |suffix: &str| std::fs::read_to_string(format!("{log}{suffix}")).unwrap();
    assert_eq!(
        read(""),
        "first ADD c0ffee eth0\nsecond ADD\nsecond DEL\nfirst DEL c0ffee eth0\n"
    );
    let asked: Value = serde_json::from_str(&read(".first.ADD")).unwrap();
    assert_eq!(
        (&asked["name"], &asked["colour"]),
        (&json!("t"), &json!("blue"))
    );
    assert!(asked.get("prevResult").is_none());
    let asked: Value = serde_json::from_str(&read(".second.ADD")).unwrap();
    assert_eq!(asked["prevResult"]["ips"][0]["address"], "fd00::5/64");
    let asked: Value = serde_json::from_str(&read(".first.DEL")).unwrap();
    assert_eq!(asked["prevResult"]["chained"], true);
    assert!(read(".args").contains("K8S_POD_NAMESPACE=ns;K8S_POD_NAME=pod;"));
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(read(".net").trim(), own.display().to_string());
}

#[tokio::test]
async fn a_refusal_carries_the_plugins_code_and_words() {
    let fixture = Fixture::new("cni-refusal");
    script(
        fixture.folder.path(),
        "full",
        "echo '{\"cniVersion\":\"1.1.0\",\"code\":11,\"msg\":\"not ready\",\"details\":\"agent away\"}'; exit 1",
    );
    let error = fixture
        .chain(json!([{"type": "full"}]))
        .add(&attachment())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, LabError::Cni { cni_code: 11, reason, .. } if reason == "not ready: agent away"),
        "{error}"
    );
    let error = fixture
        .chain(json!([{"type": "absent"}]))
        .add(&attachment())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
    let error = fixture
        .chain(json!([{"type": "../full"}]))
        .add(&attachment())
        .await
        .unwrap_err();
    assert!(matches!(error, LabError::Cni { .. }));
}

/// A plugin that notes every verb and what it read, and fails the verb that a file names.
fn noting(fixture: &Fixture) -> PathBuf {
    let log = fixture.folder.path().join("log");
    script(
        fixture.folder.path(),
        "noting",
        &format!(
            "cat > {log}.$CNI_COMMAND; echo $CNI_COMMAND >> {log}
             [ \"$(cat {log}.fails 2>/dev/null)\" != $CNI_COMMAND ] || {{ echo '{{\"code\":50,\"msg\":\"no uplink\"}}'; exit 1; }}
             [ $CNI_COMMAND != ADD ] || echo '{{\"cniVersion\":\"1.1.0\",\"ips\":[{{\"address\":\"10.0.0.5/24\"}}]}}'",
            log = log.display()
        ),
    );
    log
}

#[tokio::test]
async fn a_runtime_asks_status_before_add_and_check_after_it_and_hands_gc_what_is_attached() {
    let fixture = Fixture::new("cni-runtime");
    let log = noting(&fixture);
    let read = |suffix: &str| {
        std::fs::read_to_string(format!("{}{suffix}", log.display())).unwrap_or_default()
    };
    let asked = |verb: &str| serde_json::from_str::<Value>(&read(&format!(".{verb}"))).unwrap();
    let runtime = Runtime::new(fixture.chain(json!([{"type": "noting"}])));
    let attached = runtime.attach(&attachment()).await.unwrap();
    assert_eq!(attached.complaint, None);
    let result = attached.result;
    assert_eq!(read(""), "STATUS\nADD\nCHECK\n");
    assert!(asked("STATUS").get("prevResult").is_none());
    assert_eq!(asked("CHECK")["prevResult"], result);

    runtime.collect_garbage().await.unwrap();
    let valid = &asked("GC")["cni.dev/valid-attachments"];
    assert_eq!(valid, &json!([{"containerID": "c0ffee", "ifname": "eth0"}]));
    runtime.detach(&attachment(), Some(&result)).await.unwrap();
    runtime.collect_garbage().await.unwrap();
    assert_eq!(asked("GC")["cni.dev/valid-attachments"], json!([]));

    // Nothing is added where the plugins say they cannot serve, and their words come through.
    std::fs::write(format!("{}.fails", log.display()), "STATUS").unwrap();
    std::fs::remove_file(&log).unwrap();
    let error = runtime.attach(&attachment()).await.unwrap_err();
    assert!(error.to_string().contains("no uplink"), "{error}");
    assert_eq!(read(""), "STATUS\n");

    // What does not pass its CHECK is attached, and the plugin's words are told.
    std::fs::write(format!("{}.fails", log.display()), "CHECK").unwrap();
    let attached = runtime.attach(&attachment()).await.unwrap();
    let complaint = attached.complaint.unwrap();
    assert!(
        complaint.contains("CHECK by noting failed: no uplink"),
        "{complaint}"
    );
    runtime.collect_garbage().await.unwrap();
    assert_eq!(
        asked("GC")["cni.dev/valid-attachments"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn an_older_version_has_only_its_verbs() {
    let fixture = Fixture::new("cni-older");
    let log = noting(&fixture);
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    for (version, verbs) in [
        ("0.3.1", "ADD\n"),
        ("0.4.0", "ADD\nCHECK\n"),
        ("1.0.0", "ADD\nCHECK\n"),
    ] {
        let runtime = Runtime::new(fixture.chain_of(version, json!([{"type": "noting"}])));
        runtime.status().await.unwrap();
        runtime.attach(&attachment()).await.unwrap();
        runtime.collect_garbage().await.unwrap();
        assert_eq!(read(), verbs, "{version}");
        std::fs::remove_file(&log).unwrap();
    }
}

#[tokio::test]
async fn a_plugin_gets_the_capabilities_that_it_declares() {
    let fixture = Fixture::new("cni-capable");
    let log = noting(&fixture);
    let asked = |verb: &str| -> Value {
        let path = format!("{}.{verb}", log.display());
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let chain = fixture.chain(json!([{
        "type": "noting", "capabilities": {"portMappings": true, "bandwidth": false, "aliases": true},
    }]));
    let mut attachment = attachment();
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    attachment
        .capabilities
        .insert("portMappings".into(), ports.clone());
    attachment
        .capabilities
        .insert("bandwidth".into(), json!({"ingressRate": 1}));
    chain.add(&attachment).await.unwrap();
    assert_eq!(
        asked("ADD")["runtimeConfig"],
        json!({ "portMappings": ports })
    );
    assert!(asked("ADD").get("capabilities").is_none());
    chain.delete(&attachment, None).await.unwrap();
    assert_eq!(
        asked("DEL")["runtimeConfig"],
        json!({ "portMappings": ports })
    );
    chain.status().await.unwrap();
    assert!(asked("STATUS").get("runtimeConfig").is_none());
}

#[tokio::test]
async fn the_version_of_a_chain_is_the_newest_that_all_speak() {
    let folder = tempfile::tempdir().unwrap();
    let speaks = |name: &str, versions: &str| {
        script(
            folder.path(),
            name,
            &format!("echo '{{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[{versions}]}}'"),
        );
    };
    speaks("old", r#""0.3.1","0.4.0","1.0.0""#);
    speaks("older", r#""0.3.0","0.3.1""#);
    speaks("new", r#""1.0.0","1.1.0""#);
    script(folder.path(), "silent", "exit 3");
    let folders = [folder.path().to_owned()];
    for (plugins, expected) in [
        (json!([]), "1.1.0"),
        (
            json!([{"type": "new"}, {"type": "silent"}, {"type": "absent"}]),
            "1.1.0",
        ),
        (json!([{"type": "new"}, {"type": "old"}]), "1.0.0"),
        (json!([{"type": "old"}, {"type": "older"}]), "0.3.1"),
    ] {
        let plugins = plugins.as_array().unwrap();
        assert_eq!(
            common_version(&folders, plugins).await,
            expected,
            "{plugins:?}"
        );
    }
}

#[test]
fn addresses_are_listed_ipv4_first() {
    let result = json!({"ips": [{"address": "fd00::5/64"}, {"address": "10.0.0.5/24"}]});
    assert_eq!(addresses(&result), ["10.0.0.5", "fd00::5"]);
}
