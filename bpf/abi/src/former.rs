//! Layouts of older versions from which this one takes over.

use crate::{ConnectionEntry, ConnectionVerdict};

/// Layout 1 of [`ConnectionEntry`], up to version 3: as it is now, without the room behind it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionEntry1 {
    /// [`ConnectionEntry::expires`].
    pub expires: u32,
    /// [`ConnectionEntry::last_report`].
    pub last_report: u32,
    /// [`ConnectionEntry::egress`].
    pub egress: ConnectionVerdict,
    /// [`ConnectionEntry::ingress`].
    pub ingress: ConnectionVerdict,
    /// [`ConnectionEntry::source_identity`].
    pub source_identity: u32,
    /// [`ConnectionEntry::destination_identity`].
    pub destination_identity: u32,
    /// [`ConnectionEntry::packets`].
    pub packets: [u64; 2],
    /// [`ConnectionEntry::bytes`].
    pub bytes: [u64; 2],
    /// [`ConnectionEntry::tcp_flags`].
    pub tcp_flags: [u8; 2],
    /// [`ConnectionEntry::flags`].
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// [`ConnectionEntry::share`].
    pub share: u16,
    /// [`ConnectionEntry::answer_high`].
    pub answer_high: u16,
}

const _: () = assert!(size_of::<ConnectionEntry1>() == 88);

impl From<ConnectionEntry1> for ConnectionEntry {
    fn from(it: ConnectionEntry1) -> Self {
        Self {
            expires: it.expires,
            last_report: it.last_report,
            egress: it.egress,
            ingress: it.ingress,
            source_identity: it.source_identity,
            destination_identity: it.destination_identity,
            packets: it.packets,
            bytes: it.bytes,
            tcp_flags: it.tcp_flags,
            flags: it.flags,
            reserved: it.reserved,
            share: it.share,
            answer_high: it.answer_high,
            ..Self::default()
        }
    }
}

impl From<ConnectionEntry> for ConnectionEntry1 {
    /// What an older version knows nothing of is left out.
    fn from(it: ConnectionEntry) -> Self {
        Self {
            expires: it.expires,
            last_report: it.last_report,
            egress: it.egress,
            ingress: it.ingress,
            source_identity: it.source_identity,
            destination_identity: it.destination_identity,
            packets: it.packets,
            bytes: it.bytes,
            tcp_flags: it.tcp_flags,
            flags: it.flags,
            reserved: it.reserved,
            share: it.share,
            answer_high: it.answer_high,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_the_way_to_this_version_and_back_and_its_room_is_zero() {
        let before = ConnectionEntry1 {
            expires: 1,
            last_report: 2,
            egress: ConnectionVerdict {
                generation: 3,
                peer: 4,
                peer_cidr: 5,
                cookie: 6,
            },
            ingress: ConnectionVerdict {
                generation: 7,
                peer: 8,
                peer_cidr: 9,
                cookie: 10,
            },
            source_identity: 11,
            destination_identity: 12,
            packets: [13, 14],
            bytes: [15, 16],
            tcp_flags: [17, 18],
            flags: 19,
            reserved: 0,
            share: 20,
            answer_high: 21,
        };
        let now = ConnectionEntry::from(before);
        assert!(now.room_is_zero());
        assert_eq!(ConnectionEntry1::from(now), before);
    }
}
