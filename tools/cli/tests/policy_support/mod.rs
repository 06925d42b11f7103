//! `heddle policy` run on manifests that a test writes.
#![allow(dead_code)] // Each test file uses a part of it.

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Two namespaces, five pods, a Service.
pub(crate) const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ops, labels: {team: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {nodeName: n2, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: n2, containers: [{name: c}]}
---
apiVersion: v1
kind: Pod
metadata: {name: monitor, namespace: ops, labels: {app: monitor}}
spec: {nodeName: n1, containers: [{name: c}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, clusterIP: 10.96.0.7, ports: [{port: 80, targetPort: 8080}]}
"#;

/// Runs `heddle policy` in a folder.
pub(crate) fn heddle(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heddle"))
        .arg("policy")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("heddle runs")
}

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What was printed, as JSON.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A NetworkPolicy of the namespace shop.
pub(crate) fn network_policy(name: &str, spec: &str) -> String {
    object("networking.k8s.io/v1", "NetworkPolicy", name, spec)
}

/// A CiliumNetworkPolicy of the namespace shop.
pub(crate) fn cnp(name: &str, spec: &str) -> String {
    object("cilium.io/v2", "CiliumNetworkPolicy", name, spec)
}

/// A ClusterNetworkPolicy.
pub(crate) fn cluster_policy(name: &str, spec: &str) -> String {
    object(
        "policy.networking.k8s.io/v1alpha2",
        "ClusterNetworkPolicy",
        name,
        spec,
    )
}

fn object(version: &str, kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}
