//! Real probes from inside network namespaces: all that one end sends goes out at once.

use super::plan::{Outcome, Probe};
use crate::LabError;
use crate::namespace;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long an answer may take where one is expected: two retransmissions of a SYN, after 1 s and 3 s (RFC 6298),
/// would still be answered.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// How long nothing may come back where silence is expected: one retransmission of a SYN is within it.
pub const SILENCE: Duration = Duration::from_millis(1_200);
/// Between two datagrams of an unanswered probe.
const RESEND_INTERVAL: Duration = Duration::from_millis(300);

/// One probe to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// The destination.
    pub address: IpAddr,
    /// What is sent.
    pub probe: Probe,
    /// How long to wait.
    pub patience: Duration,
}

impl Target {
    /// A probe that waits as long as what is expected of it asks for.
    pub const fn new(address: IpAddr, probe: Probe, expected: Outcome) -> Self {
        let patience = match expected {
            Outcome::Silent => SILENCE,
            _ => ANSWER_TIMEOUT,
        };
        Self {
            address,
            probe,
            patience,
        }
    }
}

/// What came of a probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The outcome.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// The system's words, where it gave any.
    pub detail: Option<String>,
}

impl Seen {
    fn since(start: Instant, outcome: Outcome) -> Self {
        Self {
            outcome,
            took: start.elapsed(),
            detail: None,
        }
    }

    /// What an error of a socket says of the way.
    fn from_error(start: Instant, error: &io::Error) -> Self {
        let outcome = match error.kind() {
            ErrorKind::ConnectionRefused => Outcome::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silent,
            _ => Outcome::Unreachable,
        };
        Self {
            detail: (outcome == Outcome::Unreachable).then(|| error.to_string()),
            ..Self::since(start, outcome)
        }
    }
}

/// Sends every probe from a network namespace at once, and waits for all of them; results in the order of the targets.
///
/// # Errors
///
/// When the namespace cannot be entered, or gives no sockets.
pub fn run(from: &str, targets: &[Target]) -> Result<Vec<Seen>, LabError> {
    namespace::inside(from, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| LabError::system("make a runtime for probes", error))?;
        runtime.block_on(all(targets))
    })
}

async fn all(targets: &[Target]) -> Result<Vec<Seen>, LabError> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, target) in targets.iter().copied().enumerate() {
        tasks.spawn(async move {
            let deadline = start + target.patience;
            let seen = match target.probe {
                Probe::Tcp(port) | Probe::Established(port) => {
                    tcp((target.address, port).into(), start, deadline).await
                }
                Probe::Udp(port) => udp((target.address, port).into(), start, deadline).await,
                Probe::Echo => echo(target.address, start, deadline).await,
            };
            (index, seen)
        });
    }
    let mut seen = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (index, outcome) =
            done.map_err(|error| LabError::system("send probes", io::Error::other(error)))?;
        seen.insert(index, outcome?);
    }
    Ok(seen.into_values().collect())
}

async fn tcp(target: SocketAddr, start: Instant, deadline: Instant) -> Result<Seen, LabError> {
    Ok(
        match timeout_at(deadline, TcpStream::connect(target)).await {
            Ok(Ok(_)) => Seen::since(start, Outcome::Answered),
            Ok(Err(error)) => Seen::from_error(start, &error),
            Err(_) => Seen::since(start, Outcome::Silent),
        },
    )
}

async fn udp(target: SocketAddr, start: Instant, deadline: Instant) -> Result<Seen, LabError> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))
        .await
        .map_err(|error| LabError::system("open a socket for probes", error))?;
    if let Err(error) = socket.connect(target).await {
        return Ok(Seen::from_error(start, &error));
    }
    let mut heard = [0; 64];
    while Instant::now() < deadline {
        if let Err(error) = socket.send(b"connectivity").await {
            return Ok(Seen::from_error(start, &error));
        }
        let until = deadline.min(Instant::now() + RESEND_INTERVAL);
        match timeout_at(until, socket.recv(&mut heard)).await {
            Ok(Ok(_)) => return Ok(Seen::since(start, Outcome::Answered)),
            Ok(Err(error)) => return Ok(Seen::from_error(start, &error)),
            Err(_) => {}
        }
    }
    Ok(Seen::since(start, Outcome::Silent))
}

/// Another identifier for each echo probe: a former one's connection is not this one's.
fn next_identifier() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Probes of processes that run side by side begin apart.
    #[allow(clippy::cast_possible_truncation)]
    let base = (std::process::id() as u16).wrapping_mul(257);
    NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(base)
}

async fn echo(target: IpAddr, start: Instant, deadline: Instant) -> Result<Seen, LabError> {
    let v6 = target.is_ipv6();
    let (family, protocol) = if v6 {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    } else {
        (AddressFamily::Inet, SockProtocol::Icmp)
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = nix::sys::socket::socket(family, SockType::Raw, flags, protocol)
        .map_err(|error| LabError::system("open a raw socket for echo requests", error))?;
    // A raw socket sends and receives as one for datagrams does.
    let socket = UdpSocket::from_std(socket.into())
        .map_err(|error| LabError::system("wait on a raw socket", error))?;
    if let Err(error) = socket.connect((target, 0)).await {
        return Ok(Seen::from_error(start, &error));
    }
    let identifier = next_identifier();
    let mut sequence = 0_u16;
    let mut packet = [0; 1_500];
    while Instant::now() < deadline {
        sequence += 1;
        if let Err(error) = socket.send(&echo_request(v6, identifier, sequence)).await {
            return Ok(Seen::from_error(start, &error));
        }
        let until = deadline.min(Instant::now() + RESEND_INTERVAL);
        loop {
            match timeout_at(until, socket.recv(&mut packet)).await {
                Ok(Ok(length)) if is_reply(&packet[..length], v6, identifier) => {
                    return Ok(Seen::since(start, Outcome::Answered));
                }
                // Somebody else's.
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Ok(Seen::from_error(start, &error)),
                Err(_) => break,
            }
        }
    }
    Ok(Seen::since(start, Outcome::Silent))
}

/// An echo request (RFC 792; RFC 4443, section 4.1).
fn echo_request(v6: bool, identifier: u16, sequence: u16) -> [u8; 8] {
    let kind = if v6 { 128 } else { 8 };
    let mut message = [kind, 0, 0, 0, 0, 0, 0, 0];
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    // The kernel fills in ICMPv6's checksum (RFC 3542, section 3.1).
    let mut sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(sum).unwrap_or_default();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// True for an answer to an echo request with this identifier. A raw IPv4 socket gives the IP header, too.
fn is_reply(packet: &[u8], v6: bool, identifier: u16) -> bool {
    let header = match (v6, packet.first()) {
        (true, _) | (_, None) => 0,
        (false, Some(first)) => usize::from(first & 0x0f) * 4,
    };
    let reply = if v6 { 129 } else { 0 };
    match packet.get(header..) {
        Some([kind, _, _, _, high, low, ..]) => {
            *kind == reply && u16::from_be_bytes([*high, *low]) == identifier
        }
        _ => false,
    }
}

/// Connections that stand, in the order of their targets; what did not open is told instead.
pub type Opened = Vec<Result<std::net::TcpStream, Seen>>;

/// Opens TCP connections from a network namespace, and has each echo once.
///
/// # Errors
///
/// When the namespace cannot be entered.
pub fn open(from: &str, targets: &[SocketAddr]) -> Result<Opened, LabError> {
    namespace::inside(from, || {
        Ok(targets
            .iter()
            .map(|target| {
                let start = Instant::now();
                let stream = std::net::TcpStream::connect_timeout(target, ANSWER_TIMEOUT)
                    .map_err(|error| Seen::from_error(start, &error))?;
                match exchange(&stream, ANSWER_TIMEOUT) {
                    Seen {
                        outcome: Outcome::Answered,
                        ..
                    } => Ok(stream),
                    seen => Err(seen),
                }
            })
            .collect())
    })
}

/// Sends bytes over a connection and waits for their echo.
pub fn exchange(mut stream: &std::net::TcpStream, patience: Duration) -> Seen {
    let start = Instant::now();
    let words = b"0123456789\n";
    let mut heard = [0; 11];
    let done = stream
        .set_read_timeout(Some(patience))
        .and_then(|()| stream.set_write_timeout(Some(patience)))
        .and_then(|()| stream.write_all(words))
        .and_then(|()| stream.read_exact(&mut heard));
    match done {
        Ok(()) => Seen::since(start, Outcome::Answered),
        Err(error) => Seen::from_error(start, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_carries_a_right_checksum() {
        let message = echo_request(false, 0xfffe, 0x1234);
        let sum: u32 = message
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn only_the_own_reply_counts() {
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 0, 0, 0x12, 0x34, 0, 1]);
        assert!(is_reply(&packet, false, 0x1234));
        assert!(!is_reply(&packet, false, 0x1235));
        // The request itself, as it comes by on the loopback.
        packet[20] = 8;
        assert!(!is_reply(&packet, false, 0x1234));
        assert!(is_reply(&[129, 0, 0, 0, 0x12, 0x34, 0, 1], true, 0x1234));
        assert!(!is_reply(&[129, 0], true, 0x1234));
        assert!(!is_reply(&[], false, 0x1234));
    }

    #[tokio::test]
    async fn answers_refusals_and_silence_are_told_apart() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap().port();
        // Bound and not listening: nobody else gets the port.
        let closed = tokio::net::TcpSocket::new_v4().unwrap();
        closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed_port = closed.local_addr().unwrap().port();
        let quiet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let quiet_port = quiet.local_addr().unwrap().port();
        let target = |probe, expected| Target::new(Ipv4Addr::LOCALHOST.into(), probe, expected);
        let seen = all(&[
            target(Probe::Tcp(open), Outcome::Answered),
            target(Probe::Tcp(closed_port), Outcome::Refused),
            target(Probe::Udp(quiet_port), Outcome::Silent),
        ])
        .await
        .unwrap();
        let outcomes: Vec<Outcome> = seen.iter().map(|one| one.outcome).collect();
        assert_eq!(
            outcomes,
            [Outcome::Answered, Outcome::Refused, Outcome::Silent]
        );
        assert!(seen[2].took >= SILENCE);
    }
}
