//! Traffic that must go on, and attempts that must fail, from threads inside pods' network namespaces.

use nix::sched::{CloneFlags, setns};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Port of requests over TCP.
pub const TCP_PORT: u16 = 8080;
/// Port of requests over UDP.
pub const UDP_PORT: u16 = 5353;

/// Bytes of a request and its answer.
const MESSAGE: usize = 8;
/// How long an answer may take before it counts as lost; TCP sends again meanwhile, UDP does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two requests of a thread, so that the load leaves a machine of two CPUs something for the agents.
const PACE: Duration = Duration::from_millis(1);
/// Requests of one connection or socket; then another, with a port of its own.
const OF_ONE: u32 = 100;
/// How long a server waits before it looks whether it should end.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a denied connection is tried.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Runs a thread in a network namespace; it ends when `stop` says so.
fn inside<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<T>>> {
    let namespace = File::open(netns)?;
    Ok(thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        work()
    }))
}

/// What an end asked and heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Requests over TCP that were answered.
    pub tcp: u64,
    /// Requests over UDP that were answered.
    pub udp: u64,
    /// Connections and sockets that they needed.
    pub opened: u64,
    /// Requests without an answer, and connections that did not open or broke.
    pub lost: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            tcp: self.tcp + other.tcp,
            udp: self.udp + other.udp,
            opened: self.opened + other.opened,
            lost: self.lost + other.lost,
        }
    }
}

type Heard = Arc<Mutex<BTreeMap<IpAddr, u64>>>;

fn note(heard: &Heard, from: IpAddr) {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    *heard.entry(from.to_canonical()).or_default() += 1;
}

/// A server in a pod that notes who it heard from: connections and datagrams.
pub struct Receiver {
    heard: Heard,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Receiver {
    /// Listens on [`TCP_PORT`] and [`UDP_PORT`], both families, and sends back what it gets.
    ///
    /// # Errors
    ///
    /// When the namespace or a port is not to be had.
    pub fn start(netns: &Path) -> io::Result<Self> {
        let (heard, stop) = (Heard::default(), Arc::new(AtomicBool::new(false)));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        for tcp in [true, false] {
            let (heard, stop, ready) = (Arc::clone(&heard), Arc::clone(&stop), ready.clone());
            threads.push(inside(netns, move || {
                let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
                if tcp {
                    let listener = TcpListener::bind((any, TCP_PORT))?;
                    listener.set_nonblocking(true)?;
                    let _ = ready.send(());
                    accept(&listener, &heard, &stop)
                } else {
                    let socket = UdpSocket::bind((any, UDP_PORT))?;
                    socket.set_read_timeout(Some(READ_TIMEOUT))?;
                    let _ = ready.send(());
                    answer_datagrams(&socket, &heard, &stop)
                }
            })?);
        }
        drop(ready);
        for _ in 0..threads.len() {
            if is_ready.recv().is_err() {
                return Err(io::Error::other("the server's ports cannot be bound"));
            }
        }
        Ok(Self {
            heard,
            stop,
            threads,
        })
    }

    /// Connections and datagrams so far, by source.
    pub fn heard(&self) -> BTreeMap<IpAddr, u64> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, heard: &Heard, stop: &Arc<AtomicBool>) -> io::Result<()> {
    let mut serving = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, from)) => {
                note(heard, from.ip());
                let stop = Arc::clone(stop);
                serving.push(thread::spawn(move || serve(stream, &stop)));
                serving.retain(|thread| !thread.is_finished());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PACE),
            Err(error) => return Err(error),
        }
    }
    for thread in serving {
        let _ = thread.join();
    }
    Ok(())
}

fn serve(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut message = [0; MESSAGE];
    while !stop.load(Ordering::SeqCst) {
        match stream.read(&mut message) {
            Ok(0) => return Ok(()),
            Ok(length) => stream.write_all(&message[..length])?,
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn answer_datagrams(socket: &UdpSocket, heard: &Heard, stop: &AtomicBool) -> io::Result<()> {
    let mut message = [0; 64];
    while !stop.load(Ordering::SeqCst) {
        // A port that is gone by now is nothing to the others.
        if let Ok((length, from)) = socket.recv_from(&mut message) {
            note(heard, from.ip());
            let _ = socket.send_to(&message[..length], from);
        }
    }
    Ok(())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Somebody who sends without end, to each address by TCP and UDP.
pub struct Sender {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<Counts>>>,
}

impl Sender {
    /// Requests, one after the other, that must all be answered.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be opened.
    pub fn requests(netns: &Path, addresses: &[IpAddr]) -> io::Result<Self> {
        Self::start(netns, addresses, [ask_by_tcp, ask_by_udp])
    }

    /// Attempts to get through, which must all fail; `lost` counts them.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be opened.
    pub fn attempts(netns: &Path, addresses: &[IpAddr]) -> io::Result<Self> {
        Self::start(netns, addresses, [try_by_tcp, try_by_udp])
    }

    fn start(
        netns: &Path,
        addresses: &[IpAddr],
        kinds: [fn(IpAddr, &AtomicBool) -> io::Result<Counts>; 2],
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in addresses.iter().copied() {
            for kind in kinds {
                let stop = Arc::clone(&stop);
                threads.push(inside(netns, move || kind(address, &stop))?);
            }
        }
        Ok(Self { stop, threads })
    }

    /// Ends, and tells what came of it.
    ///
    /// # Errors
    ///
    /// When a thread could not send at all.
    pub fn finish(mut self) -> io::Result<Counts> {
        self.stop.store(true, Ordering::SeqCst);
        let mut sum = Counts::default();
        for thread in self.threads.drain(..) {
            let counts = thread
                .join()
                .map_err(|_| io::Error::other("a sender's thread ended early"))??;
            sum = sum.plus(counts);
        }
        Ok(sum)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn ask_by_tcp(address: IpAddr, stop: &AtomicBool) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut sequence = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        counts.opened += 1;
        let target = SocketAddr::new(address, TCP_PORT);
        let Ok(mut stream) = TcpStream::connect_timeout(&target, ANSWER_TIMEOUT) else {
            counts.lost += 1;
            continue;
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        for _ in 0..OF_ONE {
            sequence += 1;
            let mut answer = [0; MESSAGE];
            let asked = stream
                .write_all(&sequence.to_be_bytes())
                .and_then(|()| stream.read_exact(&mut answer));
            if asked.is_err() || answer != sequence.to_be_bytes() {
                counts.lost += 1;
                break;
            }
            counts.tcp += 1;
            if stop.load(Ordering::SeqCst) {
                break;
            }
            thread::sleep(PACE);
        }
    }
    Ok(counts)
}

fn udp_to(address: IpAddr) -> io::Result<UdpSocket> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, UDP_PORT))?;
    Ok(socket)
}

fn ask_by_udp(address: IpAddr, stop: &AtomicBool) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut sequence = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        counts.opened += 1;
        let socket = udp_to(address)?;
        for _ in 0..OF_ONE {
            sequence += 1;
            if !answered(&socket, sequence) {
                counts.lost += 1;
                break;
            }
            counts.udp += 1;
            if stop.load(Ordering::SeqCst) {
                break;
            }
            thread::sleep(PACE);
        }
    }
    Ok(counts)
}

/// Sends once; nobody sends a lost datagram again.
fn answered(socket: &UdpSocket, sequence: u64) -> bool {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    if socket.send(&sequence.to_be_bytes()).is_err() {
        return false;
    }
    let mut answer = [0; MESSAGE];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match socket.recv(&mut answer) {
            Ok(MESSAGE) if answer == sequence.to_be_bytes() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn try_by_tcp(address: IpAddr, stop: &AtomicBool) -> io::Result<Counts> {
    let mut counts = Counts::default();
    while !stop.load(Ordering::SeqCst) {
        counts.opened += 1;
        match TcpStream::connect_timeout(&SocketAddr::new(address, TCP_PORT), ATTEMPT) {
            Ok(_) => counts.tcp += 1,
            Err(_) => counts.lost += 1,
        }
    }
    Ok(counts)
}

fn try_by_udp(address: IpAddr, stop: &AtomicBool) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let socket = udp_to(address)?;
    socket.set_read_timeout(Some(PACE * 2))?;
    while !stop.load(Ordering::SeqCst) {
        counts.opened += 1;
        // What cannot be sent did not get through either.
        let _ = socket.send(&[0; MESSAGE]);
        match socket.recv(&mut [0; MESSAGE]) {
            Ok(_) => counts.udp += 1,
            Err(_) => counts.lost += 1,
        }
    }
    Ok(counts)
}

/// A pod, for whoever makes load in it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}
