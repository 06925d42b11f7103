//! The answering end: request/response over TCP and UDP, connect-request-close, and a sink for streams.

use crate::affinity::{End, Placement, place};
use crate::process::enter;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;

/// Bytes of a request and of its response.
pub(crate) const MESSAGE: usize = 64;

/// Port of request/response, over TCP and UDP.
pub(crate) const PORT_RR: u16 = 12_865;
/// Port of connect-request-close.
pub(crate) const PORT_CRR: u16 = 12_866;
/// Port of the sink.
pub(crate) const PORT_STREAM: u16 = 12_867;

/// Where to serve.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Network namespace to enter, as a path.
    #[arg(long)]
    netns: Option<PathBuf>,
    /// Where the answering threads run.
    #[arg(long, value_enum)]
    placement: Placement,
}

/// Serves until standard input ends, so that no server outlives whoever started it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(netns) = &arguments.netns {
        enter(netns)?;
    }
    let listen = |port| {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
            .with_context(|| format!("listen on TCP port {port}"))
    };
    let (rr, crr, sink) = (listen(PORT_RR)?, listen(PORT_CRR)?, listen(PORT_STREAM)?);
    let udp = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT_RR)).context("bind the UDP port")?;

    let placement = arguments.placement;
    std::thread::spawn(move || accept(&rr, placement, echo));
    std::thread::spawn(move || {
        let _ = place(placement, End::Server);
        for stream in crr.incoming().flatten() {
            let _ = answer_once(stream);
        }
    });
    std::thread::spawn(move || accept(&sink, Placement::Free, swallow));
    std::thread::spawn(move || {
        let _ = place(placement, End::Server);
        echo_datagrams(&udp)
    });

    println!("ready");
    std::io::stdout().flush()?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}

fn accept(
    listener: &TcpListener,
    placement: Placement,
    serve: fn(TcpStream) -> std::io::Result<()>,
) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let _ = place(placement, End::Server);
            serve(stream)
        });
    }
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

fn answer_once(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message)?;
    stream.write_all(&message)
}

fn swallow(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

fn echo_datagrams(socket: &UdpSocket) -> std::io::Result<()> {
    let mut message = [0; 2048];
    loop {
        // An ICMP error about an earlier answer surfaces here; it says nothing about the next request.
        let Ok((length, from)) = socket.recv_from(&mut message) else {
            continue;
        };
        let _ = socket.send_to(&message[..length], from);
    }
}
