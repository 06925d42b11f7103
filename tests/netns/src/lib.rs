//! A lab that a test makes and removes, driven by the command a person types.
//!
//! Needs root and the binaries named by `HEDDLE` and `HEDDLE_CNI` (`make test` builds and names them).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

pub mod churn;
pub mod draw;
pub mod load;
pub mod probe;

use serde_json::Value;
use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

static LABS: AtomicU32 = AtomicU32::new(0);

/// The heddle command under test.
pub fn heddle() -> PathBuf {
    match std::env::var_os("HEDDLE") {
        Some(path) => path.into(),
        None => panic!("set HEDDLE to the heddle binary, as `make test` does"),
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics unless the command succeeded.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Standard output as one JSON value per line.
    pub fn json_lines(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A lab; removed when dropped.
pub struct Lab {
    /// Its name.
    pub name: String,
}

impl Lab {
    /// Brings up a lab with these options of `heddle lab up`.
    pub fn up(options: &[&str]) -> Self {
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = Self {
            name: format!("e{}-{number}", std::process::id() % 100_000),
        };
        let mut arguments = vec!["lab", "up"];
        arguments.extend(options);
        let _ = lab.run(&arguments).ok();
        lab
    }

    /// Brings up a lab with a configuration file and these options.
    pub fn with(configuration: &str, options: &[&str]) -> Self {
        let number = LABS.load(Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!(
            "heddle-lab-{}-{number}-{:?}.yaml",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&file, configuration).unwrap();
        let path = file.to_str().unwrap();
        let lab = Self::up(&[&["--config", path], options].concat());
        std::fs::remove_file(&file).unwrap();
        lab
    }

    /// A heddle command for this lab.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(heddle());
        command
            .args(arguments)
            .env("HEDDLE_LAB", &self.name)
            .env("NO_COLOR", "1");
        command
    }

    /// Runs a heddle command for this lab.
    pub fn run(&self, arguments: &[&str]) -> Said {
        Said::from(
            self.command(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap(),
        )
    }

    /// Runs a heddle command with standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        Said::from(child.wait_with_output().unwrap())
    }

    /// Applies manifests and waits until they are in force.
    pub fn apply(&self, manifests: &str) -> Said {
        self.run_with(&["lab", "apply", "-f", "-"], manifests).ok()
    }

    /// Runs a shell line in a pod of namespace `default`.
    pub fn exec(&self, pod: &str, line: &str) -> Said {
        self.run(&["lab", "exec", pod, "--", "bash", "-c", line])
    }

    /// Runs a shell line on a node, `world` or `router`.
    pub fn on(&self, node: &str, line: &str) -> Said {
        self.run(&["lab", "node-exec", node, "--", "bash", "-c", line])
    }

    /// An object as JSON; of namespace `default` where it has one.
    pub fn object(&self, kind: &str, name: &str) -> Value {
        self.run(&["lab", "get", kind, name, "-o", "json"])
            .ok()
            .json()
    }

    /// Starts a shell line in a pod of namespace `default`.
    pub fn start(&self, pod: &str, line: &str) -> Child {
        self.command(&["lab", "exec", pod, "--", "bash", "-c", line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Addresses of a pod, IPv4 first.
    pub fn addresses(&self, pod: &str) -> Vec<String> {
        let pod = self
            .run(&["lab", "get", "pod", pod, "-o", "json"])
            .ok()
            .json();
        let pod = pod
            .get("items")
            .and_then(|items| items.get(0))
            .cloned()
            .unwrap_or(pod);
        let addresses = pod["status"]["podIPs"]
            .as_array()
            .unwrap_or_else(|| panic!("{pod}"));
        addresses
            .iter()
            .map(|address| address["ip"].as_str().unwrap().to_owned())
            .collect()
    }

    /// True when a TCP connection from a pod to an address and port opens.
    pub fn connects(&self, pod: &str, address: &str, port: u16) -> bool {
        let line = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
        self.exec(pod, &line).code == 0
    }

    /// The last flows with these extra options of `heddle observe`.
    pub fn flows(&self, options: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["observe", "--last", "1000", "-o", "jsonpb"];
        arguments.extend(options);
        self.run(&arguments).ok().json_lines()
    }

    /// The lab's cgroup.
    pub fn cgroup(&self) -> PathBuf {
        let status = self.run(&["lab", "status", "-o", "json"]).ok().json();
        let node = status["nodes"][0]["cgroup"].as_str().unwrap();
        PathBuf::from(node).parent().unwrap().to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = format!("/run/heddle/labs/{}", self.name);
            let _ = Command::new("bash")
                .args([
                    "-c",
                    &format!("tail -n 15 $(find {logs} -name '*.log' | head -20) >&2"),
                ])
                .status();
        }
        let said = self.run(&["lab", "down"]);
        if !std::thread::panicking() {
            assert_eq!(said.code, 0, "{said:?}");
        }
    }
}

/// Waits until something holds; panics with `what` when it has not within the time.
pub fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pod that serves on port 8080, on a node.
pub fn server(name: &str, node: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         nodeName: {node}\n  containers:\n  - name: echo\n    image: heddle/echo\n    ports:\n    \
         - {{name: http, containerPort: 8080}}\n    readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}\n"
    )
}

/// A pod that does nothing, on a node.
pub fn idle(name: &str, node: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         nodeName: {node}\n  containers:\n  - {{name: idle, image: heddle/idle}}\n"
    )
}

/// A NetworkPolicy that lets only pods labelled `app: FROM` into pods labelled `app: TO`, on port 8080.
pub fn allow_only(to: &str, from: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: only-{from}-to-{to}, \
         namespace: default}}\nspec:\n  podSelector: {{matchLabels: {{app: {to}}}}}\n  ingress:\n  \
         - from: [{{podSelector: {{matchLabels: {{app: {from}}}}}}}]\n    ports: [{{protocol: TCP, port: 8080}}]\n"
    )
}
