//! Which sockets take packets for a port: `sock_diag` (linux/inet_diag.h), over netlink as all else.

use crate::DatapathError;
use rtnetlink::{
    packet_core::{
        NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG},
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;

/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];
/// `SOCK_DIAG_BY_FAMILY` (linux/sock_diag.h).
const BY_FAMILY: u16 = 20;
/// Bits of states (net/tcp_states.h): TCP that listens, UDP that is bound and not connected.
const LISTEN: u32 = 1 << 10;
const CLOSE: u32 = 1 << 7;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;
/// Sockets of one port: many only where they share it.
const MOST_SOCKETS: usize = 1024;
/// Answers of the kernel that are read for a list, each with some 25 sockets: not every protocol's list is of one port.
const MOST_MESSAGES: usize = 16_384;

/// A socket that takes what comes for a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Bound {
    /// The local address; unspecified for all.
    pub(super) address: IpAddr,
    /// An IPv6 socket that takes no IPv4.
    pub(super) ipv6_only: bool,
    /// Index of the device whose packets alone it takes; 0: of all.
    pub(super) interface: u32,
}

/// The sockets of the thread's network namespace that take what comes for a port.
pub(super) fn listeners(protocol: u8, port: u16) -> Result<Vec<Bound>, DatapathError> {
    let mut found = BTreeSet::new();
    for family in FAMILIES {
        ask(family, protocol, port, &mut found).map_err(|error| DatapathError::Failed {
            doing: "list",
            object: "sockets".to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(found.into_iter().collect())
}

fn ask(family: u8, protocol: u8, port: u16, found: &mut BTreeSet<Bound>) -> std::io::Result<()> {
    let bad = |error: &dyn std::fmt::Display| {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string())
    };
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let question = Message::Question {
        family,
        protocol,
        port,
    };
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    for _ in 0..MOST_MESSAGES {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<Message>::deserialize(rest).map_err(|error| bad(&error))?;
            match message.payload {
                // A protocol that the kernel cannot list is an error here, not in a message of its own.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(std::io::Error::from_raw_os_error(
                        done.code.saturating_neg(),
                    ));
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                // Another socket of the same port may be dumped: not every protocol's dump asks for it.
                NetlinkPayload::InnerMessage(Message::Socket { port: of, bound }) if of == port => {
                    found.insert(bound);
                    if found.len() > MOST_SOCKETS {
                        return Err(bad(&format!(
                            "more than {MOST_SOCKETS} sockets share port {port}"
                        )));
                    }
                }
                _ => {}
            }
            // Messages begin at multiples of four bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    Err(bad(&"the list of sockets has no end"))
}

/// A message of `sock_diag` about IP sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Message {
    /// `struct inet_diag_req_v2`: all sockets of a local port that take packets from anybody.
    Question { family: u8, protocol: u8, port: u16 },
    /// `struct inet_diag_msg`: a socket.
    Socket { port: u16, bound: Bound },
}

/// Bytes of the question: four, the states, `struct inet_diag_sockid`.
const QUESTION_LENGTH: usize = 8 + 48;
/// Bytes of an answer before its attributes.
const ANSWER_LENGTH: usize = 4 + 48 + 20;

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        QUESTION_LENGTH
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let Self::Question {
            family,
            protocol,
            port,
        } = self
        else {
            return;
        };
        let states = if *protocol == TCP { LISTEN } else { CLOSE };
        buffer.fill(0);
        buffer[..2].copy_from_slice(&[*family, *protocol]);
        buffer[4..8].copy_from_slice(&states.to_ne_bytes());
        buffer[8..10].copy_from_slice(&port.to_be_bytes());
    }
}

impl NetlinkDeserializable for Message {
    type Error = std::io::Error;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        let short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let bytes: &[u8; ANSWER_LENGTH] = payload.first_chunk().ok_or_else(short)?;
        let port = u16::from_be_bytes([bytes[4], bytes[5]]);
        let mut address = [0; 16];
        address.copy_from_slice(&bytes[8..24]);
        let address = match bytes[0] {
            2 => IpAddr::V4(Ipv4Addr::new(
                address[0], address[1], address[2], address[3],
            )),
            _ => IpAddr::V6(Ipv6Addr::from(address)),
        };
        Ok(Self::Socket {
            port,
            bound: Bound {
                address,
                ipv6_only: is_v6_only(&payload[ANSWER_LENGTH..]),
                // `idiag_if`, after the ports and both addresses.
                interface: u32::from_ne_bytes([bytes[40], bytes[41], bytes[42], bytes[43]]),
            },
        })
    }
}

fn is_v6_only(mut attributes: &[u8]) -> bool {
    while let Some([a, b, c, d]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        if length < 4 {
            return false;
        }
        if u16::from_ne_bytes([*c, *d]) == V6_ONLY {
            return attributes.get(4).is_some_and(|value| *value != 0);
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{setsockopt, sockopt::BindToDevice},
    };
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn sockets_of_this_namespace_are_found_by_their_port() {
        let all = TcpListener::bind("[::]:0").unwrap();
        let port = all.local_addr().unwrap().port();
        let found = listeners(TCP, port).unwrap();
        let everywhere = Bound {
            address: Ipv6Addr::UNSPECIFIED.into(),
            ipv6_only: false,
            interface: 0,
        };
        assert_eq!(found, [everywhere]);
        drop(all);
        assert_eq!(listeners(TCP, port).unwrap(), []);
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listeners(TCP, one.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].address, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let datagrams = UdpSocket::bind("[::1]:0").unwrap();
        let port = datagrams.local_addr().unwrap().port();
        let found = listeners(UDP, port).unwrap();
        assert_eq!(found[0].address, IpAddr::V6(Ipv6Addr::LOCALHOST));
        // One that is connected takes packets of its peer alone.
        datagrams.connect("[::1]:9").unwrap();
        assert_eq!(listeners(UDP, port).unwrap(), []);
    }

    /// Needs the right to bind to a device.
    #[test]
    fn the_device_that_a_socket_is_bound_to_is_told() {
        let loopback = nix::net::if_::if_nametoindex("lo").unwrap();
        let one = TcpListener::bind("0.0.0.0:0").unwrap();
        setsockopt(&one, BindToDevice, &"lo".into()).unwrap();
        let datagrams = UdpSocket::bind("[::]:0").unwrap();
        setsockopt(&datagrams, BindToDevice, &"lo".into()).unwrap();
        for (protocol, port) in [
            (TCP, one.local_addr().unwrap().port()),
            (UDP, datagrams.local_addr().unwrap().port()),
        ] {
            let found = listeners(protocol, port).unwrap();
            let devices: Vec<u32> = found.iter().map(|bound| bound.interface).collect();
            assert_eq!(devices, [loopback], "{found:?}");
        }
    }

    #[test]
    fn what_cannot_be_listed_is_not_taken_for_nothing() {
        // GRE, which has no sockets that the kernel could list.
        assert!(listeners(47, 1).is_err());
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let others = (0..MOST_SOCKETS).map(|number| {
            let address = Ipv4Addr::from(0x7f00_0100 + number as u32);
            TcpListener::bind((address, port)).unwrap()
        });
        let _others: Vec<_> = others.collect();
        let error = listeners(TCP, port).unwrap_err().to_string();
        assert!(error.contains("1024 sockets share"), "{error}");
    }

    #[test]
    fn short_and_strange_answers_are_refused_or_passed_over() {
        let header = NetlinkHeader::default();
        assert!(Message::deserialize(&header, &[0; ANSWER_LENGTH - 1]).is_err());
        let mut answer = vec![0; ANSWER_LENGTH];
        (answer[0], answer[4], answer[5]) = (10, 0x1f, 0x90);
        answer[40..44].copy_from_slice(&7_u32.to_ne_bytes());
        for (attributes, v6_only) in [
            (&[][..], false),
            (&[5, 0, 11, 0, 1, 0, 0, 0], true),
            (&[5, 0, 11, 0, 0, 0, 0, 0], false),
            (&[5, 0, 8, 0, 3, 0, 0, 0, 5, 0, 11, 0, 1], true),
            // An attribute without a length would never end.
            (&[0, 0, 8, 0, 5, 0, 11, 0, 1], false),
            (&[9, 0], false),
        ] {
            let bytes = [answer.as_slice(), attributes].concat();
            let Message::Socket { port, bound } = Message::deserialize(&header, &bytes).unwrap()
            else {
                panic!("a question");
            };
            assert_eq!(
                (port, bound.ipv6_only, bound.interface),
                (8080, v6_only, 7),
                "{attributes:?}"
            );
        }
    }
}
