//! The chain calls real executables: scripts that record what they were asked.

use super::*;
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
        Chain {
            configuration: json!({"cniVersion": "1.1.0", "name": "t", "plugins": plugins}),
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

#[test]
fn addresses_are_listed_ipv4_first() {
    let result = json!({"ips": [{"address": "fd00::5/64"}, {"address": "10.0.0.5/24"}]});
    assert_eq!(addresses(&result), ["10.0.0.5", "fd00::5"]);
}
