//! The packet mark (`skb->mark`): one plan of its 32 bits, for the programs, routing rules, proxies and encryption.
//!
//! ```text
//! 31            16 15     12 11    8 7        0
//! +---------------+---------+-------+----------+
//! |     value     | others' | kind  | identity |
//! +---------------+---------+-------+----------+
//! ```
//!
//! The *kind* says what the mark is, in Cilium's numbers (reference 3.2). The *value* depends on it: the lower 16 bits
//! of an identity, or the port of a proxy's listener in network byte order, or an endpoint id. Bits 0 to 7 are the upper
//! bits of an identity, or for [`MARK_ENCRYPT`] and [`MARK_DECRYPT`] the index of the key. Bits 12 to 15 belong to
//! others on the node, such as kube-proxy (0x4000, 0x8000) and the portmap plugin (0x2000): nobody here sets or asks
//! them. Who sets a mark leaves them as they are. A mark ends with its node, and where a packet leaves a pod's
//! namespace the kernel clears it, so no pod can set one.

/// The bits of the kind.
pub const MARK_KIND: u32 = 0x0f00;
/// To a proxy of this node, whose listener's port is the value.
pub const MARK_TO_PROXY: u32 = 0x0200;
/// The tunnel key is set: to be encapsulated as it is.
pub const MARK_OVERLAY: u32 = 0x0400;
/// From a proxy, on behalf of whoever connected to a pod of this node: the identity of the initiator.
pub const MARK_PROXY_INGRESS: u32 = 0x0a00;
/// From a proxy, on behalf of a pod of this node: the identity of the initiator.
pub const MARK_PROXY_EGRESS: u32 = 0x0b00;
/// Came decrypted, by the key of the index.
pub const MARK_DECRYPT: u32 = 0x0d00;
/// To be encrypted with the key of the index.
pub const MARK_ENCRYPT: u32 = 0x0e00;
/// From whoever has the identity.
pub const MARK_IDENTITY: u32 = 0x0f00;
/// The bits that are others'.
pub const MARK_OTHERS: u32 = 0xf000;

/// A mark of a kind with an identity of 24 bits, beside what others have set.
#[inline(always)]
pub const fn mark_identity(present: u32, kind: u32, identity: u32) -> u32 {
    (present & MARK_OTHERS) | kind | (identity & 0xffff) << 16 | identity >> 16 & 0xff
}

/// The identity in a mark whose kind has one.
#[inline(always)]
pub const fn identity_of_mark(mark: u32) -> u32 {
    mark >> 16 | (mark & 0xff) << 16
}

const _: () = assert!(
    MARK_KIND & MARK_OTHERS == 0
        && (MARK_TO_PROXY
            | MARK_OVERLAY
            | MARK_PROXY_INGRESS
            | MARK_PROXY_EGRESS
            | MARK_DECRYPT
            | MARK_ENCRYPT)
            & !MARK_KIND
            == 0
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_keeps_identity_kind_and_what_others_set() {
        for identity in [0, 1, 256, 65_535, 0x00ab_cdef] {
            let mark = mark_identity(0x2123_4567, MARK_IDENTITY, identity);
            assert_eq!(identity_of_mark(mark), identity);
            assert_eq!(mark & MARK_KIND, MARK_IDENTITY);
            assert_eq!(mark & MARK_OTHERS, 0x4000);
        }
    }
}
