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

/// Two ends with routers between them.
#[derive(Debug)]
pub(crate) struct Chain {
    names: Vec<String>,
}

impl Chain {
    /// Two namespaces joined by one veth pair.
    pub(crate) fn bare() -> Result<Self> {
        Self::routed(0, None)
    }

    /// Two namespaces with `routers` forwarding ones between them. With `services`, the first and the
    /// last router (the nodes) hold kube-proxy's rules for so many services.
    pub(crate) fn routed(routers: usize, services: Option<usize>) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = (0..routers + 2)
            .map(|i| format!("{PREFIX}{}-{number}-{i}", std::process::id()))
            .collect();
        let chain = Self { names };
        if let Ok(mut alive) = ALIVE.lock() {
            alive.extend(chain.names.iter().cloned());
        }
        chain.build(services)?;
        Ok(chain)
    }

    fn build(&self, services: Option<usize>) -> Result<()> {
        let last = self.names.len() - 1;
        let mut batch = String::new();
        for name in &self.names {
            let _ = writeln!(batch, "netns add {name}");
        }
        feed("ip", &["-batch", "-"], &batch).context("make namespaces")?;
        for (i, name) in self.names.iter().enumerate() {
            // Before the addresses: a router must not have accepted a default route of its own.
            if i != 0 && i != last {
                feed(
                    "ip",
                    &[
                        "netns",
                        "exec",
                        name,
                        "sh",
                        "-c",
                        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
                    ],
                    "",
                )?;
            }
        }
        for (i, pair) in self.names.windows(2).enumerate() {
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
        for (i, name) in self.names.iter().enumerate() {
            let mut batch = String::new();
            for link in 0..last {
                let through = match link {
                    link if link + 1 < i => format!("{}/1", i - 1),
                    link if link > i => format!("{i}/2"),
                    _ => continue,
                };
                let (near, host) = through.split_once('/').unwrap_or_default();
                let _ = writeln!(batch, "route add 10.77.{link}.0/24 via 10.77.{near}.{host}");
                let _ = writeln!(
                    batch,
                    "-6 route add fd77:0:0:{link}::/64 via fd77:0:0:{near}::{host}"
                );
            }
            if !batch.is_empty() {
                // `-6` cannot change inside a batch: addresses tell the families apart.
                let batch = batch.replace("-6 route", "route");
                feed("ip", &["-n", name, "-batch", "-"], &batch).context("give routes")?;
            }
        }
        if let Some(services) = services {
            for name in [&self.names[1], &self.names[last - 1]] {
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
        named(&self.names[0])
    }

    /// Where the server runs.
    pub(crate) fn server(&self) -> PathBuf {
        named(&self.names[self.names.len() - 1])
    }

    /// The server's address in each family.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        let link = u16::try_from(self.names.len() - 2).unwrap_or(0);
        [
            IpAddr::from([10, 77, link.to_be_bytes()[1], 2]),
            IpAddr::from([0xfd77, 0, 0, link, 0, 0, 0, 2]),
        ]
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for name in &self.names {
            remove(name);
        }
        if let Ok(mut alive) = ALIVE.lock() {
            alive.retain(|name| !self.names.contains(name));
        }
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
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
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
        std::process::exit(128 + signal.map_or(0, |signal| signal as i32));
    });
    Ok(())
}
