//! The asking end: makes load for a while and says what came back.

use crate::affinity::{End, Placement, place};
use crate::process::enter;
use crate::serve::{MESSAGE, PORT_CRR, PORT_RR, PORT_STREAM};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    /// One TCP connection, one request at a time.
    TcpRr,
    /// One UDP socket, one request at a time.
    UdpRr,
    /// Connect, request, response, close.
    TcpCrr,
    /// One TCP connection at full speed.
    TcpStream,
    /// Four TCP connections at full speed.
    TcpStream4,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 5] = [
        Self::TcpRr,
        Self::UdpRr,
        Self::TcpCrr,
        Self::TcpStream,
        Self::TcpStream4,
    ];

    /// Its name on the command line and in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TcpRr => "tcp-rr",
            Self::UdpRr => "udp-rr",
            Self::TcpCrr => "tcp-crr",
            Self::TcpStream => "tcp-stream",
            Self::TcpStream4 => "tcp-stream4",
        }
    }

    /// The unit of its rate.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::TcpRr | Self::UdpRr => "transactions/s",
            Self::TcpCrr => "connections/s",
            Self::TcpStream | Self::TcpStream4 => "Gbit/s",
        }
    }

    /// Streams want both CPUs; a request and its response take turns.
    pub(crate) const fn placement(self, wanted: Placement) -> Placement {
        match self {
            Self::TcpStream | Self::TcpStream4 => Placement::Free,
            Self::TcpRr | Self::UdpRr | Self::TcpCrr => wanted,
        }
    }
}

/// What to ask, from where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Network namespace to enter, as a path.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// What to measure.
    #[arg(long, value_enum)]
    kind: Kind,
    /// The server's address.
    #[arg(long)]
    to: IpAddr,
    /// Seconds to measure.
    #[arg(long)]
    seconds: f64,
    /// Where the asking thread runs.
    #[arg(long, value_enum)]
    placement: Placement,
}

/// What came back.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Outcome {
    /// In the kind's unit.
    pub(crate) rate: f64,
    /// Requests without an answer.
    pub(crate) lost: u64,
}

/// How long a connection may take to come up, and an answer to arrive.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Measures, and prints the outcome.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(netns) = &arguments.netns {
        enter(netns)?;
    }
    let kind = arguments.kind;
    place(kind.placement(arguments.placement), End::Client)?;
    let length = Duration::from_secs_f64(arguments.seconds);
    let warm = length / 5;
    let outcome = match kind {
        Kind::TcpRr => tcp_rr(arguments.to, warm, length)?,
        Kind::UdpRr => udp_rr(arguments.to, warm, length)?,
        Kind::TcpCrr => tcp_crr(arguments.to, warm, length)?,
        Kind::TcpStream => stream(arguments.to, 1, warm, length)?,
        Kind::TcpStream4 => stream(arguments.to, 4, warm, length)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Runs `once` until `warm` is over, then counts how often it runs in `length`.
fn rate(warm: Duration, length: Duration, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    while start.elapsed() < warm {
        once()?;
    }
    let (start, mut count) = (Instant::now(), 0_u32);
    loop {
        once()?;
        count += 1;
        let elapsed = start.elapsed();
        if elapsed >= length {
            return Ok(f64::from(count) / elapsed.as_secs_f64());
        }
    }
}

fn connect(address: IpAddr, port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), ANSWER_TIMEOUT)
        .with_context(|| format!("connect to {address} port {port}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

fn tcp_rr(address: IpAddr, warm: Duration, length: Duration) -> Result<Outcome> {
    let mut stream = connect(address, PORT_RR)?;
    let mut message = [0; MESSAGE];
    let rate = rate(warm, length, || {
        stream.write_all(&message)?;
        Ok(stream.read_exact(&mut message)?)
    })?;
    Ok(Outcome { rate, lost: 0 })
}

fn udp_rr(address: IpAddr, warm: Duration, length: Duration) -> Result<Outcome> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((address, PORT_RR))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut message, mut sequence, mut lost) = ([0; MESSAGE], 0_u64, 0_u64);
    let rate = rate(warm, length, || {
        sequence += 1;
        message[..8].copy_from_slice(&sequence.to_ne_bytes());
        socket.send(&message)?;
        loop {
            match socket.recv(&mut message) {
                // A late answer to a request already given up.
                Ok(_) if message[..8] != sequence.to_ne_bytes() => {}
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    lost += 1;
                    anyhow::ensure!(lost < 10, "{address} does not answer on UDP port {PORT_RR}");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    })?;
    Ok(Outcome { rate, lost })
}

fn tcp_crr(address: IpAddr, warm: Duration, length: Duration) -> Result<Outcome> {
    let mut message = [0; MESSAGE];
    let rate = rate(warm, length, || {
        let mut stream = connect(address, PORT_CRR)?;
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        // The server closes first, so its side keeps the TIME_WAIT and this one never runs out of ports.
        let end = stream.read(&mut [0])?;
        anyhow::ensure!(end == 0, "{address} sent more than it was asked for");
        Ok(())
    })?;
    Ok(Outcome { rate, lost: 0 })
}

fn stream(address: IpAddr, streams: usize, warm: Duration, length: Duration) -> Result<Outcome> {
    let ready = Barrier::new(streams);
    let rates = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..streams)
            .map(|_| {
                scope.spawn(|| {
                    let connected = connect(address, PORT_STREAM);
                    ready.wait();
                    let mut stream = connected?;
                    let buffer = vec![0; 128 << 10];
                    rate(warm, length, || Ok(stream.write_all(&buffer)?))
                        .map(|per_second| per_second * (buffer.len() * 8) as f64 / 1e9)
                })
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| match handle.join() {
                Ok(rate) => rate,
                Err(_) => anyhow::bail!("a stream's thread ended early"),
            })
            .collect::<Result<Vec<f64>>>()
    })?;
    Ok(Outcome {
        rate: rates.iter().sum(),
        lost: 0,
    })
}
