//! Kubernetes Events of a lab: what happened to its pods, nodes and policies, in a bounded file of the lab's own.

use crate::LabError;
use crate::files;
use crate::paths::Lab;
use crate::time;
use heddle_kube::store::{Kind, Object};
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;

/// Events that are kept; of more, those that happened longest ago go.
pub const MOST_EVENTS: usize = 1_000;

/// What happened to an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// True for a Warning.
    pub warning: bool,
    /// One word: `Started`, `BackOff`.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

impl Happening {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: false,
            reason,
            message: message.into(),
        }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            warning: true,
            reason,
            message: message.into(),
        }
    }
}

/// What a change of an object tells; `old` is `None` for a new one.
pub fn between(old: Option<&Object>, new: &Object) -> Vec<Happening> {
    let empty = Value::Null;
    let old = old.map_or(&empty, |object| &object.value);
    match new.kind {
        Kind::Pod => of_pod(old, &new.value),
        Kind::Node => of_node(old, &new.value),
        kind if kind.is_policy() => of_policy(old, &new.value),
        _ => Vec::new(),
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// The words of a condition that is false now and was not, or not for this reason.
fn newly_false(old: &Value, new: &Value, kind: &str) -> Option<String> {
    let (before, now) = (condition(old, kind), condition(new, kind));
    let same = before["status"] == now["status"]
        && before["message"] == now["message"]
        && before["reason"] == now["reason"];
    if now["status"] != "False" || same {
        return None;
    }
    let words = now["message"].as_str().or(now["reason"].as_str());
    Some(words.unwrap_or_default().to_owned())
}

fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind)["status"] == "True"
}

fn of_pod(old: &Value, new: &Value) -> Vec<Happening> {
    let mut found = Vec::new();
    let node = |pod: &Value| {
        pod["spec"]["nodeName"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    if node(old).is_empty() && !node(new).is_empty() {
        found.push(Happening::normal(
            "Scheduled",
            format!("assigned to {}", node(new)),
        ));
    }
    if let Some(why) = newly_false(old, new, "PodScheduled") {
        found.push(Happening::warning("FailedScheduling", why));
    }
    if new["status"]["phase"] == "Failed" && old["status"]["phase"] != "Failed" {
        let why = new["status"]["message"]
            .as_str()
            .unwrap_or("the pod failed");
        found.push(Happening::warning("Failed", why));
    }
    // The first of these says that the network is being made, which is no failure.
    if let Some(why) = newly_false(old, new, "PodReadyToStartContainers")
        && !why.ends_with("is being made")
    {
        found.push(Happening::warning("FailedCreatePodSandBox", why));
    }
    if let Some(why) = newly_false(old, new, "NetworkChecked") {
        found.push(Happening::warning("NetworkCheckFailed", why));
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for container in new["status"][list].as_array().into_iter().flatten() {
            let before = old["status"][list]
                .as_array()
                .into_iter()
                .flatten()
                .find(|one| one["name"] == container["name"])
                .unwrap_or(&Value::Null);
            of_container(before, container, &mut found);
        }
    }
    let ending = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string();
    if ending(new) {
        if !ending(old) {
            found.push(Happening::normal("Killing", "the pod is being ended"));
        }
        return found;
    }
    let running = |pod: &Value| {
        let all = pod["status"]["containerStatuses"].as_array();
        all.is_some_and(|all| all.iter().all(|one| one["state"]["running"].is_object()))
    };
    match (is_true(old, "Ready"), is_true(new, "Ready")) {
        (false, true) => found.push(Happening::normal("Ready", "the pod is ready")),
        (true, false) => {
            let why = newly_false(old, new, "Ready").unwrap_or_default();
            found.push(Happening::warning("Unready", why));
        }
        // Its containers run, and a probe has said something new.
        (false, false) if running(new) && running(old) => {
            if let Some(why) = newly_false(old, new, "Ready")
                && !why.ends_with("not ready yet")
            {
                found.push(Happening::warning("Unhealthy", why));
            }
        }
        _ => {}
    }
    found
}

fn of_container(old: &Value, new: &Value, found: &mut Vec<Happening>) {
    let name = new["name"].as_str().unwrap_or_default();
    // Between two looks a container may have ended and begun again.
    let endings = |status: &Value| {
        [
            &status["state"]["terminated"],
            &status["lastState"]["terminated"],
        ]
        .into_iter()
        .filter(|ending| ending.is_object())
        .cloned()
        .collect::<Vec<_>>()
    };
    let known = endings(old);
    for ending in endings(new).iter().filter(|ending| !known.contains(ending)) {
        let code = ending["exitCode"].as_i64().unwrap_or_default();
        if code != 0 {
            let words = ending["message"].as_str().filter(|words| !words.is_empty());
            let more = words.map_or_else(String::new, |words| format!(": {words}"));
            found.push(Happening::warning(
                "Failed",
                format!("container {name} ended with code {code}{more}"),
            ));
        }
    }
    let waiting = &new["state"]["waiting"];
    if waiting["reason"] == "CrashLoopBackOff" && old["state"]["waiting"] != *waiting {
        let words = waiting["message"].as_str().unwrap_or_default();
        found.push(Happening::warning(
            "BackOff",
            format!("container {name}: {words}"),
        ));
    }
    let started = |status: &Value| {
        (
            status["state"]["running"]["startedAt"].clone(),
            status["restartCount"].clone(),
        )
    };
    if new["state"]["running"].is_object()
        && (old["state"]["running"].is_null() || started(old) != started(new))
    {
        found.push(Happening::normal(
            "Started",
            format!("started container {name}"),
        ));
    }
}

fn of_node(old: &Value, new: &Value) -> Vec<Happening> {
    if is_true(new, "Ready") && !is_true(old, "Ready") {
        return vec![Happening::normal(
            "NodeReady",
            "agent and CNI plugins serve",
        )];
    }
    newly_false(old, new, "Ready")
        .map(|why| Happening::warning("NodeNotReady", why))
        .into_iter()
        .collect()
}

fn of_policy(old: &Value, new: &Value) -> Vec<Happening> {
    newly_false(old, new, "Valid")
        .map(|why| Happening::warning("PolicyRefused", why))
        .into_iter()
        .collect()
}

/// Keeps a lab's events.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    kept: VecDeque<Value>,
    /// Lines in the file: an event that happens again has several, and the last counts.
    lines: usize,
}

impl Recorder {
    /// Goes on with what is on record.
    pub fn open(lab: &Lab) -> Self {
        Self {
            path: lab.events(),
            kept: read(lab).into(),
            // The first event shortens a file of unknown length.
            lines: 2 * MOST_EVENTS,
        }
    }

    /// Adds what happened to an object.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn record(&mut self, object: &Object, happening: &Happening) -> Result<(), LabError> {
        let now = time::stamp();
        let known = self
            .kept
            .iter()
            .position(|event| is_same(event, object, happening));
        let event = match known.and_then(|at| self.kept.remove(at)) {
            Some(mut event) => {
                event["count"] = json!(event["count"].as_u64().unwrap_or(1) + 1);
                event["lastTimestamp"] = json!(now);
                event
            }
            None => new_event(object, happening, &now, self.next_number()),
        };
        self.kept.push_back(event.clone());
        while self.kept.len() > MOST_EVENTS {
            self.kept.pop_front();
        }
        if self.lines >= 2 * MOST_EVENTS {
            let all: Vec<String> = self.kept.iter().map(|event| format!("{event}\n")).collect();
            files::write(&self.path, all.concat().as_bytes())?;
            self.lines = self.kept.len();
            return Ok(());
        }
        self.lines += 1;
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(format!("{event}\n").as_bytes()))
            .map_err(|error| LabError::file("write", &self.path, error))
    }

    fn next_number(&self) -> u64 {
        let numbers = self.kept.iter().filter_map(|event| {
            event["metadata"]["resourceVersion"]
                .as_str()?
                .parse::<u64>()
                .ok()
        });
        numbers.max().unwrap_or(0) + 1
    }
}

fn is_same(event: &Value, object: &Object, happening: &Happening) -> bool {
    let about = &event["involvedObject"];
    about["kind"] == object.kind.name()
        && about["namespace"].as_str().unwrap_or_default() == object.name.namespace
        && about["name"] == *object.name.name
        && about["uid"] == object.value["metadata"]["uid"]
        && event["reason"] == happening.reason
        && event["message"] == *happening.message
}

fn new_event(object: &Object, happening: &Happening, now: &str, number: u64) -> Value {
    let component = match object.kind {
        Kind::Pod => "kubelet",
        Kind::Node => "node-controller",
        _ => "heddle",
    };
    // Events of what has no namespace live in `default`, as in Kubernetes.
    let namespace = match object.name.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{number:x}", object.name.name),
            "namespace": namespace,
            "creationTimestamp": now,
            "resourceVersion": number.to_string(),
        },
        "involvedObject": {
            "apiVersion": object.kind.api_version(),
            "kind": object.kind.name(),
            "namespace": object.name.namespace,
            "name": object.name.name,
            "uid": object.value["metadata"]["uid"],
        },
        "type": if happening.warning { "Warning" } else { "Normal" },
        "reason": happening.reason,
        "message": happening.message,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": component},
    })
}

/// A lab's events, as `v1` Event objects in the order in which they happened last.
pub fn read(lab: &Lab) -> Vec<Value> {
    let text = std::fs::read_to_string(lab.events()).unwrap_or_default();
    let mut found: Vec<Value> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for event in text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
    {
        let name = event["metadata"]["name"].to_string();
        if let Some(at) = places.insert(name, found.len()) {
            found[at] = Value::Null;
        }
        found.push(event);
    }
    found.retain(|event| !event.is_null());
    let surplus = found.len().saturating_sub(MOST_EVENTS);
    found.drain(..surplus);
    found
}

/// True for an event about this object.
pub fn is_about(event: &Value, kind: Kind, name: &NamespacedName) -> bool {
    let about = &event["involvedObject"];
    about["kind"] == kind.name()
        && about["name"] == *name.name
        && about["namespace"].as_str().unwrap_or_default() == name.namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Object {
        Object {
            kind: Kind::Pod,
            name: NamespacedName::new("n", "p"),
            version: heddle_kube::store::Version::new("1"),
            value: json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"nodeName": "node-1"},
                "status": status,
            }),
        }
    }

    fn ready(status: &str, message: &str) -> Value {
        json!([{"type": "Ready", "status": status, "message": message}])
    }

    fn reasons(old: Option<&Object>, new: &Object) -> Vec<&'static str> {
        between(old, new).iter().map(|one| one.reason).collect()
    }

    #[test]
    fn a_pods_life_is_told_once() {
        let scheduled = pod(Value::Null);
        assert_eq!(reasons(None, &scheduled), ["Scheduled"]);
        let running = pod(json!({
            "conditions": ready("False", "c: not ready yet"),
            "containerStatuses": [{"name": "c", "state": {"running": {"startedAt": "s"}}, "restartCount": 0}],
        }));
        assert_eq!(reasons(Some(&scheduled), &running), ["Started"]);
        assert!(reasons(Some(&running), &running).is_empty());
        let mut probed = running.clone();
        probed.value["status"]["conditions"] = ready("False", "c: connection refused");
        assert_eq!(reasons(Some(&running), &probed), ["Unhealthy"]);
        let mut up = running.clone();
        up.value["status"]["conditions"] = ready("True", "");
        assert_eq!(reasons(Some(&probed), &up), ["Ready"]);
        assert_eq!(reasons(Some(&up), &probed), ["Unready"]);
        let crashed = pod(json!({
            "conditions": ready("False", "c: CrashLoopBackOff"),
            "containerStatuses": [{
                "name": "c", "restartCount": 0,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "it ended with code 3"}},
                "lastState": {"terminated": {"exitCode": 3, "finishedAt": "t"}},
            }],
        }));
        assert_eq!(
            reasons(Some(&up), &crashed),
            ["Failed", "BackOff", "Unready"]
        );
    }

    #[test]
    fn failures_of_the_network_and_of_policies_are_warnings() {
        let broken = pod(json!({"conditions": [
            {"type": "PodReadyToStartContainers", "status": "False", "message": "CNI ADD failed"},
        ]}));
        let found = between(Some(&pod(Value::Null)), &broken);
        assert_eq!(
            found,
            [Happening::warning(
                "FailedCreatePodSandBox",
                "CNI ADD failed"
            )]
        );
        let mut policy = broken;
        policy.kind = Kind::CiliumNetworkPolicy;
        policy.value = json!({"status": {"conditions": [
            {"type": "Valid", "status": "False", "reason": "Unsupported", "message": "no L7 yet"},
        ]}});
        assert_eq!(
            between(None, &policy),
            [Happening::warning("PolicyRefused", "no L7 yet")]
        );
    }

    #[test]
    fn what_happens_again_is_counted_and_the_number_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut recorder = Recorder {
            path: path.clone(),
            kept: VecDeque::new(),
            lines: 0,
        };
        let object = pod(Value::Null);
        let again = Happening::warning("BackOff", "again");
        recorder.record(&object, &again).unwrap();
        recorder.record(&object, &again).unwrap();
        assert_eq!(recorder.kept.len(), 1);
        assert_eq!(recorder.kept[0]["count"], 2);
        for number in 0..3 * MOST_EVENTS {
            let other = Happening::normal("Started", number.to_string());
            recorder.record(&object, &other).unwrap();
        }
        assert_eq!(recorder.kept.len(), MOST_EVENTS);
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 2 * MOST_EVENTS, "{lines}");
        let mut names: Vec<_> = recorder
            .kept
            .iter()
            .map(|e| e["metadata"]["name"].to_string())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), MOST_EVENTS);
    }
}
