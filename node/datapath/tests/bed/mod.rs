//! A node in a network namespace, with pods in theirs.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part of it"
)]

pub mod packets;

use heddle_abi::Event;
use heddle_datapath::{Datapath, Facts, KernelDatapath, LinkSpec, PeerRow, Settings};
use heddle_model::Identity;
use heddle_policy::compiled::{CompiledPolicy, Direction, Entry, EntryKey, EntryVerdict};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

static BEDS: AtomicU32 = AtomicU32::new(0);

/// The datapath, which there is except while it is reopened.
pub struct Opened(Option<KernelDatapath>);

impl std::ops::Deref for Opened {
    type Target = KernelDatapath;

    fn deref(&self) -> &KernelDatapath {
        self.0.as_ref().expect("an open datapath")
    }
}

/// A node and its datapath; removed when dropped.
pub struct Bed {
    name: String,
    router: String,
    number: u8,
    settings: Settings,
    pin: PathBuf,
    pub datapath: Opened,
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
        key: EntryKey {
            direction,
            identity: Identity(0),
            protocol: 0,
            port: 0,
            port_prefix: 0,
        },
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
        aliases: Vec::new(),
        audit: false,
    }
}

/// Nothing is allowed.
pub fn deny_all() -> CompiledPolicy {
    CompiledPolicy {
        ingress_enforced: true,
        egress_enforced: true,
        entries: Vec::new(),
        aliases: Vec::new(),
        audit: false,
    }
}

pub fn sh(command: &str) -> bool {
    Command::new("sh")
        .arg("-ec")
        .arg(command)
        .status()
        .expect("sh")
        .success()
}

/// What a command says.
pub fn said(command: &str) -> String {
    let output = Command::new("sh")
        .arg("-ec")
        .arg(command)
        .output()
        .expect("sh");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn must(command: &str) {
    assert!(sh(command), "{command}");
}

impl Bed {
    /// A node and the router beyond its uplink.
    pub fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let name = format!("hdt{}-{number}", std::process::id());
        must("mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf");
        must(&format!(
            "ip netns add {name}-out
             ip -n {name}-out link set lo up
             ip netns exec {name}-out sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward
               echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter
               echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'"
        ));
        Self::behind(format!("{name}-out"), name, 1, change)
    }

    /// A second node behind the first one's router.
    pub fn beside(first: &Self, change: impl FnOnce(&mut Settings)) -> Self {
        Self::behind(first.router.clone(), format!("{}-b", first.name), 2, change)
    }

    fn behind(
        router: String,
        name: String,
        number: u8,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let pin = PathBuf::from(format!("/sys/fs/bpf/heddle-test/{name}"));
        let n = number;
        must(&format!(
            "ip netns add {name}
             for n in {name} {router}; do ip netns exec $n sh -c '
               for d in all default; do echo 0 >/proc/sys/net/ipv6/conf/$d/accept_dad; done'; done
             ip -n {name} link add eth0 type veth peer name n{n} netns {router}
             ip -n {name} addr add 172.31.{n}.2/24 dev eth0
             ip -n {name} addr add fd31:{n}::2/64 dev eth0 nodad
             ip -n {name} link set eth0 up; ip -n {name} link set lo up
             ip -n {router} addr add 172.31.{n}.1/24 dev n{n}
             ip -n {router} addr add fd31:{n}::1/64 dev n{n} nodad
             ip -n {router} link set n{n} up
             ip -n {name} route add default via 172.31.{n}.1
             ip -n {name} route add default via fd31:{n}::1
             # The kernel gives a link its link-local address some time after its carrier, and asks for
             # neighbours only with one.
             for try in $(seq 500); do
               ip -n {name} -6 addr show dev eth0 scope link | grep -q fe80 &&
               ip -n {router} -6 addr show dev n{n} scope link | grep -q fe80 && exit 0
               sleep 0.01
             done; exit 1"
        ));
        let mut settings = Settings::new(&pin, "eth0");
        change(&mut settings);
        let datapath = Opened(Some(open(&name, settings.clone())));
        let bed = Self {
            name,
            router,
            number,
            pin,
            settings,
            datapath,
        };
        let rows = bed.node_addresses().map(|address| PeerRow {
            prefix: address.into(),
            identity: Identity::HOST,
            cidr: Identity(0),
            node: None,
            in_cluster: true,
            is_node: true,
        });
        bed.datapath.set_peers(&rows).expect("peers");
        bed
    }

    /// The node's own addresses.
    pub fn node_addresses(&self) -> [IpAddr; 2] {
        let number = self.number;
        [
            Ipv4Addr::new(172, 31, number, 2).into(),
            Ipv6Addr::new(0xfd31, number.into(), 0, 0, 0, 0, 0, 2).into(),
        ]
    }

    /// The node itself as an end of connections.
    pub fn as_host(&self) -> Pod {
        let number = self.number;
        Pod {
            netns: self.name.clone(),
            ipv4: Ipv4Addr::new(172, 31, number, 2),
            ipv6: Ipv6Addr::new(0xfd31, number.into(), 0, 0, 0, 0, 0, 2),
        }
    }

    /// Puts the node's own policy in force, or takes it off.
    pub fn set_node_policy(&self, policy: Option<&CompiledPolicy>) {
        self.in_node(|| self.datapath.set_node_policy(policy).expect("node policy"));
    }

    /// Tells this node who lives on another: its own addresses, and pods with their identities.
    pub fn learn(&self, other: &Self, pods: &[(&Pod, u32)]) {
        let underlay = other.node_addresses()[0];
        let row = |address: IpAddr, identity, is_node| PeerRow {
            prefix: address.into(),
            identity: Identity(identity),
            cidr: Identity(0),
            node: Some(underlay),
            in_cluster: true,
            is_node,
        };
        let mut rows: Vec<_> = other
            .node_addresses()
            .map(|address| row(address, 6, true))
            .into_iter()
            .collect();
        for (pod, identity) in pods {
            rows.push(row(pod.ipv4.into(), *identity, false));
            rows.push(row(pod.ipv6.into(), *identity, false));
        }
        self.datapath.set_peers(&rows).expect("peers");
        let ranges = other.pod_ranges().map(|range| (range, underlay));
        self.in_node(|| self.datapath.set_routes(&ranges).expect("routes"));
    }

    /// The node's pod ranges.
    pub fn pod_ranges(&self) -> [IpNet; 2] {
        let n = self.number;
        [format!("10.244.{n}.0/24"), format!("fd10:244:0:{n}::/64")]
            .map(|text| text.parse().expect("range"))
    }

    /// The router learns the way to this node's pods: a routed fabric.
    pub fn tell_router(&self) {
        let (router, n) = (&self.router, self.number);
        must(&format!(
            "ip -n {router} route add 10.244.{n}.0/24 via 172.31.{n}.2
             ip -n {router} route add fd10:244:0:{n}::/64 via fd31:{n}::2"
        ));
    }

    /// Closes the datapath and opens it anew, as an agent that restarts does.
    pub fn reopen(&mut self) {
        // One at a time, as on a node.
        self.datapath.0 = None;
        self.datapath.0 = Some(open(&self.name, self.settings.clone()));
    }

    /// Opens the datapath a second time beside the first; gives the first.
    pub fn open_another(&mut self) -> KernelDatapath {
        let first = self.datapath.0.take().expect("an open datapath");
        self.datapath.0 = Some(open(&self.name, self.settings.clone()));
        first
    }

    /// Closes the datapath, as an agent that ends does.
    pub fn close(&mut self) {
        self.datapath.0 = None;
    }

    /// Changes the settings that the next [`Self::reopen`] uses.
    pub fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
    }

    /// Opens the datapath and closes it at once, or says why it cannot be opened.
    pub fn try_open(&self) -> Result<(), heddle_datapath::DatapathError> {
        let settings = self.settings.clone();
        in_netns(&self.name, move || KernelDatapath::open(settings).map(drop))
    }

    /// Directory of the node's pins.
    pub fn pin_dir(&self) -> &std::path::Path {
        &self.pin
    }

    /// Runs work in the node's namespace (sysctls and netlink of an ADD are the node's).
    pub fn in_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace =
            std::fs::File::open(format!("/run/netns/{}", self.name)).expect("namespace");
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)
                        .expect("setns");
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
        let ipv4 = Ipv4Addr::new(10, 244, self.number, endpoint as u8 + 1);
        let ipv6 = Ipv6Addr::new(0xfd10, 0x244, 0, self.number.into(), 0, 0, 0, endpoint + 1);
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
            self.datapath
                .set_policy(endpoint, &allow_all())
                .expect("policy");
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
            self.datapath
                .attach(endpoint, link.ifindex)
                .expect("attach");
        });
        Pod { netns, ipv4, ipv6 }
    }

    /// Name of the namespace beyond the uplink.
    pub fn outside(&self) -> &str {
        &self.router
    }

    pub fn node(&self) -> &str {
        &self.name
    }

    /// Pings from a namespace with options. On a busy machine an answer may take its time.
    pub fn ping_with(netns: &str, options: &[&str], address: &str) -> bool {
        Command::new("ip")
            .args(["netns", "exec", netns, "ping", "-n", "-W10"])
            .args(options)
            .arg(address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("ping")
            .success()
    }

    pub fn ping(&self, from: &Pod, address: &str) -> bool {
        Self::ping_with(&from.netns, &["-c1"], address)
    }

    /// Whether nothing answers within a second.
    pub fn is_silent(&self, from: &Pod, address: &str) -> bool {
        !Self::ping_with(&from.netns, &["-c1", "-W1"], address)
    }

    pub fn ping_from_node(&self, address: &str) -> bool {
        Self::ping_with(&self.name, &["-c1"], address)
    }

    /// Connects to a server that says hello; gives what the client heard.
    pub fn tcp(&self, from: &Pod, to: &Pod, address: &str, port: u16) -> String {
        use std::io::{Read, Write};
        let address: IpAddr = address.parse().expect("address");
        let listener = Self::listen(to, address, port);
        let client = in_netns(&from.netns, move || {
            std::net::TcpStream::connect_timeout(
                &(address, port).into(),
                Duration::from_millis(700),
            )
        });
        let Ok(mut client) = client else {
            return String::new();
        };
        let mut server = accept(&listener);
        server.write_all(b"hello").expect("write");
        drop(server);
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
        let mut heard = String::new();
        client.read_to_string(&mut heard).expect("read");
        heard
    }

    fn listen(to: &Pod, address: IpAddr, port: u16) -> std::net::TcpListener {
        in_netns(&to.netns, move || {
            let any: IpAddr = if address.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
            // A child of another test may have the descriptor of a former listener still, until it runs its program.
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                match std::net::TcpListener::bind((any, port)) {
                    Err(error)
                        if error.kind() == std::io::ErrorKind::AddrInUse
                            && Instant::now() < deadline =>
                    {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    bound => return bound.expect("bind"),
                }
            }
        })
    }

    /// An established connection whose far end echoes.
    pub fn connect(&self, from: &Pod, to: &Pod, address: &str, port: u16) -> Stream {
        let address: IpAddr = address.parse().expect("address");
        let listener = Self::listen(to, address, port);
        let client = in_netns(&from.netns, move || {
            std::net::TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(3))
        })
        .expect("connects");
        let server = accept(&listener);
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(2)))
                .expect("timeout");
        }
        Stream { client, server }
    }

    /// Sends bytes over TCP; gives how many arrived.
    pub fn transfer(&self, from: &Pod, to: &Pod, address: &str, bytes: usize) -> usize {
        use std::io::{Read, Write};
        let Stream {
            mut client,
            mut server,
        } = self.connect(from, to, address, 9001);
        let writer = std::thread::spawn(move || client.write_all(&vec![7; bytes]));
        let mut received = Vec::new();
        let _ = server.read_to_end(&mut received);
        let _ = writer.join();
        received.len()
    }

    /// Packets dropped for a reason so far.
    pub fn drops(&self, reason: u8) -> u64 {
        let metrics = self.datapath.metrics().expect("metrics");
        metrics
            .iter()
            .filter(|((number, _), _)| *number == reason)
            .map(|(_, slot)| slot.packets)
            .sum()
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.datapath
            .poll_events(Duration::ZERO, &mut events)
            .expect("events");
        events
    }
}

/// The connection of a client that has its answer: the packet that acknowledges it may still be on its way.
fn accept(listener: &std::net::TcpListener) -> std::net::TcpStream {
    listener.set_nonblocking(true).expect("nonblocking");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("blocking");
                return stream;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "nobody to accept in 10 s");
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

/// Two ends of a connection.
pub struct Stream {
    client: std::net::TcpStream,
    server: std::net::TcpStream,
}

impl Stream {
    /// True when a message gets there and back within two seconds each way.
    pub fn echoes(&mut self) -> bool {
        use std::io::{Read, Write};
        let mut heard = [0; 4];
        self.client.write_all(b"ping").is_ok()
            && self.server.read_exact(&mut heard).is_ok()
            && self.server.write_all(&heard).is_ok()
            && self.client.read_exact(&mut heard).is_ok()
    }

    /// True when the far end's message gets here within two seconds.
    pub fn answers(&mut self) -> bool {
        use std::io::{Read, Write};
        let mut heard = [0; 4];
        self.server.write_all(b"pong").is_ok() && self.client.read_exact(&mut heard).is_ok()
    }
}

fn open(node: &str, settings: Settings) -> KernelDatapath {
    in_netns(node, move || {
        KernelDatapath::open(settings).expect("datapath opens")
    })
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
        sh(&format!(
            "for n in $(ip netns list | cut -d' ' -f1 | grep '^{name}\\(-\\|$\\)' | grep -v '^{name}-b'); do ip netns del $n; done"
        ));
        let _ = std::fs::remove_dir_all(&self.pin);
    }
}
