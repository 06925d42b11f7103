//! What an event's captured bytes say that the event itself does not.

/// MAC addresses of a captured frame, as text; `None` when the capture is too short for them.
pub(crate) fn mac_addresses(capture: &[u8]) -> Option<(String, String)> {
    let destination = capture.get(0..6)?;
    let source = capture.get(6..12)?;
    // A link without Ethernet (a tunnel) leaves zeroes here.
    if source.iter().chain(destination).all(|byte| *byte == 0) {
        return None;
    }
    Some((mac(source), mac(destination)))
}

fn mac(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(17);
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            text.push(':');
        }
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

/// Words for an ICMP type, as Hubble's summaries have them (gopacket's names).
pub(crate) fn icmpv4_words(kind: u8, code: u8) -> String {
    let name = match kind {
        0 => "EchoReply",
        3 => {
            return match code {
                0 => "DestinationUnreachable(Net)".to_owned(),
                1 => "DestinationUnreachable(Host)".to_owned(),
                2 => "DestinationUnreachable(Protocol)".to_owned(),
                3 => "DestinationUnreachable(Port)".to_owned(),
                4 => "DestinationUnreachable(FragmentationNeeded)".to_owned(),
                _ => format!("DestinationUnreachable({code})"),
            };
        }
        4 => "SourceQuench",
        5 => "Redirect",
        8 => "EchoRequest",
        9 => "RouterAdvertisement",
        10 => "RouterSolicitation",
        11 => {
            return match code {
                0 => "TimeExceeded(TTLExceeded)".to_owned(),
                1 => "TimeExceeded(FragmentReassemblyTimeExceeded)".to_owned(),
                _ => format!("TimeExceeded({code})"),
            };
        }
        12 => "ParameterProblem",
        13 => "TimestampRequest",
        14 => "TimestampReply",
        _ => return format!("{kind}({code})"),
    };
    name.to_owned()
}

/// Words for an ICMPv6 type, as Hubble's summaries have them (gopacket's names).
pub(crate) fn icmpv6_words(kind: u8, code: u8) -> String {
    let name = match kind {
        1 => {
            return match code {
                0 => "DestinationUnreachable(NoRouteToDst)".to_owned(),
                1 => "DestinationUnreachable(AdminProhibited)".to_owned(),
                3 => "DestinationUnreachable(Address)".to_owned(),
                4 => "DestinationUnreachable(Port)".to_owned(),
                _ => format!("DestinationUnreachable({code})"),
            };
        }
        2 => "PacketTooBig",
        3 => {
            return match code {
                0 => "TimeExceeded(HopLimitExceeded)".to_owned(),
                1 => "TimeExceeded(FragmentReassemblyTimeExceeded)".to_owned(),
                _ => format!("TimeExceeded({code})"),
            };
        }
        4 => "ParameterProblem",
        128 => "EchoRequest",
        129 => "EchoReply",
        133 => "RouterSolicitation",
        134 => "RouterAdvertisement",
        135 => "NeighborSolicitation",
        136 => "NeighborAdvertisement",
        137 => "Redirect",
        _ => return format!("{kind}({code})"),
    };
    name.to_owned()
}
