//! What manifests are understood as.

use super::*;
use serde_json::json;

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

#[test]
fn an_echo_pod_with_a_probe_by_port_name() {
    let (spec, problems) = parse(
        &pod(json!({"terminationGracePeriodSeconds": 3, "containers": [{
            "name": "web", "image": "heddle/echo:1",
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/ok", "port": "http"}, "periodSeconds": 2},
            "env": [{"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        }]})),
        "",
    );
    assert_eq!(problems, []);
    let spec = spec.unwrap();
    assert_eq!(spec.grace, Duration::from_secs(3));
    assert_eq!(spec.containers[0].program, Program::Echo);
    let probe = spec.containers[0].readiness.clone().unwrap();
    assert_eq!(probe.period, Duration::from_secs(2));
    assert!(matches!(probe.check, Check::Http { port: 8080, ref path, .. } if path == "/ok"));
    assert_eq!(
        spec.containers[0].env[0].1,
        EnvValue::Field("spec.nodeName".into())
    );
}

#[test]
fn what_cannot_run_is_an_error_at_its_field() {
    for (spec, field, code) in [
        (json!({"containers": []}), "spec.containers", "pod/invalid"),
        (
            json!({"containers": [{"name": "c", "image": "nginx"}]}),
            "spec.containers[0].command",
            "pod/no-command",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "image": "heddle/idle"}]}),
            "spec.volumes",
            "pod/unsupported",
        ),
        (
            json!({"containers": [{"name": "c", "image": "heddle/echo", "ports": [{"containerPort": 99999}]}]}),
            "spec.containers[0].ports[0].containerPort",
            "pod/invalid",
        ),
        (
            json!({"containers": [{"name": "c", "image": "heddle/echo", "readinessProbe": {"tcpSocket": {"port": "web"}}}]}),
            "spec.containers[0].readinessProbe.tcpSocket.port",
            "pod/invalid",
        ),
        (
            json!({"restartPolicy": "Sometimes", "containers": [{"name": "c", "image": "heddle/idle"}]}),
            "spec.restartPolicy",
            "pod/invalid",
        ),
        (
            json!({"containers": [{"name": "c", "image": "heddle/idle"}, {"name": "c", "image": "heddle/idle"}]}),
            "spec.containers",
            "pod/invalid",
        ),
        // No clock goes as far.
        (
            json!({"terminationGracePeriodSeconds": u64::MAX, "containers": [{"name": "c", "image": "heddle/idle"}]}),
            "spec.terminationGracePeriodSeconds",
            "pod/invalid",
        ),
        (
            json!({"containers": [{"name": "c", "command": ["a", 1]}]}),
            "spec.containers[0].command[1]",
            "pod/invalid",
        ),
    ] {
        let (parsed, problems) = parse(&pod(spec.clone()), "");
        assert!(parsed.is_none(), "{spec}");
        assert_eq!(
            (problems[0].field.as_str(), problems[0].code),
            (field, code),
            "{spec}"
        );
    }
}

#[test]
fn a_host_port_is_a_warning() {
    let (parsed, problems) = parse(
        &pod(json!({"containers": [{"name": "c", "image": "heddle/echo",
            "ports": [{"containerPort": 80, "hostPort": 8080}]}]})),
        "spec.template.",
    );
    assert!(problems[0].warning);
    assert_eq!(problems[0].code, HOST_PORT);
    let port = &parsed.unwrap().containers[0].ports[0];
    assert_eq!(port.host.as_ref().unwrap().number, 8080);
    assert_eq!(
        problems[0].field,
        "spec.template.spec.containers[0].ports[0].hostPort"
    );
}
