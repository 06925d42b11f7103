//! Baselines made of network namespaces: one veth pair, or a chain of routers with and without iptables.

use crate::iptables::{self, Family};
use crate::process::{feed, named};
use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Namespaces of this process begin so; its number follows.
const PREFIX: &str = "hb-";

/// Namespaces that exist now, for the thread that waits for signals.
static ALIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Network namespaces; removed with this value.
#[derive(Debug)]
pub(crate) struct Namespaces {
    names: Vec<String>,
}

impl Namespaces {
    /// Makes so many.
    pub(crate) fn make(count: usize) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = (0..count)
            .map(|i| format!("{PREFIX}{}-{number}-{i}", std::process::id()))
            .collect();
        if let Ok(mut alive) = ALIVE.lock() {
            alive.extend(names.iter().cloned());
        }
        let made = Self { names };
        let batch: String = (made.names.iter())
            .map(|name| format!("netns add {name}\n"))
            .collect();
        feed("ip", &["-batch", "-"], &batch).context("make namespaces")?;
        Ok(made)
    }

    /// Their paths.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.names.iter().map(|name| named(name)).collect()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            remove(name);
        }
        if let Ok(mut alive) = ALIVE.lock() {
            alive.retain(|name| !self.names.contains(name));
        }
    }
}

/// Two ends with routers between them.
#[derive(Debug)]
pub(crate) struct Chain {
    spaces: Namespaces,
}

impl Chain {
    /// Two namespaces joined by one veth pair.
    pub(crate) fn bare() -> Result<Self> {
        Self::routed(0, None)
    }

    /// Two namespaces with `routers` forwarding ones between them. With `services`, the first and the
    /// last router (the nodes) hold kube-proxy's rules for so many services.
    pub(crate) fn routed(routers: usize, services: Option<usize>) -> Result<Self> {
        let chain = Self {
            spaces: Namespaces::make(routers + 2)?,
        };
        chain.build(services)?;
        Ok(chain)
    }

    fn build(&self, services: Option<usize>) -> Result<()> {
        let names = &self.spaces.names;
        let last = names.len() - 1;
        for (i, name) in names.iter().enumerate() {
            // Before the addresses: a router must not have accepted a default route of its own.
            if i != 0 && i != last {
                let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward && \
                               echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
                feed("ip", &["netns", "exec", name, "sh", "-c", forward], "")
                    .context("turn on forwarding")?;
            }
        }
        for (i, pair) in names.windows(2).enumerate() {
            let (left, right) = (&pair[0], &pair[1]);
            let batch =
                format!("link add right netns {left} type veth peer name left netns {right}\n");
            feed("ip", &["-batch", "-"], &batch).context("join namespaces")?;
            for (name, device, host) in [(left, "right", 1), (right, "left", 2)] {
                let batch = format!(
                    "link set lo up\nlink set {device} up\n\
                     addr add 10.77.{i}.{host}/24 dev {device}\n\
                     addr add fd77:0:0:{i}::{host}/64 dev {device} nodad\n"
                );
                feed("ip", &["-n", name, "-batch", "-"], &batch).context("give addresses")?;
            }
        }
        for (i, name) in names.iter().enumerate() {
            // Every link that this namespace is not on lies behind its left or its right neighbour.
            let mut batch = String::new();
            for link in 0..last {
                let (near, host) = match link {
                    link if link + 1 < i => (i - 1, 1),
                    link if link > i => (i, 2),
                    _ => continue,
                };
                let _ = writeln!(
                    batch,
                    "route add 10.77.{link}.0/24 via 10.77.{near}.{host}\n\
                     route add fd77:0:0:{link}::/64 via fd77:0:0:{near}::{host}"
                );
            }
            feed("ip", &["-n", name, "-batch", "-"], &batch).context("give routes")?;
        }
        if let Some(services) = services {
            for name in [&names[1], &names[last - 1]] {
                for (program, family) in [
                    ("iptables-restore", Family::V4),
                    ("ip6tables-restore", Family::V6),
                ] {
                    feed(
                        "ip",
                        &["netns", "exec", name, program],
                        &iptables::rules(family, services),
                    )
                    .context("write kube-proxy's rules")?;
                }
            }
        }
        Ok(())
    }

    /// Where the client runs.
    pub(crate) fn client(&self) -> PathBuf {
        named(&self.spaces.names[0])
    }

    /// Where the server runs.
    pub(crate) fn server(&self) -> PathBuf {
        named(&self.spaces.names[self.spaces.names.len() - 1])
    }

    /// The server's address in each family.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        let link = u16::try_from(self.spaces.names.len() - 2).unwrap_or(0);
        [
            IpAddr::from([10, 77, link.to_be_bytes()[1], 2]),
            IpAddr::from([0xfd77, 0, 0, link, 0, 0, 0, 2]),
        ]
    }
}

fn remove(name: &str) {
    if named(name).exists()
        && let Err(error) = feed("ip", &["netns", "del", name], "")
    {
        eprintln!("namespace {name} stays: {error}");
    }
}

/// Removes what a benchmark that was killed left behind.
pub(crate) fn remove_stale() -> Result<()> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Ok(());
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        // A process that has ended and was not waited for has a folder in /proc, and no program.
        if owner.is_some_and(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_err()) {
            remove(&name);
        }
    }
    Ok(())
}

/// From now on an interrupt or termination removes the namespaces and ends the process.
pub(crate) fn clean_up_after_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Children start with an empty mask again; the standard library sees to that.
    signals.thread_block().context("block signals")?;
    std::thread::spawn(move || {
        let signal = signals.wait();
        let names = ALIVE.lock().map(|names| names.clone()).unwrap_or_default();
        for name in &names {
            remove(name);
        }
        crate::lab::remove_alive();
        std::process::exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}
