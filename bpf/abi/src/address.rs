//! One address type for both families.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 or IPv6 address as 16 bytes in network byte order; IPv4 is IPv4-mapped (RFC 4291, 2.5.5.2).
///
/// One width for both families means one map, one key and one code path for both.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Address {
    /// The four 32-bit words as they stand in the packet.
    pub words: [u32; 4],
}

const _: () = assert!(size_of::<Address>() == 16);

impl Address {
    /// The third word of every IPv4-mapped address.
    pub const MAPPED: u32 = 0x0000_ffff_u32.to_be();
    /// No address.
    pub const UNSPECIFIED: Address = Address { words: [0; 4] };

    /// An IPv4 address from its packet bytes, read as one native word.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self {
            words: [0, 0, Self::MAPPED, word],
        }
    }

    /// True for an IPv4-mapped address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == Self::MAPPED
    }

    /// True when all 16 bytes are zero.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.words[0] | self.words[1] | self.words[2] | self.words[3] == 0
    }

    /// The prefix length of this address' family, as it counts in a 128-bit key.
    pub const fn prefix_length(family_is_v4: bool, length: u8) -> u32 {
        if family_is_v4 {
            96 + length as u32
        } else {
            length as u32
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let v6 = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let o = v6.octets();
        let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        Self {
            words: [word(0), word(4), word(8), word(12)],
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::V4(address).into()
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::V6(address).into()
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        let mut octets = [0u8; 16];
        for (i, word) in address.words.iter().enumerate() {
            octets[i * 4..i * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        let v6 = Ipv6Addr::from(octets);
        match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(v6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_round_trip() {
        for text in ["10.244.0.5", "0.0.0.0", "fd00::1", "::", "2001:db8::ffff"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
            assert_eq!(Address::from(address).is_v4(), address.is_ipv4());
        }
        let v4 = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(
            Address::from_v4_word(u32::from_ne_bytes(v4.octets())),
            v4.into()
        );
    }
}
