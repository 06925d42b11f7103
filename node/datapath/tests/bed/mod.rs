//! A node in a network namespace, with pods in theirs.

use heddle_abi::Event;
use heddle_datapath::{Datapath, Facts, KernelDatapath, LinkSpec, PeerRow, Settings};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

static BEDS: AtomicU32 = AtomicU32::new(0);

/// A node and its datapath; removed when dropped.
pub struct Bed {
    name: String,
    pin: PathBuf,
    pub datapath: KernelDatapath,
}

/// A pod on it.
pub struct Pod {
    pub netns: String,
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

impl Pod {
    pub fn addresses(&self) -> [String; 2] {
        [self.ipv4.to_string(), self.ipv6.to_string()]
    }
}

fn row(direction: Direction, verdict: EntryVerdict) -> Entry {
    Entry {
        key: EntryKey { direction, identity: Identity(0), protocol: 0, port: 0, port_prefix: 0 },
        verdict,
        precedence: 1 << 24,
        cookie: 0,
    }
}

/// No policy is enforced.
pub fn allow_all() -> CompiledPolicy {
    CompiledPolicy {
        ingress_enforced: false,
        egress_enforced: false,
        entries: vec![
            row(Direction::Ingress, EntryVerdict::Allow),
            row(Direction::Egress, EntryVerdict::Allow),
        ],
    }
}

/// Nothing is allowed.
pub fn deny_all() -> CompiledPolicy {
    CompiledPolicy { ingress_enforced: true, egress_enforced: true, entries: Vec::new() }
}

fn sh(command: &str) -> bool {
    Command::new("sh").arg("-ec").arg(command).status().expect("sh").success()
}

fn must(command: &str) {
    assert!(sh(command), "{command}");
}

impl Bed {
    pub fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("hdt{}-{number}", std::process::id());
        let pin = PathBuf::from(format!("/sys/fs/bpf/heddle-test/{name}"));
        must("mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf");
        must(&format!(
            "ip netns add {name}; ip netns add {name}-out
             ip -n {name} link add eth0 type veth peer name eth0 netns {name}-out
             ip -n {name} addr add 172.31.1.2/24 dev eth0
             ip -n {name} addr add fd31:1::2/64 dev eth0 nodad
             ip -n {name} link set eth0 up; ip -n {name} link set lo up
             ip -n {name}-out addr add 172.31.1.1/24 dev eth0
             ip -n {name}-out addr add fd31:1::1/64 dev eth0 nodad
             ip -n {name}-out link set eth0 up; ip -n {name}-out link set lo up
             ip -n {name} route add default via 172.31.1.1
             ip -n {name} route add default via fd31:1::1"
        ));
        let mut settings = Settings::new(&pin, "eth0");
        change(&mut settings);
        let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("namespace");
        let datapath = std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            KernelDatapath::open(settings).expect("datapath opens")
        })
        .join()
        .expect("datapath thread");
        let host = |text: &str| PeerRow {
            prefix: text.parse().expect("prefix"),
            identity: Identity::HOST,
            cidr: Identity(0),
            node: None,
            in_cluster: true,
            is_node: true,
        };
        datapath.set_peers(&[host("172.31.1.2/32"), host("fd31:1::2/128")]).expect("peers");
        Self { name, pin, datapath }
    }

    /// Runs work in the node's namespace (sysctls and netlink of an ADD are the node's).
    fn in_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("namespace");
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
                    work()
                })
                .join()
                .expect("node thread")
        })
    }

    /// A pod whose policy allows everything.
    pub fn pod(&self, endpoint: u16, identity: u32) -> Pod {
        let netns = format!("{}-p{endpoint}", self.name);
        must(&format!("ip netns add {netns}"));
        let ipv4 = Ipv4Addr::new(10, 244, 1, endpoint as u8 + 1);
        let ipv6 = Ipv6Addr::new(0xfd10, 0x244, 0, 1, 0, 0, 0, endpoint + 1);
        self.in_node(|| {
            let link = self
                .datapath
                .create_link(&LinkSpec {
                    endpoint,
                    netns: format!("/run/netns/{netns}").into(),
                    interface: "eth0".into(),
                    ipv4: Some(ipv4),
                    ipv6: Some(ipv6),
                })
                .expect("link");
            self.datapath.set_policy(endpoint, &allow_all()).expect("policy");
            self.datapath
                .set_facts(&Facts {
                    endpoint,
                    ifindex: link.ifindex,
                    ipv4: Some(ipv4),
                    ipv6: Some(ipv6),
                    identity: Identity(identity),
                    cidr_ipv4: Identity(0),
                    cidr_ipv6: Identity(0),
                    mac: link.mac,
                    host_mac: link.host_mac,
                })
                .expect("facts");
            self.datapath.attach(endpoint, link.ifindex).expect("attach");
        });
        Pod { netns, ipv4, ipv6 }
    }

    /// Name of the namespace beyond the uplink.
    pub fn outside(&self) -> String {
        format!("{}-out", self.name)
    }

    pub fn node(&self) -> &str {
        &self.name
    }

    fn ping_in(netns: &str, address: &str) -> bool {
        Command::new("ip")
            .args(["netns", "exec", netns, "ping", "-n", "-c1", "-W1", address])
            .stdout(Stdio::null())
            .status()
            .expect("ping")
            .success()
    }

    pub fn ping(&self, from: &Pod, address: &str) -> bool {
        Self::ping_in(&from.netns, address)
    }

    pub fn ping_from_node(&self, address: &str) -> bool {
        Self::ping_in(&self.name, address)
    }

    /// Connects to a server that says hello; gives what the client heard.
    pub fn tcp(&self, from: &Pod, to: &Pod, address: &str, port: u16) -> String {
        use std::io::{Read, Write};
        let address: IpAddr = address.parse().expect("address");
        let listener = in_netns(&to.netns, move || {
            let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            std::net::TcpListener::bind((any, port)).expect("bind")
        });
        listener.set_nonblocking(true).expect("nonblocking");
        let client = in_netns(&from.netns, move || {
            std::net::TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(700))
        });
        let Ok(mut client) = client else { return String::new() };
        let (mut server, _) = listener.accept().expect("accept");
        server.write_all(b"hello").expect("write");
        drop(server);
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        let mut heard = String::new();
        client.read_to_string(&mut heard).expect("read");
        heard
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.datapath.poll_events(Duration::ZERO, &mut events).expect("events");
        events
    }
}

/// Runs work in a network namespace.
pub fn in_netns<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).expect("namespace");
    std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
        work()
    })
    .join()
    .expect("thread in namespace")
}

impl Drop for Bed {
    fn drop(&mut self) {
        let name = &self.name;
        sh(&format!("for n in $(ip netns list | cut -d' ' -f1 | grep '^{name}\\(-\\|$\\)'); do ip netns del $n; done"));
        let _ = std::fs::remove_dir_all(&self.pin);
    }
}
