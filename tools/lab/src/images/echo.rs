//! The image `heddle/echo`: HTTP, TCP and UDP echo, on one port per declared port.

use crate::LabError;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Connections served at once; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 4_096;
/// Bytes of a request's head at most.
const MAX_HEAD: usize = 16 * 1024;
/// Beginnings of a request, by which HTTP is told from bytes to echo.
const METHODS: [&str; 7] = [
    "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ",
];

/// Who answers.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `namespace/name` of the pod.
    pub pod: String,
    /// Its node.
    pub node: String,
}

/// Says to whoever started this that every port is open: one byte through stdin, which is a socket then.
pub fn say_listening() {
    // Without such a starter, stdin is no socket and nobody waits.
    let _ = nix::sys::socket::send(0, b"L", nix::sys::socket::MsgFlags::MSG_NOSIGNAL);
}

/// Serves until it is ended; `listening` is called once every port is open.
pub async fn serve(
    identity: Identity,
    tcp: &[u16],
    udp: &[u16],
    listening: impl FnOnce(),
) -> Result<(), LabError> {
    let identity = Arc::new(identity);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut serving = tokio::task::JoinSet::new();
    for port in tcp {
        for listener in listen(*port)? {
            serving.spawn(accept(listener, identity.clone(), places.clone()));
        }
    }
    for port in udp {
        for socket in bind(*port).await? {
            serving.spawn(answer_datagrams(socket));
        }
    }
    eprintln!("listening on TCP {tcp:?} and UDP {udp:?}");
    listening();
    if serving.is_empty() {
        std::future::pending::<()>().await;
    }
    match serving.join_next().await {
        Some(Ok(error)) => Err(LabError::system("go on listening", error)),
        _ => Ok(()),
    }
}

/// One listener per family, so that peers are seen with their real addresses; a machine without IPv6
/// has one.
fn listen(port: u16) -> Result<Vec<TcpListener>, LabError> {
    let open = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        if address.is_ipv6() {
            only_ipv6(&socket)?;
        }
        socket.bind(address)?;
        socket.listen(1_024)
    };
    open_both(port, "TCP", open)
}

fn open_both<T>(
    port: u16,
    protocol: &str,
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<Vec<T>, LabError> {
    let mut sockets = Vec::new();
    for address in [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ] {
        match open(address) {
            Ok(socket) => sockets.push(socket),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL)
                ) => {}
            Err(error) => {
                return Err(LabError::system(
                    format!("listen on {protocol} {address}"),
                    error,
                ));
            }
        }
    }
    Ok(sockets)
}

fn only_ipv6(socket: &impl std::os::fd::AsFd) -> io::Result<()> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Ipv6V6Only, &true)?;
    Ok(())
}

async fn bind(port: u16) -> Result<Vec<UdpSocket>, LabError> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType};
    open_both(port, "UDP", |address| {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = nix::sys::socket::socket(family, SockType::Datagram, flags, None)?;
        if address.is_ipv6() {
            only_ipv6(&socket)?;
        }
        nix::sys::socket::bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &nix::sys::socket::SockaddrStorage::from(address),
        )?;
        UdpSocket::from_std(std::net::UdpSocket::from(socket))
    })
}

async fn answer_datagrams(socket: UdpSocket) -> io::Error {
    let mut buffer = vec![0; 65_536];
    loop {
        match socket.recv_from(&mut buffer).await {
            // A peer that is gone, or that policy cut off, is not this server's end.
            Ok((length, peer)) => {
                let _ = socket.send_to(&buffer[..length], peer).await;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return error,
        }
    }
}

async fn accept(
    listener: TcpListener,
    identity: Arc<Identity>,
    places: Arc<Semaphore>,
) -> io::Error {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return io::Error::other("no more places");
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let identity = identity.clone();
                tokio::spawn(async move {
                    // The peer went away, or sent what is no request: its connection ends.
                    let _ = converse(stream, peer, &identity).await;
                    drop(place);
                });
            }
            // Out of descriptors: those that are served must end first.
            Err(error) if error.raw_os_error() == Some(nix::libc::EMFILE) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return error,
        }
    }
}

async fn converse(mut stream: TcpStream, peer: SocketAddr, identity: &Identity) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = Vec::with_capacity(4_096);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return stream.write_all(&first).await;
        }
        match looks_like_http(&first) {
            Some(true) => return serve_http(stream, first, peer, identity).await,
            Some(false) => break,
            None => {
                // Perhaps the beginning of a method; an echo client that sends so little and waits
                // gets its bytes after a moment.
                let more = stream.readable();
                if tokio::time::timeout(Duration::from_millis(50), more)
                    .await
                    .is_err()
                {
                    break;
                }
            }
        }
    }
    stream.write_all(&first).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// True or false when the bytes tell; none when they are the beginning of a method.
fn looks_like_http(bytes: &[u8]) -> Option<bool> {
    if METHODS
        .iter()
        .any(|method| bytes.starts_with(method.as_bytes()))
    {
        return Some(true);
    }
    if METHODS
        .iter()
        .any(|method| method.as_bytes().starts_with(bytes))
    {
        return None;
    }
    Some(false)
}

/// A request's line and the headers that matter here.
#[derive(PartialEq, Eq, Debug)]
struct Request {
    method: String,
    target: String,
    length: usize,
    keep: bool,
    head: usize,
}

fn parse_request(bytes: &[u8]) -> Option<Request> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        length: 0,
        keep: version == "HTTP/1.1",
        head,
    };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            request.length = value.parse().ok()?;
        } else if name.eq_ignore_ascii_case("connection") {
            request.keep = !value.eq_ignore_ascii_case("close")
                && (request.keep || value.eq_ignore_ascii_case("keep-alive"));
        }
    }
    Some(request)
}

async fn serve_http(
    mut stream: TcpStream,
    mut buffer: Vec<u8>,
    peer: SocketAddr,
    identity: &Identity,
) -> io::Result<()> {
    loop {
        let request = loop {
            if let Some(request) = parse_request(&buffer) {
                break request;
            }
            if buffer.len() > MAX_HEAD || buffer.windows(4).any(|window| window == b"\r\n\r\n") {
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        buffer.drain(..request.head);
        // The body is read and left: the answer does not depend on it.
        let mut left = request.length;
        loop {
            let here = left.min(buffer.len());
            buffer.drain(..here);
            left -= here;
            if left == 0 {
                break;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        respond(&mut stream, &request, peer, identity).await?;
        if !request.keep {
            return stream.shutdown().await;
        }
    }
}

async fn respond(
    stream: &mut TcpStream,
    request: &Request,
    peer: SocketAddr,
    identity: &Identity,
) -> io::Result<()> {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let number = |key: &str| -> Option<u64> {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    };
    let mut status = 200;
    let mut filler = None;
    if let Some(code) = path.strip_prefix("/status/") {
        status = code
            .parse()
            .ok()
            .filter(|code| (200..600).contains(code))
            .unwrap_or(400);
    } else if path == "/slow" {
        tokio::time::sleep(Duration::from_millis(
            number("ms").unwrap_or(1_000).min(600_000),
        ))
        .await;
    } else if path == "/bytes" {
        filler = Some(number("n").unwrap_or(1_024));
    }
    let local = stream.local_addr()?;
    let mut body = serde_json::json!({
        "pod": identity.pod,
        "node": identity.node,
        "peer": peer.ip().to_string(),
        "peerPort": peer.port(),
        "address": local.ip().to_string(),
        "port": local.port(),
        "method": request.method,
        "path": request.target,
    })
    .to_string();
    body.push('\n');
    // Neither of these has a body (RFC 9110, sections 15.3.5 and 15.4.5).
    let bare = matches!(status, 204 | 304);
    let length = match filler {
        Some(count) => count,
        None if bare => 0,
        None => body.len() as u64,
    };
    let kind = if filler.is_some() {
        "application/octet-stream"
    } else {
        "application/json"
    };
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         X-Pod: {}\r\nX-Node: {}\r\nX-Peer: {peer}\r\nConnection: {}\r\n\r\n",
        if status < 400 { "OK" } else { "Error" },
        identity.pod,
        identity.node,
        if request.keep { "keep-alive" } else { "close" },
    );
    stream.write_all(head.as_bytes()).await?;
    if request.method == "HEAD" || bare {
        return Ok(());
    }
    match filler {
        None => stream.write_all(body.as_bytes()).await,
        Some(mut left) => {
            let chunk = [b'x'; 16 * 1024];
            while left > 0 {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
                stream.write_all(&chunk[..here]).await?;
                left -= here as u64;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
