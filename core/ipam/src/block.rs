//! One block of addresses: which of them may be given, and which are not fresh any more.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of one block that are ever given. An IPv6 block has far more than a node can use; handing
/// out the first 2^16 keeps the bitmap at 8 KiB.
const WINDOW_V6: u128 = 1 << 16;

/// A block that no address can be taken from.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("block {block} has no usable address: {kept_back}; use a mask of /{widest} or shorter")]
pub struct BlockError {
    /// The block.
    pub block: IpNet,
    /// Which addresses are never given.
    pub kept_back: &'static str,
    /// Longest mask of this family that leaves an address to give.
    pub widest: u8,
}

/// First and last offset in the block that may be given.
///
/// IPv4 keeps back the network, the gateway (first) and the broadcast (last) address; IPv6 the
/// subnet-router anycast address (`::0`) and the gateway (`::1`).
pub(crate) fn usable_offsets(block: &IpNet) -> Result<(u128, u128), BlockError> {
    let host_bits = block.max_prefix_len() - block.prefix_len();
    match block {
        IpNet::V4(_) if host_bits >= 2 => Ok((2, (1 << host_bits) - 2)),
        IpNet::V6(_) if host_bits >= 2 => {
            let last = 1_u128
                .checked_shl(host_bits.into())
                .map_or(u128::MAX, |size| size - 1);
            Ok((2, last.min(WINDOW_V6 - 1)))
        }
        IpNet::V4(_) => Err(BlockError {
            block: *block,
            kept_back: "its network, gateway and broadcast addresses are never given",
            widest: 30,
        }),
        IpNet::V6(_) => Err(BlockError {
            block: *block,
            kept_back: "its anycast and gateway addresses (::0 and ::1) are never given",
            widest: 126,
        }),
    }
}

/// How many addresses of a block are given to endpoints.
///
/// # Errors
///
/// [`BlockError`] when it is too small to have any.
pub fn usable_addresses(block: &IpNet) -> Result<u64, BlockError> {
    let (first, last) = usable_offsets(block)?;
    Ok(u64::try_from(last - first + 1).unwrap_or(u64::MAX))
}

/// The address as a number, and back.
pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of this family with this number; IPv4 numbers have 32 bits.
pub(crate) fn to_address(is_v4: bool, number: u128) -> IpAddr {
    if is_v4 {
        Ipv4Addr::from(number as u32).into()
    } else {
        Ipv6Addr::from(number).into()
    }
}

/// Which addresses of a block have been given at least once since they were last fresh.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) net: IpNet,
    base: u128,
    first: u128,
    count: u64,
    /// A bit per usable address: leased or resting.
    marked: Vec<u64>,
    marks: u64,
    /// Position after the last address given: the search goes round, so that what was freed comes last.
    cursor: u64,
}

impl Block {
    pub(crate) fn new(net: IpNet) -> Result<Self, BlockError> {
        let net = net.trunc();
        let (first, _) = usable_offsets(&net)?;
        Ok(Self {
            net,
            base: to_number(net.network()),
            first,
            count: usable_addresses(&net)?,
            marked: Vec::new(),
            marks: 0,
            cursor: 0,
        })
    }

    pub(crate) const fn total(&self) -> u64 {
        self.count
    }

    pub(crate) const fn fresh(&self) -> u64 {
        self.count - self.marks
    }

    /// Position of a usable address of this block.
    fn position(&self, address: IpAddr) -> Option<u64> {
        if !self.net.contains(&address) {
            return None;
        }
        let offset = (to_number(address) - self.base).checked_sub(self.first)?;
        u64::try_from(offset)
            .ok()
            .filter(|position| *position < self.count)
    }

    /// True when the address is one that this block may give.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.position(address).is_some()
    }

    /// True for an address of this block that is not marked.
    pub(crate) fn is_fresh(&self, address: IpAddr) -> bool {
        self.position(address).is_some_and(|position| {
            let word = self
                .marked
                .get((position / 64) as usize)
                .copied()
                .unwrap_or(0);
            word & (1 << (position % 64)) == 0
        })
    }

    /// Marks an address as not fresh; false when it was marked or is not of this block.
    pub(crate) fn mark(&mut self, address: IpAddr) -> bool {
        let Some(position) = self.position(address) else {
            return false;
        };
        let (word, bit) = ((position / 64) as usize, 1 << (position % 64));
        if self.marked.len() <= word {
            self.marked.resize(word + 1, 0);
        }
        let was = self.marked[word] & bit != 0;
        self.marked[word] |= bit;
        self.marks += u64::from(!was);
        !was
    }

    /// The next fresh address, going round from the last one given.
    pub(crate) fn next_fresh(&self) -> Option<IpAddr> {
        let position = self
            .fresh_between(self.cursor, self.count)
            .or_else(|| self.fresh_between(0, self.cursor))?;
        Some(self.at(position))
    }

    /// Where the search goes on: kept over restarts.
    pub(crate) fn cursor(&self) -> IpAddr {
        self.at(self.cursor)
    }

    /// Lets the search go on at an address of this block.
    pub(crate) fn set_cursor(&mut self, address: IpAddr) {
        if let Some(position) = self.position(address) {
            self.cursor = position;
        }
    }

    /// Lets the search go on after an address of this block.
    pub(crate) fn advance(&mut self, given: IpAddr) {
        if let Some(position) = self.position(given) {
            self.cursor = (position + 1) % self.count;
        }
    }

    fn at(&self, position: u64) -> IpAddr {
        let number = self.base + self.first + u128::from(position);
        to_address(matches!(self.net, IpNet::V4(_)), number)
    }

    fn fresh_between(&self, from: u64, to: u64) -> Option<u64> {
        let mut position = from;
        while position < to {
            let word = self
                .marked
                .get((position / 64) as usize)
                .copied()
                .unwrap_or(0);
            let free = u64::from((word >> (position % 64)).trailing_ones());
            // Bits shifted in at the top are zeros, so a run of ones never reaches beyond its word.
            if free < 64 - position % 64 {
                position += free;
                return (position < to).then_some(position);
            }
            position += free;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn tiny_blocks_say_what_they_have() {
        for (block, usable) in [
            ("10.0.0.0/24", Some(253)),
            ("10.0.0.0/29", Some(5)),
            ("10.0.0.0/30", Some(1)),
            ("10.0.0.0/31", None),
            ("10.0.0.0/32", None),
            ("0.0.0.0/0", Some((1 << 32) - 3)),
            ("fd00::/64", Some((1 << 16) - 2)),
            ("fd00::/120", Some(254)),
            ("fd00::/126", Some(2)),
            ("fd00::/127", None),
            ("fd00::/128", None),
            ("::/0", Some((1 << 16) - 2)),
        ] {
            let found = usable_addresses(&net(block));
            assert_eq!(found.as_ref().ok(), usable.as_ref(), "{block}");
            if let Err(error) = found {
                let text = error.to_string();
                assert!(
                    text.contains(block) && text.contains("no usable address"),
                    "{text}"
                );
            }
        }
    }

    #[test]
    fn every_usable_address_is_given_once_and_no_other() {
        for block in ["10.0.0.0/26", "10.0.0.0/30", "fd00::/121", "fd00::/126"] {
            let mut addresses = Block::new(net(block)).unwrap();
            let mut given = Vec::new();
            while let Some(address) = addresses.next_fresh() {
                assert!(addresses.mark(address) && !addresses.mark(address));
                addresses.advance(address);
                given.push(address);
            }
            let wanted: Vec<_> = (0..1_u128
                << (net(block).max_prefix_len() - net(block).prefix_len()))
                .map(|offset| {
                    to_address(block.contains('.'), to_number(net(block).addr()) + offset)
                })
                .skip(2)
                .filter(|address| *address != net(block).broadcast() || address.is_ipv6())
                .collect();
            assert_eq!(given, wanted, "{block}");
            assert_eq!(given.len() as u64, usable_addresses(&net(block)).unwrap());
        }
    }
}
