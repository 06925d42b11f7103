//! What an ICMP error quotes.

use super::{
    ICMP, ICMPV6, IS_ECHO_REPLY, IS_ECHO_REQUEST, IS_V6, Packet, SCTP, TCP, UDP, load,
    parse::{IPV4_OFFSET_MASK, Ipv4Header, Ipv6Header, set_icmp},
};
use aya_ebpf::bindings::__sk_buff;
use heddle_abi::Address;

/// The packet that an ICMP error quotes, turned round so that its ports and addresses are those of the
/// error's own direction of travel; `None` when it quotes too little or somebody else's packet.
#[inline(always)]
pub fn parse_quoted(skb: *mut __sk_buff, packet: &Packet, quoted: &mut Packet) -> Option<()> {
    *quoted = *packet;
    let inner = packet.transport + 8;
    if packet.is(IS_V6) {
        let header: Ipv6Header = load(skb, inner)?;
        if u32::from_be(header.version_class_flow) >> 28 != 6 {
            return None;
        }
        quoted.source = Address {
            words: header.source,
        };
        quoted.destination = Address {
            words: header.destination,
        };
        quoted.protocol = header.next_header;
        quoted.transport = inner + 40;
    } else {
        let header: Ipv4Header = load(skb, inner)?;
        if header.version_and_length >> 4 != 4
            || u16::from_be(header.fragment) & IPV4_OFFSET_MASK != 0
        {
            return None;
        }
        quoted.source = Address::from_v4_word(header.source);
        quoted.destination = Address::from_v4_word(header.destination);
        quoted.protocol = header.protocol;
        quoted.transport = inner + u32::from(header.version_and_length & 0x0f) * 4;
    }
    // An error goes to the sender of what it quotes; anything else is made up.
    if quoted.source != packet.destination || quoted.transport + 8 > packet.end {
        return None;
    }
    quoted.kind = packet.kind & IS_V6;
    quoted.source_port = 0;
    quoted.destination_port = 0;
    quoted.tcp_flags_or_icmp_type = 0;
    match quoted.protocol {
        TCP | UDP | SCTP => {
            let ports: [u16; 2] = load(skb, quoted.transport)?;
            quoted.source_port = ports[0];
            quoted.destination_port = ports[1];
            Some(())
        }
        ICMP | ICMPV6 => {
            let header: [u16; 4] = load(skb, quoted.transport)?;
            set_icmp(quoted, header);
            // Nobody answers an error with an error (RFC 1122, 3.2.2; RFC 4443, 2.4).
            quoted.is(IS_ECHO_REQUEST | IS_ECHO_REPLY).then_some(())
        }
        _ => None,
    }
}
