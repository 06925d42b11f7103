//! Cookies: small stable names of sets of rules, for map entries and events.

use crate::RuleRef;
use std::collections::BTreeMap;

/// Cookies kept at most; the least recently compiled half goes when there are more.
const MOST_COOKIES: usize = 262_144;

#[derive(Clone, Debug)]
struct Record {
    rules: Vec<RuleRef>,
    used: u64,
}

/// The cookies handed out.
#[derive(Clone, Debug, Default)]
pub(crate) struct CookieTable {
    records: BTreeMap<u32, Record>,
    clock: u64,
}

impl CookieTable {
    /// The cookie of a set of rules, sorted: a hash of its content, so that a restarted agent finds the
    /// same one; the next free number when another set has it. Never 0.
    pub(crate) fn cookie(&mut self, rules: Vec<RuleRef>) -> u32 {
        self.clock += 1;
        if self.records.len() >= MOST_COOKIES {
            self.drop_old();
        }
        let mut cookie = hash(&rules).max(1);
        loop {
            match self.records.get_mut(&cookie) {
                None => break,
                Some(record) if record.rules == rules => {
                    record.used = self.clock;
                    return cookie;
                }
                Some(_) => cookie = cookie.wrapping_add(1).max(1),
            }
        }
        let used = self.clock;
        self.records.insert(cookie, Record { rules, used });
        cookie
    }

    pub(crate) fn rules(&self, cookie: u32) -> Option<&[RuleRef]> {
        self.records
            .get(&cookie)
            .map(|record| record.rules.as_slice())
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn retain(&mut self, mut in_use: impl FnMut(u32) -> bool) {
        self.records.retain(|cookie, _| in_use(*cookie));
    }

    fn drop_old(&mut self) {
        let mut ages: Vec<u64> = self.records.values().map(|record| record.used).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let median = *median;
        self.records.retain(|_, record| record.used >= median);
    }
}

/// FNV-1a: stable across versions of the compiler, unlike the standard library's hasher.
fn hash(rules: &[RuleRef]) -> u32 {
    let mut state: u32 = 0x811c_9dc5;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            state = (state ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    for rule in rules {
        for text in [
            rule.kind.name(),
            &rule.namespace,
            &rule.name,
            rule.section.name(),
        ] {
            feed(text.as_bytes());
            feed(&[0]);
        }
        feed(&rule.spec.unwrap_or(0).to_be_bytes());
        feed(&rule.index.to_be_bytes());
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PolicyId, PolicyKind, Section};

    fn rule(name: &str) -> RuleRef {
        let id = PolicyId::new(PolicyKind::NetworkPolicy, "n", name);
        RuleRef::new(&id, None, Section::Ingress, 0)
    }

    #[test]
    fn a_cookie_is_stable_and_names_its_rules() {
        let mut table = CookieTable::default();
        let a = table.cookie(vec![rule("a")]);
        let b = table.cookie(vec![rule("a"), rule("b")]);
        let none = table.cookie(Vec::new());
        assert!(a != b && a != none && a != 0 && b != 0 && none != 0);
        assert_eq!(a, table.cookie(vec![rule("a")]));
        assert_eq!(a, CookieTable::default().cookie(vec![rule("a")]));
        assert_eq!(table.rules(b), Some([rule("a"), rule("b")].as_slice()));
        table.retain(|cookie| cookie == b);
        assert_eq!(table.rules(a), None);
    }

    #[test]
    fn a_taken_number_goes_to_the_next() {
        let mut table = CookieTable::default();
        let a = table.cookie(vec![rule("a")]);
        let mut other = CookieTable::default();
        other.records.insert(
            a,
            Record {
                rules: vec![rule("squatter")],
                used: 0,
            },
        );
        assert_eq!(other.cookie(vec![rule("a")]), a.wrapping_add(1).max(1));
    }
}
