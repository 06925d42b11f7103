//! Classes of addresses that are nobody's in particular.

use heddle_abi::Address;

/// First byte of IPv4 addresses of this host (RFC 1122, 3.2.1.3) and of loopback addresses.
const IPV4_THIS: u32 = 0;
const IPV4_LOOPBACK: u32 = 127;
/// First half byte of multicast addresses (RFC 5771), and of reserved ones with the broadcast address (RFC 1112, 4).
const IPV4_MULTICAST: u32 = 0xe;
const IPV4_RESERVED: u32 = 0xf;

#[inline(always)]
fn first_word(address: &Address, v6: bool) -> u32 {
    u32::from_be(address.words[if v6 { 0 } else { 3 }])
}

/// Multicast; for IPv4 the reserved range with the broadcast address, too.
#[inline(always)]
pub fn is_multicast_or_reserved(address: &Address, v6: bool) -> bool {
    let word = first_word(address, v6);
    if v6 {
        word >> 24 == 0xff
    } else {
        matches!(word >> 28, IPV4_MULTICAST | IPV4_RESERVED)
    }
}

/// Loopback or unspecified: an address that means something only inside a host.
#[inline(always)]
pub fn is_internal(address: &Address, v6: bool) -> bool {
    if v6 {
        let [a, b, c, d] = address.words;
        a | b | c == 0 && u32::from_be(d) <= 1
    } else {
        matches!(first_word(address, v6) >> 24, IPV4_THIS | IPV4_LOOPBACK)
    }
}

/// IPv6 link-local (RFC 4291, 2.5.6). IPv4 link-local addresses are left out: clouds put services there.
#[inline(always)]
pub fn is_link_local(address: &Address, v6: bool) -> bool {
    v6 && first_word(address, v6) >> 22 == 0xfe80 >> 6
}

/// No packet that is forwarded to somebody can come from here.
#[inline(always)]
pub fn is_no_source(address: &Address, v6: bool) -> bool {
    is_multicast_or_reserved(address, v6) || is_internal(address, v6) || is_link_local(address, v6)
}
