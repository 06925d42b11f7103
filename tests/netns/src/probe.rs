//! Many real connections at once, from inside a network namespace.

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, socket,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

/// How often an unanswered datagram is sent again.
const AGAIN: Duration = Duration::from_millis(300);

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Probe {
    /// A connection to this port.
    Tcp(u16),
    /// A datagram to this port, and the answer.
    Udp(u16),
    /// An echo request, and the answer.
    Echo,
}

impl Probe {
    /// As `heddle policy matrix` takes it.
    pub fn name(self, v6: bool) -> String {
        match self {
            Self::Tcp(port) => format!("TCP/{port}"),
            Self::Udp(port) => format!("UDP/{port}"),
            Self::Echo if v6 => "ICMPv6/128".to_owned(),
            Self::Echo => "ICMP/8".to_owned(),
        }
    }
}

/// Lets this process open enough sockets for a whole matrix at once.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// A runtime on a thread that has entered a network namespace.
fn enter(netns: &Path) -> Runtime {
    let namespace =
        File::open(netns).unwrap_or_else(|error| panic!("{}: {error}", netns.display()));
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Tries every target from a network namespace, all at once; true where an answer came, a refusal by the
/// target itself included: it shows that the packet got there and the answer came back.
pub fn probe(
    netns: PathBuf,
    targets: Vec<(IpAddr, Probe)>,
    patience: Duration,
) -> JoinHandle<Vec<bool>> {
    std::thread::spawn(move || {
        enter(&netns).block_on(async move {
            let deadline = Instant::now() + patience;
            let mut tasks = JoinSet::new();
            let mut echoes = Vec::new();
            for (index, (address, probe)) in targets.iter().copied().enumerate() {
                match probe {
                    Probe::Tcp(port) => {
                        tasks.spawn(
                            async move { (index, tcp((address, port).into(), deadline).await) },
                        );
                    }
                    Probe::Udp(port) => {
                        tasks.spawn(
                            async move { (index, udp((address, port).into(), deadline).await) },
                        );
                    }
                    Probe::Echo => echoes.push((index, address)),
                }
            }
            let mut answered = vec![false; targets.len()];
            for index in echo(&echoes, deadline).await {
                answered[index] = true;
            }
            while let Some(done) = tasks.join_next().await {
                let (index, outcome) = done.unwrap();
                answered[index] = outcome;
            }
            answered
        })
    })
}

fn refused(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused
}

async fn tcp(target: SocketAddr, deadline: Instant) -> bool {
    match timeout_at(deadline, TcpStream::connect(target)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => refused(&error),
        Err(_) => false,
    }
}

async fn udp(target: SocketAddr, deadline: Instant) -> bool {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.unwrap();
    if socket.connect(target).await.is_err() {
        return false;
    }
    let mut heard = [0; 64];
    while Instant::now() < deadline {
        match socket.send(b"probe").await {
            Err(error) if refused(&error) => return true,
            _ => {}
        }
        match timeout(AGAIN, socket.recv(&mut heard)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) if refused(&error) => return true,
            _ => {}
        }
    }
    false
}

/// The targets that answered an echo request.
async fn echo(targets: &[(usize, IpAddr)], deadline: Instant) -> BTreeSet<usize> {
    let mut answered = BTreeSet::new();
    for v6 in [false, true] {
        let wanted: BTreeMap<u16, (usize, IpAddr)> = (1u16..)
            .zip(targets.iter().copied())
            .filter(|(_, (_, address))| address.is_ipv6() == v6)
            .collect();
        if !wanted.is_empty() {
            answered.extend(echo_of(v6, &wanted, deadline).await);
        }
    }
    answered
}

async fn echo_of(
    v6: bool,
    wanted: &BTreeMap<u16, (usize, IpAddr)>,
    deadline: Instant,
) -> BTreeSet<usize> {
    let (family, protocol) = if v6 {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    } else {
        (AddressFamily::Inet, SockProtocol::Icmp)
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(family, SockType::Raw, flags, protocol).unwrap();
    // A raw socket sends and receives as one for datagrams does.
    let socket = UdpSocket::from_std(socket.into()).unwrap();
    // Another id each time: a former run's connection is not this one's.
    let id = random();
    let mut answered = BTreeSet::new();
    while Instant::now() < deadline && answered.len() < wanted.len() {
        for (sequence, (index, address)) in wanted {
            if !answered.contains(index) {
                // What cannot be sent is not answered.
                let _ = socket
                    .send_to(&echo_request(*address, id, *sequence), (*address, 0))
                    .await;
            }
        }
        let round = (Instant::now() + AGAIN).min(deadline);
        let mut heard = [0; 2048];
        while let Ok(received) = timeout_at(round, socket.recv(&mut heard)).await {
            let length = received.unwrap_or(0);
            let sequence = echo_reply(&heard[..length], v6, id);
            answered.extend(sequence.and_then(|it| Some(wanted.get(&it)?.0)));
        }
    }
    answered
}

fn random() -> u16 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u16
}

fn echo_request(address: IpAddr, id: u16, sequence: u16) -> [u8; 8] {
    let kind = if address.is_ipv6() { 128 } else { 8 };
    let mut message = [kind, 0, 0, 0, 0, 0, 0, 0];
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    // The kernel fills in ICMPv6's checksum (RFC 3542, 3.1).
    let sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The sequence number of an answer to one of ours.
fn echo_reply(packet: &[u8], v6: bool, id: u16) -> Option<u16> {
    let message = if v6 {
        packet
    } else {
        packet.get(usize::from(packet.first()? & 0x0f) * 4..)?
    };
    let reply = if v6 { 129 } else { 0 };
    let [kind, _, _, _, i0, i1, s0, s1, ..] = *message else {
        return None;
    };
    (kind == reply && u16::from_be_bytes([i0, i1]) == id).then(|| u16::from_be_bytes([s0, s1]))
}

/// Servers in a network namespace; they end when this is dropped.
pub struct Servers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Accepts connections and echoes datagrams on the ports of the probes, both families.
    pub fn start(netns: PathBuf, probes: Vec<Probe>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (listening, is_listening) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            enter(&netns).block_on(async move {
                let mut serving = JoinSet::new();
                for any in [
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    Ipv6Addr::UNSPECIFIED.into(),
                ] {
                    for probe in &probes {
                        match *probe {
                            Probe::Tcp(port) => {
                                let listener = listen((any, port).into());
                                serving.spawn(async move {
                                    loop {
                                        let _ = listener.accept().await;
                                    }
                                });
                            }
                            Probe::Udp(port) => {
                                let socket = bind((any, port).into());
                                serving.spawn(async move {
                                    let mut heard = [0; 64];
                                    loop {
                                        if let Ok((length, from)) =
                                            socket.recv_from(&mut heard).await
                                        {
                                            let _ = socket.send_to(&heard[..length], from).await;
                                        }
                                    }
                                });
                            }
                            Probe::Echo => {}
                        }
                    }
                }
                listening.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        is_listening.recv().expect("the servers listen");
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A socket for one family alone, so that both can have the port.
fn only(address: SocketAddr, kind: SockType) -> OwnedFd {
    use nix::sys::socket::{bind, setsockopt, sockopt};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket(family, kind, flags, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    match address {
        SocketAddr::V4(v4) => bind(socket.as_raw_fd(), &SockaddrIn::from(v4)).unwrap(),
        SocketAddr::V6(v6) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true).unwrap();
            bind(socket.as_raw_fd(), &SockaddrIn6::from(v6)).unwrap();
        }
    }
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = only(address, SockType::Stream);
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::MAXCONN).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

fn bind(address: SocketAddr) -> UdpSocket {
    UdpSocket::from_std(only(address, SockType::Datagram).into()).unwrap()
}
