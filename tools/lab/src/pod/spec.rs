//! What a Pod manifest asks for, checked: fields that the lab cannot honour are said, never dropped.

use heddle_model::NamespacedName;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Seconds between SIGTERM and SIGKILL when the pod does not say (Kubernetes' default).
const DEFAULT_GRACE: u64 = 30;
/// The largest number that a field takes: an int32 in Kubernetes' API, and as seconds it fits a clock.
const LARGEST: u64 = 2_147_483_647;

/// Something about a manifest that is wrong, or that the lab does not do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Stable code.
    pub code: &'static str,
    /// Path of the field.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to try.
    pub help: String,
    /// True when the pod can run all the same.
    pub warning: bool,
}

/// When ended containers start again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestartPolicy {
    /// Always.
    Always,
    /// After a failure.
    OnFailure,
    /// Never.
    Never,
}

/// What a container runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Program {
    /// A program of the host's file system with its arguments.
    Command(Vec<String>),
    /// The built-in image `heddle/echo`.
    Echo,
    /// The built-in image `heddle/idle`.
    Idle,
}

/// A port that a container declares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name; may be empty.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port of the node that leads to it.
    pub host: Option<HostPort>,
}

/// A port of the node that leads to a container's port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// Its number.
    pub number: u16,
    /// The node's address; empty for all.
    pub address: String,
}

/// Code of the warning about a host port, which only a chained plugin can make.
pub const HOST_PORT: &str = "pod/host-port";

/// How a probe asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// HTTP GET; 200 to 399 is success.
    Http {
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// Address; the pod's when none.
        host: Option<IpAddr>,
        /// Additional headers.
        headers: Vec<(String, String)>,
    },
    /// A TCP connection.
    Tcp {
        /// Port.
        port: u16,
        /// Address; the pod's when none.
        host: Option<IpAddr>,
    },
    /// A command in the container; exit code 0 is success.
    Exec(Vec<String>),
}

/// A readiness or liveness probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probe {
    /// How it asks.
    pub check: Check,
    /// Before the first question.
    pub initial_delay: Duration,
    /// Between questions.
    pub period: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// Successes in a row that make it good.
    pub successes: u32,
    /// Failures in a row that make it bad.
    pub failures: u32,
}

/// Where an environment variable's value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnvValue {
    /// The manifest.
    Literal(String),
    /// A field of the pod, known when it runs.
    Field(String),
}

/// One container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image, as written.
    pub image: String,
    /// What it runs.
    pub program: Program,
    /// Its environment in order.
    pub env: Vec<(String, EnvValue)>,
    /// Its working folder.
    pub working_dir: Option<PathBuf>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its readiness probe.
    pub readiness: Option<Probe>,
    /// Its liveness probe.
    pub liveness: Option<Probe>,
}

/// What a Pod manifest asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct PodSpec {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Its uid; empty before the store gave one.
    pub uid: String,
    /// Its labels (for the downward API).
    pub labels: BTreeMap<String, String>,
    /// Its annotations (for the downward API).
    pub annotations: BTreeMap<String, String>,
    /// Its host name.
    pub hostname: String,
    /// In the node's network namespace.
    pub host_network: bool,
    /// When ended containers start again.
    pub restart: RestartPolicy,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Containers that run to their end, in order, before the others.
    pub init: Vec<Container>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// `hostAliases`: address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// `dnsConfig`: lines of resolv.conf.
    pub dns: Vec<String>,
    /// Its service account.
    pub service_account: String,
}

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn error(&mut self, field: &str, reason: impl Into<String>, help: &str) {
        self.problem("pod/invalid", field, reason.into(), help, false);
    }

    fn unsupported(&mut self, field: &str, what: &str, warning: bool) {
        let code = "pod/unsupported";
        self.problem(
            code,
            field,
            format!("the lab does not support {what}"),
            "leave it out, or use a Kubernetes cluster",
            warning,
        );
    }

    fn problem(
        &mut self,
        code: &'static str,
        field: &str,
        reason: String,
        help: &str,
        warning: bool,
    ) {
        self.problems.push(Problem {
            code,
            field: field.to_owned(),
            reason,
            help: help.to_owned(),
            warning,
        });
    }

    fn text(&mut self, object: &Map<String, Value>, key: &str, at: &str) -> Option<String> {
        match object.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                self.error(
                    &format!("{at}.{key}"),
                    format!("{other} is not a string"),
                    "quote it",
                );
                None
            }
        }
    }

    fn number(&mut self, object: &Map<String, Value>, key: &str, at: &str, default: u64) -> u64 {
        match object.get(key) {
            None | Some(Value::Null) => default,
            Some(value) => value
                .as_u64()
                .filter(|it| *it <= LARGEST)
                .unwrap_or_else(|| {
                    self.error(
                        &format!("{at}.{key}"),
                        format!("{value} is not a number from 0 to {LARGEST}"),
                        "",
                    );
                    default
                }),
        }
    }

    fn strings(&mut self, object: &Map<String, Value>, key: &str, at: &str) -> Vec<String> {
        let Some(value) = object.get(key).filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let Some(items) = value.as_array() else {
            self.error(&format!("{at}.{key}"), "it is not a list of strings", "");
            return Vec::new();
        };
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => found.push(text.to_owned()),
                None => self.error(
                    &format!("{at}.{key}[{index}]"),
                    format!("{item} is not a string"),
                    "quote it",
                ),
            }
        }
        found
    }

    fn objects<'a>(
        &mut self,
        object: &'a Map<String, Value>,
        key: &str,
        at: &str,
    ) -> Vec<(String, &'a Map<String, Value>)> {
        let Some(value) = object.get(key).filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let path = format!("{at}.{key}");
        let Some(items) = value.as_array() else {
            self.error(&path, "it is not a list", "");
            return Vec::new();
        };
        let mut found = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.as_object() {
                Some(item) => found.push((format!("{path}[{index}]"), item)),
                None => self.error(&format!("{path}[{index}]"), "it is not an object", ""),
            }
        }
        found
    }
}

/// Reads a Pod (or a Deployment's template, at `at`); the pod is `None` when a problem is an error.
pub fn parse(pod: &Value, at: &str) -> (Option<PodSpec>, Vec<Problem>) {
    let mut reader = Reader {
        problems: Vec::new(),
    };
    let spec = read(&mut reader, pod, at);
    let broken = reader.problems.iter().any(|problem| !problem.warning);
    (spec.filter(|_| !broken), reader.problems)
}

fn strings_of(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn read(reader: &mut Reader, pod: &Value, at: &str) -> Option<PodSpec> {
    let metadata = &pod["metadata"];
    let spec_at = format!("{at}spec");
    let Some(spec) = pod["spec"].as_object() else {
        reader.error(&spec_at, "a pod needs a spec", "");
        return None;
    };
    for (key, what) in [
        ("volumes", "volumes: containers see the host's file system"),
        ("ephemeralContainers", "ephemeral containers"),
    ] {
        if spec
            .get(key)
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
        {
            reader.unsupported(&format!("{spec_at}.{key}"), what, false);
        }
    }
    for (key, what) in [
        (
            "affinity",
            "affinity: only nodeName and nodeSelector place a pod",
        ),
        ("topologySpreadConstraints", "topologySpreadConstraints"),
        (
            "securityContext",
            "a pod's securityContext: containers run as root",
        ),
    ] {
        let given = spec.get(key).is_some_and(|value| match value {
            Value::Null => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            _ => true,
        });
        if given {
            reader.unsupported(&format!("{spec_at}.{key}"), what, true);
        }
    }
    let restart = match reader.text(spec, "restartPolicy", &spec_at).as_deref() {
        None | Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        Some(other) => {
            reader.error(
                &format!("{spec_at}.restartPolicy"),
                format!("{other:?} is not a restart policy"),
                "use Always, OnFailure or Never",
            );
            RestartPolicy::Always
        }
    };
    let containers: Vec<Container> = reader
        .objects(spec, "containers", &spec_at)
        .into_iter()
        .filter_map(|(path, container)| read_container(reader, container, &path))
        .collect();
    let init: Vec<Container> = reader
        .objects(spec, "initContainers", &spec_at)
        .into_iter()
        .filter_map(|(path, container)| read_container(reader, container, &path))
        .collect();
    if containers.is_empty() && reader.problems.iter().all(|problem| problem.warning) {
        reader.error(
            &format!("{spec_at}.containers"),
            "a pod needs a container",
            "",
        );
    }
    let mut names: Vec<&str> = containers
        .iter()
        .chain(&init)
        .map(|c| c.name.as_str())
        .collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let reason = format!("two containers are named {:?}", twice[0]);
        reader.error(
            &format!("{spec_at}.containers"),
            reason,
            "give each its own name",
        );
    }
    let name = metadata["name"].as_str().unwrap_or_default();
    let host_aliases = reader
        .objects(spec, "hostAliases", &spec_at)
        .into_iter()
        .filter_map(|(path, alias)| {
            let address = reader.text(alias, "ip", &path)?;
            Some((address, reader.strings(alias, "hostnames", &path)))
        })
        .collect();
    Some(PodSpec {
        name: NamespacedName::new(metadata["namespace"].as_str().unwrap_or("default"), name),
        uid: metadata["uid"].as_str().unwrap_or_default().to_owned(),
        labels: strings_of(&metadata["labels"]),
        annotations: strings_of(&metadata["annotations"]),
        hostname: reader
            .text(spec, "hostname", &spec_at)
            .unwrap_or_else(|| name.to_owned()),
        host_network: spec
            .get("hostNetwork")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        restart,
        grace: Duration::from_secs(reader.number(
            spec,
            "terminationGracePeriodSeconds",
            &spec_at,
            DEFAULT_GRACE,
        )),
        init,
        containers,
        host_aliases,
        dns: read_dns(reader, spec, &spec_at),
        service_account: reader
            .text(spec, "serviceAccountName", &spec_at)
            .unwrap_or_else(|| "default".to_owned()),
    })
}

fn read_dns(reader: &mut Reader, spec: &Map<String, Value>, at: &str) -> Vec<String> {
    let Some(config) = spec.get("dnsConfig").and_then(Value::as_object) else {
        return Vec::new();
    };
    let at = format!("{at}.dnsConfig");
    let mut lines: Vec<String> = reader
        .strings(config, "nameservers", &at)
        .into_iter()
        .map(|server| format!("nameserver {server}"))
        .collect();
    let searches = reader.strings(config, "searches", &at);
    if !searches.is_empty() {
        lines.push(format!("search {}", searches.join(" ")));
    }
    for (path, option) in reader.objects(config, "options", &at) {
        if let Some(name) = reader.text(option, "name", &path) {
            let value = reader.text(option, "value", &path);
            lines.push(match value {
                Some(value) => format!("options {name}:{value}"),
                None => format!("options {name}"),
            });
        }
    }
    lines
}

fn read_container(
    reader: &mut Reader,
    container: &Map<String, Value>,
    at: &str,
) -> Option<Container> {
    let name = reader.text(container, "name", at).unwrap_or_default();
    if !is_dns_label(&name) {
        reader.error(
            &format!("{at}.name"),
            format!("{name:?} cannot be a container's name"),
            "use a-z, 0-9 and -, at most 63",
        );
        return None;
    }
    for (key, what) in [
        (
            "volumeMounts",
            "volumes: containers see the host's file system",
        ),
        ("envFrom", "envFrom: the lab has no ConfigMaps or Secrets"),
    ] {
        if container
            .get(key)
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
        {
            reader.unsupported(&format!("{at}.{key}"), what, false);
        }
    }
    for (key, what) in [
        (
            "startupProbe",
            "startupProbe: readiness is asked from the start",
        ),
        ("lifecycle", "lifecycle hooks"),
        ("securityContext", "securityContext: containers run as root"),
    ] {
        if container.get(key).is_some_and(|value| !value.is_null()) {
            reader.unsupported(&format!("{at}.{key}"), what, true);
        }
    }
    let image = reader.text(container, "image", at).unwrap_or_default();
    let mut command = reader.strings(container, "command", at);
    let built_in = image.split(':').next().unwrap_or_default().to_owned();
    let program = if command.is_empty() {
        match built_in.as_str() {
            "heddle/echo" => Program::Echo,
            "heddle/idle" => Program::Idle,
            _ => {
                reader.problem(
                    "pod/no-command",
                    &format!("{at}.command"),
                    format!("image {image:?} is not built in and there is no command"),
                    "give a command of the host's file system, or use heddle/echo or heddle/idle",
                    false,
                );
                return None;
            }
        }
    } else {
        command.extend(reader.strings(container, "args", at));
        Program::Command(command)
    };
    let ports = read_ports(reader, container, at);
    let readiness = read_probe(reader, container, "readinessProbe", at, &ports);
    let liveness = read_probe(reader, container, "livenessProbe", at, &ports);
    Some(Container {
        env: read_env(reader, container, at),
        working_dir: reader.text(container, "workingDir", at).map(PathBuf::from),
        name,
        image,
        program,
        ports,
        readiness,
        liveness,
    })
}

/// True for an RFC 1123 label, as Kubernetes wants of most names.
pub fn is_dns_label(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// True for an RFC 1123 subdomain.
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

fn read_ports(reader: &mut Reader, container: &Map<String, Value>, at: &str) -> Vec<Port> {
    let mut ports = Vec::new();
    for (path, port) in reader.objects(container, "ports", at) {
        let number = reader.number(port, "containerPort", &path, 0);
        let Some(number) = u16::try_from(number).ok().filter(|number| *number > 0) else {
            reader.error(
                &format!("{path}.containerPort"),
                format!("{number} is not a port"),
                "use 1 to 65535",
            );
            continue;
        };
        let protocol = reader
            .text(port, "protocol", &path)
            .unwrap_or_else(|| "TCP".into());
        if !["TCP", "UDP", "SCTP"].contains(&protocol.as_str()) {
            reader.error(
                &format!("{path}.protocol"),
                format!("{protocol:?} is not a protocol of a port"),
                "use TCP, UDP or SCTP",
            );
        }
        let host = read_host_port(reader, port, &path);
        ports.push(Port {
            host,
            name: reader.text(port, "name", &path).unwrap_or_default(),
            number,
            protocol,
        });
    }
    ports
}

fn read_host_port(reader: &mut Reader, port: &Map<String, Value>, at: &str) -> Option<HostPort> {
    let field = format!("{at}.hostPort");
    let given = reader.number(port, "hostPort", at, 0);
    let Ok(number) = u16::try_from(given) else {
        reader.error(&field, format!("{given} is not a port"), "use 1 to 65535");
        return None;
    };
    if number == 0 {
        return None;
    }
    reader.problem(
        HOST_PORT,
        &field,
        "nothing listens on the node's address: no CNI plugin of this lab maps ports".to_owned(),
        "add the portmap plugin to the lab's configuration (cni.plugins)",
        true,
    );
    Some(HostPort {
        number,
        address: reader.text(port, "hostIP", at).unwrap_or_default(),
    })
}

/// Fields of a pod that an environment variable may take.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn read_env(
    reader: &mut Reader,
    container: &Map<String, Value>,
    at: &str,
) -> Vec<(String, EnvValue)> {
    let mut variables = Vec::new();
    for (path, variable) in reader.objects(container, "env", at) {
        let Some(name) = reader.text(variable, "name", &path) else {
            reader.error(&format!("{path}.name"), "a variable needs a name", "");
            continue;
        };
        if name.is_empty() || name.contains(['=', '\0']) {
            reader.error(
                &format!("{path}.name"),
                format!("{name:?} cannot be a variable"),
                "",
            );
            continue;
        }
        let value = match variable.get("valueFrom").filter(|value| !value.is_null()) {
            None => EnvValue::Literal(reader.text(variable, "value", &path).unwrap_or_default()),
            Some(from) => {
                let field = from["fieldRef"]["fieldPath"].as_str().unwrap_or_default();
                let labels = field.starts_with("metadata.labels['")
                    || field.starts_with("metadata.annotations['");
                if !FIELDS.contains(&field) && !labels {
                    reader.unsupported(
                        &format!("{path}.valueFrom"),
                        "this source of a variable (fieldRef of metadata, nodeName and addresses is)",
                        false,
                    );
                }
                EnvValue::Field(field.to_owned())
            }
        };
        variables.push((name, value));
    }
    variables
}

fn read_probe(
    reader: &mut Reader,
    container: &Map<String, Value>,
    key: &str,
    at: &str,
    ports: &[Port],
) -> Option<Probe> {
    let at = format!("{at}.{key}");
    let probe = container.get(key).filter(|value| !value.is_null())?;
    let Some(probe) = probe.as_object() else {
        reader.error(&at, "it is not an object", "");
        return None;
    };
    let check = if let Some(get) = probe.get("httpGet").and_then(Value::as_object) {
        let at = format!("{at}.httpGet");
        if reader
            .text(get, "scheme", &at)
            .is_some_and(|scheme| scheme != "HTTP")
        {
            reader.unsupported(&format!("{at}.scheme"), "HTTPS probes", false);
        }
        let headers = reader
            .objects(get, "httpHeaders", &at)
            .into_iter()
            .filter_map(|(path, header)| {
                let name = reader.text(header, "name", &path)?;
                Some((
                    name,
                    reader.text(header, "value", &path).unwrap_or_default(),
                ))
            })
            .collect();
        Check::Http {
            port: probe_port(reader, get, &at, ports)?,
            path: reader.text(get, "path", &at).unwrap_or_else(|| "/".into()),
            host: probe_host(reader, get, &at),
            headers,
        }
    } else if let Some(socket) = probe.get("tcpSocket").and_then(Value::as_object) {
        let at = format!("{at}.tcpSocket");
        Check::Tcp {
            port: probe_port(reader, socket, &at, ports)?,
            host: probe_host(reader, socket, &at),
        }
    } else if let Some(exec) = probe.get("exec").and_then(Value::as_object) {
        let command = reader.strings(exec, "command", &format!("{at}.exec"));
        if command.is_empty() {
            reader.error(&format!("{at}.exec.command"), "a probe needs a command", "");
            return None;
        }
        Check::Exec(command)
    } else {
        reader.error(
            &at,
            "a probe needs httpGet, tcpSocket or exec",
            "gRPC probes are not supported",
        );
        return None;
    };
    // Kubernetes' defaults.
    let seconds = |reader: &mut Reader, key: &str, default: u64| {
        Duration::from_secs(reader.number(probe, key, &at, default))
    };
    let count = |reader: &mut Reader, key: &str, default: u64| {
        u32::try_from(reader.number(probe, key, &at, default).max(1)).unwrap_or(u32::MAX)
    };
    Some(Probe {
        check,
        initial_delay: seconds(reader, "initialDelaySeconds", 0),
        period: seconds(reader, "periodSeconds", 10).max(Duration::from_secs(1)),
        timeout: seconds(reader, "timeoutSeconds", 1).max(Duration::from_secs(1)),
        successes: count(reader, "successThreshold", 1),
        failures: count(reader, "failureThreshold", 3),
    })
}

fn probe_port(
    reader: &mut Reader,
    check: &Map<String, Value>,
    at: &str,
    ports: &[Port],
) -> Option<u16> {
    let value = check.get("port").cloned().unwrap_or(Value::Null);
    let found = match &value {
        Value::Number(number) => number
            .as_u64()
            .and_then(|number| u16::try_from(number).ok()),
        Value::String(name) => ports
            .iter()
            .find(|port| port.name == *name)
            .map(|port| port.number)
            .or_else(|| name.parse().ok()),
        _ => None,
    };
    if found.is_none() {
        reader.error(
            &format!("{at}.port"),
            format!("{value} is neither a port nor the name of one of the container's ports"),
            "",
        );
    }
    found
}

fn probe_host(reader: &mut Reader, check: &Map<String, Value>, at: &str) -> Option<IpAddr> {
    let host = reader.text(check, "host", at)?;
    let parsed = host.parse().ok();
    if parsed.is_none() {
        reader.error(
            &format!("{at}.host"),
            format!("{host:?} is not an address"),
            "",
        );
    }
    parsed
}

#[cfg(test)]
mod tests;
