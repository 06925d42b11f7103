//! Listeners of a connectivity test where no pod is: on the nodes and on the host outside.

use crate::LabError;
use crate::namespace;
use std::io;
use std::net::IpAddr;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// Times that a port which is free in one family only is tried again.
const ATTEMPTS: usize = 32;

/// Sockets of a namespace, on ports that were free there; closed when it is dropped.
pub(super) struct Listening {
    /// The TCP port.
    pub(super) tcp: u16,
    /// The UDP port.
    pub(super) udp: u16,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Accepts connections and echoes datagrams in a namespace, on these addresses. Must be called within a runtime.
///
/// # Errors
///
/// When the namespace cannot be entered, or no port is free on all addresses.
pub(super) fn start(host: &str, addresses: &[IpAddr]) -> Result<Listening, LabError> {
    let (tcp, udp) = namespace::inside(host, || {
        let tcp = on_one_port(
            addresses,
            |address, port| std::net::TcpListener::bind((address, port)),
            |socket| Ok(socket.local_addr()?.port()),
        );
        let udp = on_one_port(
            addresses,
            |address, port| std::net::UdpSocket::bind((address, port)),
            |socket| Ok(socket.local_addr()?.port()),
        );
        let failed = |error| LabError::system(format!("listen in the namespace {host}"), error);
        Ok((tcp.map_err(failed)?, udp.map_err(failed)?))
    })?;
    let failed =
        |error| LabError::system(format!("wait on a socket of the namespace {host}"), error);
    let mut listening = Listening {
        tcp: tcp.1,
        udp: udp.1,
        tasks: Vec::new(),
    };
    for socket in tcp.0 {
        socket.set_nonblocking(true).map_err(failed)?;
        let socket = TcpListener::from_std(socket).map_err(failed)?;
        listening.tasks.push(tokio::spawn(async move {
            // That it opened is all that a probe asks.
            while socket.accept().await.is_ok() {}
        }));
    }
    for socket in udp.0 {
        socket.set_nonblocking(true).map_err(failed)?;
        let socket = UdpSocket::from_std(socket).map_err(failed)?;
        listening.tasks.push(tokio::spawn(async move {
            let mut heard = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut heard).await {
                // Who cannot be answered sees silence, which is what is reported.
                let _ = socket.send_to(&heard[..length], from).await;
            }
        }));
    }
    Ok(listening)
}

/// A socket per address, all on one port.
fn on_one_port<T>(
    addresses: &[IpAddr],
    bind: impl Fn(IpAddr, u16) -> io::Result<T>,
    port_of: impl Fn(&T) -> io::Result<u16>,
) -> io::Result<(Vec<T>, u16)> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let mut sockets = Vec::new();
        let mut port = 0;
        let mut failure = None;
        for address in addresses {
            match bind(*address, port) {
                Ok(socket) => {
                    port = port_of(&socket)?;
                    sockets.push(socket);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => return Ok((sockets, port)),
            Some(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrInUse)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn all_addresses_share_a_port() {
        let addresses: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let (sockets, port) = on_one_port(
            &addresses,
            |address, port| std::net::TcpListener::bind((address, port)),
            |socket| Ok(socket.local_addr()?.port()),
        )
        .unwrap();
        assert_eq!(sockets.len(), 2);
        assert_ne!(port, 0);
        for socket in sockets {
            assert_eq!(socket.local_addr().unwrap().port(), port);
        }
    }
}
