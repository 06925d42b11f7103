//! Addresses for pods that have none.

use super::{Cluster, Holder};
use crate::{Family, VerifyError};
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

impl Cluster {
    /// Gives pods without addresses one of each family, from their node's pod ranges, or from blocks of
    /// 10.244.0.0/16 and fd10:244::/48 when it has none.
    pub(super) fn assign_addresses(&mut self) -> Result<(), VerifyError> {
        let mut ranges: Vec<Vec<IpNet>> = self
            .nodes
            .iter()
            .map(|node| node.pod_ranges.clone())
            .collect();
        let mut cursors: BTreeMap<IpNet, u128> = BTreeMap::new();
        let mut next_block = [0u32; 2];
        for position in 0..self.pods.len() {
            let pod = &self.pods[position];
            if pod.host_network || !pod.addresses.is_empty() {
                continue;
            }
            let node = pod.node;
            let given = &self.nodes[node].pod_ranges;
            // A node with ranges of one family only is a cluster of one family.
            let families: Vec<usize> = [0, 1]
                .into_iter()
                .filter(|family| {
                    given.is_empty() || given.iter().any(|range| family_of(*range) == *family)
                })
                .collect();
            for family in families {
                let address = loop {
                    let found = ranges[node]
                        .iter()
                        .filter(|range| family_of(**range) == family)
                        .find_map(|range| next_address(*range, &mut cursors, &self.by_address));
                    if let Some(address) = found {
                        break address;
                    }
                    let Some(block) = default_block(family, next_block[family]) else {
                        let family = if family == 0 { Family::V4 } else { Family::V6 };
                        return Err(VerifyError::PoolExhausted { family });
                    };
                    next_block[family] += 1;
                    ranges[node].push(block);
                    self.pod_ranges.push(match family {
                        0 => IpNet::from(ipnet::Ipv4Net::new_assert(
                            Ipv4Addr::new(10, 244, 0, 0),
                            16,
                        )),
                        _ => IpNet::from(ipnet::Ipv6Net::new_assert(
                            Ipv6Addr::new(0xfd10, 0x244, 0, 0, 0, 0, 0, 0),
                            48,
                        )),
                    });
                };
                self.by_address.insert(address, Holder::Pod(position));
                self.pods[position].addresses.push(address);
            }
        }
        self.pod_ranges.sort();
        self.pod_ranges.dedup();
        Ok(())
    }
}

const fn family_of(net: IpNet) -> usize {
    match net {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

/// The block with this number of the default pool; a pool has 256 IPv4 blocks and 65536 IPv6 ones.
fn default_block(family: usize, number: u32) -> Option<IpNet> {
    let (address, length): (IpAddr, u8) = if family == 0 {
        let third = u8::try_from(number).ok()?;
        (Ipv4Addr::new(10, 244, third, 0).into(), 24)
    } else {
        let fourth = u16::try_from(number).ok()?;
        (
            Ipv6Addr::new(0xfd10, 0x244, 0, fourth, 0, 0, 0, 0).into(),
            64,
        )
    };
    IpNet::new(address, length).ok()
}

/// The next address of a range that nobody has; not the network's, the gateway's or the broadcast one.
fn next_address(
    range: IpNet,
    cursors: &mut BTreeMap<IpNet, u128>,
    taken: &BTreeMap<IpAddr, Holder>,
) -> Option<IpAddr> {
    let cursor = cursors.entry(range).or_insert(2);
    let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
    while *cursor < size.saturating_sub(1) {
        let offset = *cursor;
        *cursor += 1;
        let address: IpAddr = match range.network() {
            IpAddr::V4(first) => {
                Ipv4Addr::from(u32::from(first).wrapping_add(u32::try_from(offset).ok()?)).into()
            }
            IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(offset)).into(),
        };
        if !taken.contains_key(&address) {
            return Some(address);
        }
    }
    None
}
