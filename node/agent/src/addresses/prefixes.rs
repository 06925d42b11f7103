//! A table of prefixes that answers which is the longest around another one.

use ipnet::IpNet;
use std::collections::BTreeMap;

/// Values by prefix. A look-up costs a step per length that prefixes of its family have, however many there are.
#[derive(Clone, Debug)]
pub(crate) struct PrefixTable<T> {
    rows: BTreeMap<IpNet, T>,
    /// How many prefixes of each family (true for IPv4) have each length.
    lengths: BTreeMap<(bool, u8), usize>,
}

impl<T> Default for PrefixTable<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            lengths: BTreeMap::new(),
        }
    }
}

fn length(prefix: &IpNet) -> (bool, u8) {
    (matches!(prefix, IpNet::V4(_)), prefix.prefix_len())
}

impl<T> FromIterator<(IpNet, T)> for PrefixTable<T> {
    /// Bits beyond a prefix's length count for nothing; of several values for one prefix the last one stays.
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(rows: I) -> Self {
        let rows = rows
            .into_iter()
            .map(|(prefix, value)| (prefix.trunc(), value));
        let rows: BTreeMap<IpNet, T> = rows.collect();
        let mut lengths = BTreeMap::new();
        for prefix in rows.keys() {
            *lengths.entry(length(prefix)).or_default() += 1;
        }
        Self { rows, lengths }
    }
}

impl<T> PrefixTable<T> {
    pub(crate) const fn rows(&self) -> &BTreeMap<IpNet, T> {
        &self.rows
    }

    /// The longest prefix that covers another one, itself included.
    pub(crate) fn longest(&self, prefix: IpNet) -> Option<(&IpNet, &T)> {
        self.candidates(prefix)
            .find_map(|candidate| self.rows.get_key_value(&candidate))
    }

    /// The prefixes around another one that have a length which some row has, the longest first.
    fn candidates(&self, prefix: IpNet) -> impl Iterator<Item = IpNet> + '_ {
        let (family, longest) = length(&prefix);
        let lengths = self.lengths.range((family, 0)..=(family, longest)).rev();
        lengths.filter_map(move |((_, bits), _)| {
            let around = IpNet::new(prefix.addr(), *bits).ok()?;
            Some(around.trunc())
        })
    }

    /// The prefixes inside another one, itself included.
    pub(crate) fn inside(&self, prefix: IpNet) -> impl Iterator<Item = &IpNet> {
        inside(&self.rows, prefix)
    }
}

/// The prefixes of a map that lie inside another one, itself included.
pub(crate) fn inside<T>(rows: &BTreeMap<IpNet, T>, prefix: IpNet) -> impl Iterator<Item = &IpNet> {
    let last = prefix.broadcast();
    // Of one address the shorter prefix comes first.
    rows.range(prefix.trunc()..)
        .map(|(row, _)| row)
        .take_while(move |row| row.network() <= last)
        .filter(move |row| prefix.contains(*row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_around_answers() {
        let table: PrefixTable<u8> = [
            (net("0.0.0.0/0"), 0),
            (net("10.0.0.0/8"), 8),
            (net("10.244.1.7/16"), 16),
            (net("::/0"), 100),
            (net("fd10:244::/48"), 148),
        ]
        .into_iter()
        .collect();
        let longest = |text: &str| table.longest(net(text)).map(|(_, value)| *value);
        for (prefix, value) in [
            ("10.244.9.9/32", 16),
            ("10.244.0.0/16", 16),
            ("10.0.0.0/9", 8),
            ("10.0.0.0/7", 0),
            ("198.51.100.1/32", 0),
            ("fd10:244:0:1::9/128", 148),
            ("2001:db8::/32", 100),
        ] {
            assert_eq!(longest(prefix), Some(value), "{prefix}");
        }
        let inside: Vec<_> = table.inside(net("10.0.0.0/8")).copied().collect();
        assert_eq!(inside, [net("10.0.0.0/8"), net("10.244.0.0/16")]);
        let none = PrefixTable::<u8>::default();
        assert_eq!(none.longest(net("10.0.0.0/8")), None);
    }

    #[test]
    fn a_look_up_costs_the_same_however_many_prefixes_there_are() {
        let steps = |count: u32| {
            let ranges = (0..count).map(|at| {
                let address = std::net::Ipv4Addr::from(0x0a00_0000 + (at << 8));
                (IpNet::new(address.into(), 24).unwrap(), at)
            });
            let world = [(net("0.0.0.0/0"), 0), (net("10.0.0.0/8"), 0)];
            let table: PrefixTable<u32> = world.into_iter().chain(ranges).collect();
            table.candidates(net("198.51.100.1/32")).count()
        };
        assert_eq!(steps(10), 3);
        assert_eq!(steps(10_000), 3);
    }
}
