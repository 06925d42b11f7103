//! `heddle lab describe`: all about an object, as text.

use crate::LabError;
use crate::events;
use crate::time;
use heddle_kube::store::{Kind, Object, Scope, Store, StoreError};
use heddle_kube::timestamp::seconds_of;
use heddle_model::NamespacedName;
use serde_json::Value;
use std::fmt::Write;

/// Events that are shown, the last ones.
const SHOWN_EVENTS: usize = 20;
/// What only `apply` reads.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Kinds whose objects can select a pod.
const POLICIES: [Kind; 4] = [
    Kind::NetworkPolicy,
    Kind::CiliumNetworkPolicy,
    Kind::CiliumClusterwideNetworkPolicy,
    Kind::ClusterNetworkPolicy,
];

/// All about an object; `events` are those of its lab, whose ages count to `now`, in seconds since 1970.
///
/// # Errors
///
/// When the store does not answer.
pub async fn describe(
    store: &dyn Store,
    events: &[Value],
    object: &Object,
    now: u64,
) -> Result<String, LabError> {
    let mut text = Text::default();
    text.head(object);
    match object.kind {
        Kind::Pod => {
            text.pod(object);
            text.section("Policies", policies_of(store, &object.name).await?);
        }
        Kind::Node => {
            let pods = store.list(&Scope::all(Kind::Pod)).await?;
            text.node(object, &pods);
        }
        kind if kind.is_policy() => {
            text.policy(object);
            text.section("Selects", selected_by(store, object).await?);
            text.yaml("Spec", &object.value["spec"]);
            text.yaml("Specs", &object.value["specs"]);
        }
        _ => {
            text.yaml("Spec", &object.value["spec"]);
            text.yaml("Status", &object.value["status"]);
        }
    }
    text.events(events, object, now);
    Ok(text.0)
}

/// A pod's labels as policies see them, by the identity that its endpoint has.
async fn labels_of(
    store: &dyn Store,
    name: &NamespacedName,
) -> Result<Option<impl Fn(&Value) -> Vec<&'static str>>, LabError> {
    let endpoints = store
        .list(&Scope::all(Kind::CiliumEndpoint).in_namespace(&name.namespace))
        .await?;
    let endpoint = endpoints
        .into_iter()
        .find(|endpoint| endpoint.name == *name);
    let Some(number) = endpoint.and_then(|it| it.value["status"]["identity"]["id"].as_u64()) else {
        return Ok(None);
    };
    let name = NamespacedName::new("", number.to_string());
    let identity = match store.get(Kind::CiliumIdentity, &name).await {
        Ok(identity) => identity,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let parsed = heddle_kube::identity::parse_identity(&identity.value);
    Ok(parsed.map(|(_, labels)| {
        move |policy: &Value| {
            let parsed = heddle_kube::policy::parse(policy).policy;
            let specs = parsed.iter().flat_map(|policy| &policy.specs);
            let about: Vec<_> = specs.filter(|spec| spec.subject.matches(&labels)).collect();
            let mut directions = Vec::new();
            if about.is_empty() {
                return directions;
            }
            if about.iter().any(|spec| spec.isolates.ingress) {
                directions.push("ingress");
            }
            if about.iter().any(|spec| spec.isolates.egress) {
                directions.push("egress");
            }
            if directions.is_empty() {
                directions.push("no default deny");
            }
            directions
        }
    }))
}

async fn policies_of(store: &dyn Store, pod: &NamespacedName) -> Result<Vec<String>, LabError> {
    let Some(directions) = labels_of(store, pod).await? else {
        return Ok(vec!["unknown: the pod has no endpoint yet".to_owned()]);
    };
    let mut found = Vec::new();
    for kind in POLICIES {
        for policy in store.list(&Scope::all(kind)).await? {
            let directions = directions(&policy.value);
            if !directions.is_empty() {
                let label = crate::apply::label(kind, &policy.name);
                found.push(format!("{label} ({})", directions.join(", ")));
            }
        }
    }
    Ok(found)
}

async fn selected_by(store: &dyn Store, policy: &Object) -> Result<Vec<String>, LabError> {
    let mut found = Vec::new();
    for pod in store.list(&Scope::all(Kind::Pod)).await? {
        if let Some(directions) = labels_of(store, &pod.name).await?
            && !directions(&policy.value).is_empty()
        {
            found.push(crate::apply::label(Kind::Pod, &pod.name));
        }
    }
    Ok(found)
}

/// Text in kubectl's form: names on the left, what they have beside or below.
#[derive(Default)]
struct Text(String);

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Text {
    fn field(&mut self, name: &str, value: &str) {
        let shown = if value.is_empty() { "<none>" } else { value };
        let _ = writeln!(self.0, "{:<18}{shown}", format!("{name}:"));
    }

    /// A name with lines below it, or `<none>`.
    fn section(&mut self, name: &str, lines: Vec<String>) {
        if lines.is_empty() {
            self.field(name, "");
            return;
        }
        let _ = writeln!(self.0, "{name}:");
        for line in lines {
            let _ = writeln!(self.0, "  {line}");
        }
    }

    fn yaml(&mut self, name: &str, value: &Value) {
        if value.is_null() {
            return;
        }
        let text = serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string());
        self.section(name, text.trim_end().lines().map(str::to_owned).collect());
    }

    fn map(&mut self, name: &str, map: &Value) {
        let mut lines = map
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| *key != LAST_APPLIED);
        let first = lines.next();
        self.field(
            name,
            &first.map_or_else(String::new, |(key, value)| {
                format!("{key}={}", text_of(value))
            }),
        );
        for (key, value) in lines {
            let _ = writeln!(self.0, "{:<18}{key}={}", "", text_of(value));
        }
    }

    fn head(&mut self, object: &Object) {
        let metadata = &object.value["metadata"];
        self.field("Name", &object.name.name);
        if object.kind.is_namespaced() {
            self.field("Namespace", &object.name.namespace);
        }
        self.field("Kind", object.kind.name());
        self.map("Labels", &metadata["labels"]);
        self.map("Annotations", &metadata["annotations"]);
        self.field("Created", &text_of(&metadata["creationTimestamp"]));
        if metadata["deletionTimestamp"].is_string() {
            self.field("Ending since", &text_of(&metadata["deletionTimestamp"]));
        }
    }

    fn pod(&mut self, pod: &Object) {
        let (spec, status) = (&pod.value["spec"], &pod.value["status"]);
        self.field("Node", &text_of(&spec["nodeName"]));
        self.field("Status", &text_of(&status["phase"]));
        for key in ["reason", "message"] {
            if status[key].is_string() {
                self.field(
                    if key == "reason" { "Reason" } else { "Message" },
                    &text_of(&status[key]),
                );
            }
        }
        let addresses = status["podIPs"].as_array().into_iter().flatten();
        let addresses: Vec<String> = addresses.map(|one| text_of(&one["ip"])).collect();
        self.field("IPs", &addresses.join(", "));
        if spec["hostNetwork"] == true {
            self.field("Host Network", "true");
        }
        for (title, key, statuses) in [
            ("Init Containers", "initContainers", "initContainerStatuses"),
            ("Containers", "containers", "containerStatuses"),
        ] {
            let containers = spec[key].as_array().map_or(&[][..], Vec::as_slice);
            if containers.is_empty() {
                continue;
            }
            let _ = writeln!(self.0, "{title}:");
            for container in containers {
                let state = status[statuses]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|one| one["name"] == container["name"])
                    .unwrap_or(&Value::Null);
                self.container(container, state);
            }
        }
        self.conditions(status);
    }

    fn container(&mut self, container: &Value, status: &Value) {
        let _ = writeln!(self.0, "  {}:", text_of(&container["name"]));
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                let _ = writeln!(self.0, "    {:<16}{value}", format!("{name}:"));
            }
        };
        let words = |key: &str| {
            let words = container[key].as_array().into_iter().flatten();
            words.map(text_of).collect::<Vec<_>>().join(" ")
        };
        line("Image", text_of(&container["image"]));
        line("Command", words("command"));
        line("Args", words("args"));
        let ports = container["ports"].as_array().into_iter().flatten();
        let ports: Vec<String> = ports
            .map(|port| {
                let protocol = port["protocol"].as_str().unwrap_or("TCP");
                let name = port["name"]
                    .as_str()
                    .map_or_else(String::new, |name| format!(" ({name})"));
                format!("{}/{protocol}{name}", port["containerPort"])
            })
            .collect();
        line("Ports", ports.join(", "));
        line("State", state(&status["state"]));
        line("Last State", state(&status["lastState"]));
        line("Ready", text_of(&status["ready"]));
        line("Restarts", text_of(&status["restartCount"]));
        for (name, key) in [
            ("Readiness", "readinessProbe"),
            ("Liveness", "livenessProbe"),
            ("Startup", "startupProbe"),
        ] {
            if !container[key].is_null() {
                line(name, probe(&container[key]));
            }
        }
    }

    fn node(&mut self, node: &Object, pods: &[Object]) {
        let (spec, status) = (&node.value["spec"], &node.value["status"]);
        let addresses = status["addresses"].as_array().into_iter().flatten();
        let addresses =
            addresses.map(|one| format!("{} {}", text_of(&one["type"]), text_of(&one["address"])));
        self.section("Addresses", addresses.collect());
        let ranges = spec["podCIDRs"].as_array().into_iter().flatten();
        self.section("Pod CIDRs", ranges.map(text_of).collect());
        self.conditions(status);
        let on_it = |pod: &&Object| pod.value["spec"]["nodeName"] == *node.name.name;
        let pods = pods.iter().filter(on_it).map(|pod| pod.name.to_string());
        self.section("Pods", pods.collect());
    }

    fn policy(&mut self, policy: &Object) {
        let status = &policy.value["status"];
        let enforcement = &status["enforcement"];
        if !enforcement.is_null() {
            self.field(
                "In force on",
                &format!(
                    "{} of {} nodes, {} endpoints",
                    enforcement["nodes"], enforcement["ofNodes"], enforcement["endpoints"]
                ),
            );
        }
        self.conditions(status);
    }

    fn conditions(&mut self, status: &Value) {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let lines = conditions.map(|one| {
            let words = [&one["reason"], &one["message"]].map(text_of);
            let words: Vec<String> = words
                .into_iter()
                .filter(|words| !words.is_empty())
                .collect();
            format!(
                "{:<28}{:<8}{}",
                text_of(&one["type"]),
                text_of(&one["status"]),
                words.join(": ")
            )
            .trim_end()
            .to_owned()
        });
        self.section("Conditions", lines.collect());
    }

    fn events(&mut self, all: &[Value], object: &Object, now: u64) {
        let about: Vec<&Value> = all
            .iter()
            .filter(|event| events::is_about(event, object.kind, &object.name))
            .collect();
        let last = &about[about.len().saturating_sub(SHOWN_EVENTS)..];
        self.section(
            "Events",
            last.iter().map(|event| event_line(event, now)).collect(),
        );
    }
}

/// One event in a line: type, reason, age, how often, message.
fn event_line(event: &Value, now: u64) -> String {
    let age = event["lastTimestamp"]
        .as_str()
        .and_then(seconds_of)
        .map_or_else(String::new, |at| time::age(now.saturating_sub(at)));
    let times = match event["count"].as_u64() {
        Some(count) if count > 1 => format!("{age} (x{count})"),
        _ => age,
    };
    format!(
        "{:<9}{:<24}{times:<14}{}",
        text_of(&event["type"]),
        text_of(&event["reason"]),
        text_of(&event["message"])
    )
}

/// A container's state in a line.
fn state(state: &Value) -> String {
    let (name, what) = match state.as_object().and_then(|map| map.iter().next()) {
        Some((name, what)) => (name.as_str(), what),
        None => return String::new(),
    };
    let mut parts = vec![name.to_owned()];
    for key in ["reason", "message", "exitCode", "startedAt", "finishedAt"] {
        let value = text_of(&what[key]);
        if !value.is_empty() {
            parts.push(match key {
                "exitCode" => format!("exit code {value}"),
                "startedAt" => format!("since {value}"),
                "finishedAt" => format!("until {value}"),
                _ => value,
            });
        }
    }
    parts.join(", ")
}

/// A probe in a line.
fn probe(probe: &Value) -> String {
    let what = if let Some(get) = probe.get("httpGet") {
        format!(
            "httpGet :{}{}",
            text_of(&get["port"]),
            text_of(&get["path"])
        )
    } else if let Some(socket) = probe.get("tcpSocket") {
        format!("tcpSocket :{}", text_of(&socket["port"]))
    } else if let Some(exec) = probe.get("exec") {
        let words = exec["command"].as_array().into_iter().flatten();
        format!(
            "exec [{}]",
            words.map(text_of).collect::<Vec<_>>().join(" ")
        )
    } else {
        "unknown".to_owned()
    };
    let number = |key: &str, usual: u64| probe[key].as_u64().unwrap_or(usual);
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_described_as_kubectl_does() {
        let pod = Object {
            kind: Kind::Pod,
            name: NamespacedName::new("shop", "web"),
            version: heddle_kube::store::Version::new("1"),
            value: json!({
                "metadata": {"labels": {"app": "web", "tier": "front"}, "annotations": {LAST_APPLIED: "{}"}},
                "spec": {"nodeName": "node-1", "containers": [{
                    "name": "c", "image": "heddle/echo", "ports": [{"containerPort": 80, "name": "http"}],
                    "readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
                }]},
                "status": {
                    "phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                    "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "c: refused"}],
                    "containerStatuses": [{"name": "c", "ready": false, "restartCount": 2,
                        "state": {"running": {"startedAt": "2026-11-21T06:49:36Z"}}, "lastState": {}}],
                },
            }),
        };
        let mut text = Text::default();
        text.head(&pod);
        text.pod(&pod);
        text.events(&[], &pod, 0);
        let text = text.0;
        for line in [
            "Labels:           app=web",
            "                  tier=front",
            "Annotations:      <none>",
            "IPs:              10.0.0.1, fd00::1",
            "    Ports:          80/TCP (http)",
            "    State:          running, since 2026-11-21T06:49:36Z",
            "    Restarts:       2",
            "    Readiness:      tcpSocket :80 delay=0s timeout=1s period=1s #success=1 #failure=3",
            "Events:           <none>",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("ContainersNotReady: c: refused"), "{text}");
    }
}
