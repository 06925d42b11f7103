//! Who is logged in to this node: established TCP connections to its SSH port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// SSH (IANA service registry).
pub(crate) const SSH: u16 = 22;
/// `TCP_ESTABLISHED` in `/proc/net/tcp` (include/net/tcp_states.h).
const ESTABLISHED: &str = "01";

/// The other ends of this node's SSH connections, each once; none where the kernel does not tell.
pub(crate) fn ssh_peers() -> Vec<IpAddr> {
    let mut peers: Vec<IpAddr> = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| peers_of(&table, SSH))
        .filter(|address| !address.is_loopback())
        .collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

/// The other ends of the established connections to a local port, from a table as `/proc/net/tcp` has it.
fn peers_of(table: &str, port: u16) -> Vec<IpAddr> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, remote) = (fields.next()?, fields.next()?);
            let established = fields.next()? == ESTABLISHED;
            let (_, local_port) = local.split_once(':')?;
            if !established || u16::from_str_radix(local_port, 16) != Ok(port) {
                return None;
            }
            address(remote.split_once(':')?.0)
        })
        .collect()
}

/// An address as the table has it: words in hexadecimal, each in the machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let words: Vec<[u8; 4]> = (0..text.len())
        .step_by(8)
        .map(|at| {
            let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect::<Option<_>>()?;
    match words.as_slice() {
        [word] => Some(Ipv4Addr::from(*word).into()),
        [a, b, c, d] => {
            let bytes: [u8; 16] = [*a, *b, *c, *d].concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux on a little-endian machine prints it.
    #[cfg(target_endian = "little")]
    #[test]
    fn established_sessions_are_found_in_the_kernels_tables() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000\n\
   1: 0A02000A:0016 070200C0:D431 01 00000000:00000000 02:00000000\n\
   2: 0A02000A:0050 080200C0:D431 01 00000000:00000000 02:00000000\n\
   3: 0A02000A:0016 090200C0:D431 06 00000000:00000000 03:00000000\n";
        assert_eq!(
            peers_of(table, SSH),
            ["192.0.2.7".parse::<IpAddr>().unwrap()]
        );
        let table = "head\n\
   0: 0000000000000000FFFF00000A02000A:0016 0000000000000000FFFF0000070200C0:D431 01 x\n\
   1: B80D01200000000000000000010000000:0016 B80D0120000000000000000002000000:D431 01 x\n\
   2: B80D0120000000000000000001000000:0016 B80D0120000000000000000002000000:D431 01 x\n\
   3: short\n";
        let found: Vec<String> = peers_of(table, SSH)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["192.0.2.7", "2001:db8::2", "2001:db8::2"]);
    }
}
