//! Probes: whether a container answers, asked from its node as the kubelet asks.

use crate::LabError;
use crate::cgroup;
use crate::pod::container::PodContext;
use crate::pod::spec::{Check, Probe};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Until the first success a probe asks at least this often: a lab's pods start in milliseconds.
const STARTING_PERIOD: Duration = Duration::from_millis(500);

/// Counts answers and says when the verdict changes.
#[derive(Clone, Debug)]
pub struct Tally {
    needed: (u32, u32),
    in_a_row: (bool, u32),
    verdict: Option<bool>,
}

impl Tally {
    /// For a probe's thresholds.
    pub fn new(probe: &Probe) -> Self {
        Self {
            needed: (probe.successes, probe.failures),
            in_a_row: (false, 0),
            verdict: None,
        }
    }

    /// Counts an answer; the new verdict when it changes.
    pub fn count(&mut self, success: bool) -> Option<bool> {
        if self.in_a_row.0 == success {
            self.in_a_row.1 = self.in_a_row.1.saturating_add(1);
        } else {
            self.in_a_row = (success, 1);
        }
        let needed = if success {
            self.needed.0
        } else {
            self.needed.1
        };
        if self.in_a_row.1 >= needed && self.verdict != Some(success) {
            self.verdict = Some(success);
            return Some(success);
        }
        None
    }
}

/// Asks for as long as it is polled; calls `changed` with each new verdict and the last answer.
pub async fn watch(
    probe: &Probe,
    container: usize,
    context: &PodContext,
    mut changed: impl FnMut(bool, String),
) {
    let mut tally = Tally::new(probe);
    let mut good_once = false;
    tokio::time::sleep(probe.initial_delay).await;
    loop {
        let asked = tokio::time::timeout(probe.timeout, ask(&probe.check, container, context));
        let (success, why) = match asked.await {
            Ok(Ok(())) => (true, String::new()),
            Ok(Err(why)) => (false, why),
            Err(_) => (false, format!("no answer in {} s", probe.timeout.as_secs())),
        };
        good_once |= success;
        if let Some(verdict) = tally.count(success) {
            changed(verdict, why);
        }
        let pause = if good_once {
            probe.period
        } else {
            probe.period.min(STARTING_PERIOD)
        };
        tokio::time::sleep(pause).await;
    }
}

async fn ask(check: &Check, container: usize, context: &PodContext) -> Result<(), String> {
    match check {
        Check::Tcp { port, host } => {
            connect(*port, *host, context).await?;
            Ok(())
        }
        Check::Http {
            port,
            path,
            host,
            headers,
        } => {
            let mut stream = connect(*port, *host, context).await?;
            let status = get(&mut stream, path, headers).await?;
            if (200..400).contains(&status) {
                Ok(())
            } else {
                Err(format!("HTTP status {status}"))
            }
        }
        Check::Exec(command) => execute(command, container, context).await,
    }
}

async fn connect(
    port: u16,
    host: Option<IpAddr>,
    context: &PodContext,
) -> Result<TcpStream, String> {
    let address = host
        .or_else(|| {
            context
                .addresses
                .first()
                .and_then(|address| address.parse().ok())
        })
        .ok_or("the pod has no address")?;
    let node = context.node_namespace.clone();
    // A socket stays in the namespace in which it was made.
    let socket = tokio::task::spawn_blocking(move || {
        crate::namespace::inside(&node, || {
            let family = if address.is_ipv4() {
                AddressFamily::Inet
            } else {
                AddressFamily::Inet6
            };
            nix::sys::socket::socket(
                family,
                SockType::Stream,
                SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
                None,
            )
            .map_err(|error| LabError::system("open a socket", error))
        })
    })
    .await
    .map_err(|error| error.to_string())?
    .map_err(|error| error.to_string())?;
    tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(socket))
        .connect(SocketAddr::new(address, port))
        .await
        .map_err(|error| format!("{address} port {port}: {error}"))
}

async fn get(
    stream: &mut TcpStream,
    path: &str,
    headers: &[(String, String)],
) -> Result<u16, String> {
    let host = stream.peer_addr().map_err(|error| error.to_string())?;
    let mut request =
        format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/1.35\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // The status line is what counts; a long answer is not read to its end.
    while !answer.contains(&b'\n') && answer.len() < 4_096 {
        if stream
            .read_buf(&mut answer)
            .await
            .map_err(|error| error.to_string())?
            == 0
        {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let mut words = line.split_whitespace();
    match (
        words.next(),
        words.next().and_then(|word| word.parse().ok()),
    ) {
        (Some(version), Some(status)) if version.starts_with("HTTP/") => Ok(status),
        _ => Err("the answer is not HTTP".into()),
    }
}

/// Ends and removes a probe's cgroup, also when the probe is given up on half-way.
struct Group(std::path::PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        cgroup::kill(&self.0);
        let group = self.0.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = cgroup::remove(&group, Duration::from_secs(5)) {
                tracing::warn!(%error, "a probe's cgroup stays until its pod ends");
            }
        });
    }
}

async fn execute(words: &[String], container: usize, context: &PodContext) -> Result<(), String> {
    let group = Group(
        context
            .new_group("probe")
            .map_err(|error| error.to_string())?,
    );
    let mut command = context
        .command(container, words, &group.0)
        .map_err(|error| error.to_string())?;
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut child = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(status.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(successes: u32, failures: u32) -> Probe {
        Probe {
            check: Check::Tcp {
                port: 1,
                host: None,
            },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            successes,
            failures,
        }
    }

    #[test]
    fn a_verdict_changes_only_after_its_threshold() {
        let mut tally = Tally::new(&probe(2, 3));
        let answers = [
            true, true, false, false, true, false, false, false, false, true, true,
        ];
        let verdicts: Vec<Option<bool>> = answers.iter().map(|good| tally.count(*good)).collect();
        assert_eq!(
            verdicts,
            [
                None,
                Some(true),
                None,
                None,
                None,
                None,
                None,
                Some(false),
                None,
                None,
                Some(true)
            ]
        );
    }

    #[tokio::test]
    async fn a_status_below_400_is_a_success() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let read = stream.read(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                let status = if text.starts_with("GET /ok ") && text.contains("x-a: b\r\n") {
                    302
                } else {
                    503
                };
                let answer = format!("HTTP/1.1 {status} Fine\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        for (path, expected) in [("/ok", 302), ("/no", 503)] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let headers = [("x-a".to_owned(), "b".to_owned())];
            assert_eq!(get(&mut stream, path, &headers).await, Ok(expected));
        }
    }
}
