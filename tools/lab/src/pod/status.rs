//! A pod's status as Kubernetes writes it.

use crate::pod::container::{Ending, Phase, State};
use crate::pod::spec::{Container, RestartPolicy};
use serde_json::{Value, json};

/// What is known about a pod's run.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Its containers' states, in the order of the manifest.
    pub states: Vec<State>,
    /// States of the containers that come first.
    pub init: Vec<State>,
    /// The pod's addresses; empty before its network is there.
    pub addresses: Vec<String>,
    /// Why there is no network yet; empty when there is.
    pub network: String,
    /// What a plugin's CHECK found wrong; empty when it found nothing.
    pub check: String,
}

/// The phase of a pod whose containers are in these states.
pub fn phase(report: &Report, policy: RestartPolicy) -> &'static str {
    let code = |state: &State| match &state.phase {
        Phase::Ended(ending) => Some(ending.code),
        _ => None,
    };
    if policy != RestartPolicy::Always {
        let failed = report.init.iter().filter_map(code).any(|code| code != 0);
        if failed && policy == RestartPolicy::Never {
            return "Failed";
        }
        let codes: Option<Vec<i32>> = report.states.iter().map(code).collect();
        if let Some(codes) = codes.filter(|codes| !codes.is_empty()) {
            return if codes.iter().all(|code| *code == 0) {
                "Succeeded"
            } else {
                "Failed"
            };
        }
    }
    let started = report.states.iter().any(|state| {
        state.restarts > 0 || state.last.is_some() || !matches!(state.phase, Phase::Waiting { .. })
    });
    if started { "Running" } else { "Pending" }
}

/// True when every container is ready.
pub fn is_ready(report: &Report) -> bool {
    report.network.is_empty() && !report.states.is_empty() && report.states.iter().all(|s| s.ready)
}

/// `status` for the store; `previous` is the status that it replaces, for the times of its conditions.
pub fn status(
    report: &Report,
    policy: RestartPolicy,
    containers: (&[Container], &[Container]),
    node_addresses: &[String],
    previous: &Value,
) -> Value {
    let phase = phase(report, policy);
    let ready = is_ready(report);
    let done = phase == "Succeeded";
    let unready: Vec<String> = report
        .states
        .iter()
        .zip(containers.0)
        .filter(|(state, _)| !state.ready)
        .map(|(state, container)| match &state.phase {
            Phase::Waiting { reason, message } if message.is_empty() => {
                format!("{}: {reason}", container.name)
            }
            Phase::Waiting { reason, message } => {
                format!("{}: {reason}: {message}", container.name)
            }
            Phase::Running { .. } if state.unready.is_empty() => {
                format!("{}: not ready yet", container.name)
            }
            Phase::Running { .. } => format!("{}: {}", container.name, state.unready),
            Phase::Ended(ending) => format!("{}: ended with code {}", container.name, ending.code),
        })
        .collect();
    let initialising = report
        .init
        .iter()
        .zip(containers.1)
        .find_map(|(state, container)| match &state.phase {
            Phase::Ended(ending) if ending.code == 0 => None,
            Phase::Ended(ending) => {
                let more = if ending.message.is_empty() { "" } else { ": " };
                Some(format!(
                    "init container {} ended with code {}{more}{}",
                    container.name, ending.code, ending.message
                ))
            }
            Phase::Waiting { reason, message } if !message.is_empty() => Some(format!(
                "init container {}: {reason}: {message}",
                container.name
            )),
            // Before the first starts there is nothing to say, nor while one does its work.
            _ => Some(String::new()),
        })
        .filter(|message| !message.is_empty());
    let (reason, message) = if ready {
        ("", String::new())
    } else if done {
        ("PodCompleted", String::new())
    } else if !report.network.is_empty() {
        ("NetworkNotReady", report.network.clone())
    } else {
        (
            "ContainersNotReady",
            initialising.clone().unwrap_or_else(|| unready.join("; ")),
        )
    };
    let initialised = report
        .init
        .iter()
        .all(|state| matches!(&state.phase, Phase::Ended(ending) if ending.code == 0));
    let conditions = [
        ("PodScheduled", true, "", String::new()),
        (
            "PodReadyToStartContainers",
            report.network.is_empty(),
            if report.network.is_empty() {
                ""
            } else {
                "NetworkNotReady"
            },
            report.network.clone(),
        ),
        (
            "Initialized",
            initialised,
            if initialised {
                ""
            } else {
                "ContainersNotInitialized"
            },
            initialising.unwrap_or_default(),
        ),
        ("ContainersReady", ready, reason, message.clone()),
        ("Ready", ready, reason, message),
    ];
    // Said only where there is something to say: Kubernetes has no such condition.
    let check = (!report.check.is_empty()).then(|| {
        let message = report.check.clone();
        ("NetworkChecked", false, "CheckFailed", message)
    });
    let conditions: Vec<Value> = conditions
        .into_iter()
        .chain(check)
        .map(|(kind, good, reason, message)| condition(previous, kind, good, reason, &message))
        .collect();
    let mut status = json!({
        "phase": phase,
        "conditions": conditions,
        "containerStatuses": statuses(&report.states, containers.0),
        "hostIP": node_addresses.first(),
        "hostIPs": node_addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
        "startTime": match &previous["startTime"] {
            Value::String(known) => known.clone(),
            _ => crate::time::stamp(),
        },
    });
    if !containers.1.is_empty() {
        status["initContainerStatuses"] = statuses(&report.init, containers.1);
    }
    if let Some(first) = report.addresses.first() {
        status["podIP"] = json!(first);
        status["podIPs"] = report
            .addresses
            .iter()
            .map(|ip| json!({"ip": ip}))
            .collect();
    }
    status
}

/// A condition; its transition time is kept while its status stays.
pub fn condition(previous: &Value, kind: &str, good: bool, reason: &str, message: &str) -> Value {
    let status = if good { "True" } else { "False" };
    let since = previous["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind && condition["status"] == status)
        .and_then(|condition| condition["lastTransitionTime"].as_str())
        .map_or_else(crate::time::stamp, str::to_owned);
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since});
    if !reason.is_empty() {
        condition["reason"] = json!(reason);
    }
    if !message.is_empty() {
        condition["message"] = json!(message);
    }
    condition
}

fn statuses(states: &[State], containers: &[Container]) -> Value {
    states
        .iter()
        .zip(containers)
        .map(|(state, container)| {
            let current = match &state.phase {
                Phase::Waiting { reason, message } => {
                    json!({"waiting": {"reason": reason, "message": message}})
                }
                Phase::Running { since } => json!({"running": {"startedAt": since}}),
                Phase::Ended(ending) => json!({"terminated": ended(ending)}),
            };
            json!({
                "name": container.name,
                "image": container.image,
                "ready": state.ready,
                "started": matches!(state.phase, Phase::Running { .. }),
                "restartCount": state.restarts,
                "state": current,
                "lastState": state.last.as_ref().map_or(json!({}), |last| json!({"terminated": ended(last)})),
            })
        })
        .collect()
}

fn ended(ending: &Ending) -> Value {
    json!({
        "exitCode": ending.code,
        "reason": ending.reason,
        "message": ending.message,
        "startedAt": ending.started,
        "finishedAt": ending.finished,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(phase: Phase, ready: bool) -> State {
        State {
            phase,
            ready,
            ..State::creating()
        }
    }

    fn ended_with(code: i32) -> Phase {
        Phase::Ended(Ending {
            code,
            reason: "Completed".into(),
            message: String::new(),
            started: "s".into(),
            finished: "f".into(),
        })
    }

    fn report(states: Vec<State>) -> Report {
        Report {
            states,
            init: Vec::new(),
            addresses: vec!["10.0.0.5".into(), "fd00::5".into()],
            network: String::new(),
            check: String::new(),
        }
    }

    #[test]
    fn phases_follow_containers_and_restart_policy() {
        let running = || state(Phase::Running { since: "s".into() }, true);
        for (states, policy, expected) in [
            (vec![State::creating()], RestartPolicy::Always, "Pending"),
            (vec![running()], RestartPolicy::Always, "Running"),
            (
                vec![running(), state(ended_with(0), false)],
                RestartPolicy::Never,
                "Running",
            ),
            (
                vec![state(ended_with(0), false)],
                RestartPolicy::Never,
                "Succeeded",
            ),
            (
                vec![state(ended_with(3), false)],
                RestartPolicy::OnFailure,
                "Failed",
            ),
            (
                vec![state(ended_with(0), false)],
                RestartPolicy::Always,
                "Running",
            ),
        ] {
            assert_eq!(
                phase(&report(states.clone()), policy),
                expected,
                "{states:?}"
            );
        }
    }

    #[test]
    fn a_transition_time_stays_while_the_status_stays() {
        let old = json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "then"}]});
        assert_eq!(
            condition(&old, "Ready", true, "", "")["lastTransitionTime"],
            "then"
        );
        assert_ne!(
            condition(&old, "Ready", false, "", "")["lastTransitionTime"],
            "then"
        );
    }

    #[test]
    fn a_failing_init_container_is_the_reason() {
        let mut report = report(vec![State::creating()]);
        report.init = vec![state(ended_with(3), false)];
        let pod = serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "initContainers": [{"name": "prepare", "image": "heddle/idle"}],
                "containers": [{"name": "c", "image": "heddle/idle"}],
            },
        });
        let spec = crate::pod::spec::parse(&pod, "").0.unwrap();
        let status = status(
            &report,
            RestartPolicy::Always,
            (&spec.containers, &spec.init),
            &[],
            &Value::Null,
        );
        for (index, kind) in [(2, "Initialized"), (4, "Ready")] {
            let condition = &status["conditions"][index];
            assert_eq!(condition["type"], kind);
            assert_eq!(
                condition["message"],
                "init container prepare ended with code 3"
            );
        }
    }

    #[test]
    fn a_pod_without_network_says_why() {
        let mut report = report(vec![State::creating()]);
        report.network = "CNI ADD failed".into();
        report.addresses.clear();
        let status = status(
            &report,
            RestartPolicy::Always,
            (&[], &[]),
            &[],
            &Value::Null,
        );
        assert_eq!(status["conditions"][4]["message"], "CNI ADD failed");
        assert_eq!(status["podIP"], Value::Null);
    }
}
