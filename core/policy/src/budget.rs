//! How many addresses the policies of one namespace may name, so that it takes nobody else's place.
//!
//! Every prefix that a policy names takes a row of the ipcache, and sets of addresses that rules tell apart
//! take rows in the policies of everybody who selects addresses around them. Both maps are shared.

mod reduced;
#[cfg(test)]
mod tests;

use crate::{Peer, Peers, Policy, Rule};
use std::collections::{BTreeMap, BTreeSet};

/// What a rule that names addresses costs beside its prefixes: it may tell apart addresses that others' rules
/// do not, which gives others a row more, however few prefixes it has.
const RULE_COST: usize = 16;
/// What a term that names Services costs: their addresses are not known to the policy.
const SERVICES_COST: usize = 256;

impl Policy {
    /// What its addresses cost in a [`CidrBudget`]: each prefix and each exception of each rule, and 16 for
    /// each rule that names any; 256 for each term that names Services. The addresses that CIDR groups list are not part
    /// of it.
    pub fn cidr_cost(&self) -> usize {
        let rules = self.specs.iter().flat_map(|spec| &spec.rules);
        rules.map(rule_cost).sum()
    }
}

fn rule_cost(rule: &Rule) -> usize {
    let Peers::Terms(terms) = &rule.peers else {
        return 0;
    };
    let costs = terms.iter().map(|term| match term {
        Peer::Cidr(block) => 1 + block.except.len(),
        Peer::CidrGroup { except, .. } => 1 + except.len(),
        Peer::Services(_) => SERVICES_COST,
        Peer::Endpoints(_) | Peer::Nodes(_) | Peer::Entity(_) => 0,
    });
    match costs.sum() {
        0 => 0,
        prefixes => RULE_COST + prefixes,
    }
}

/// How much addresses may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CidrLimits {
    /// All together. Cluster-wide objects are served first.
    pub total: usize,
    /// Those of one namespace.
    pub per_namespace: usize,
}

impl CidrLimits {
    /// What agents and operator have unless they are told otherwise: half of an ipcache of 131,072 rows, and half
    /// of that for one namespace.
    pub const DEFAULT: Self = Self {
        total: 65_536,
        per_namespace: 32_768,
    };
}

/// Decides which objects' addresses are enforced.
///
/// The cost of a namespace's objects is bounded by [`CidrLimits::per_namespace`], and by an equal share where
/// all namespaces together would exceed [`CidrLimits::total`]: a namespace within its share loses nothing by
/// what others write. Within a namespace, and among cluster-wide objects, older objects go first, and one that does not fit
/// leaves room for smaller ones. The answer depends on the objects alone and not on the order in which they
/// were heard of, so that all nodes agree. It costs the number of objects of the namespace and the number of
/// namespaces.
#[derive(Clone, Debug)]
pub struct CidrBudget<K> {
    limits: CidrLimits,
    /// The objects that cost something: their namespace (empty: cluster-wide) and when they were made.
    objects: BTreeMap<K, (String, String)>,
    accounts: BTreeMap<String, Account<K>>,
    /// What a namespace may cost at present.
    share: usize,
}

#[derive(Clone, Debug)]
struct Account<K> {
    /// What each object costs, the oldest first.
    costs: BTreeMap<(String, K), usize>,
    sum: usize,
    refused: BTreeSet<K>,
}

impl<K> Default for Account<K> {
    fn default() -> Self {
        Self {
            costs: BTreeMap::new(),
            sum: 0,
            refused: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Account<K> {
    /// Decides anew, and adds the objects of which the answer changed.
    fn decide(&mut self, limit: usize, changed: &mut BTreeSet<K>) {
        if self.sum <= limit && self.refused.is_empty() {
            return;
        }
        let mut used = 0;
        for ((_, object), cost) in &self.costs {
            let flips = if used + cost <= limit {
                used += cost;
                self.refused.remove(object)
            } else {
                self.refused.insert(object.clone())
            };
            if flips {
                changed.insert(object.clone());
            }
        }
    }

    fn granted(&self) -> usize {
        if self.refused.is_empty() {
            return self.sum;
        }
        let granted = self.costs.iter();
        let granted = granted.filter(|((_, object), _)| !self.refused.contains(object));
        granted.map(|(_, cost)| cost).sum()
    }
}

impl<K: Ord + Clone> CidrBudget<K> {
    /// A budget without objects.
    pub fn new(limits: CidrLimits) -> Self {
        Self {
            limits,
            objects: BTreeMap::new(),
            accounts: BTreeMap::new(),
            share: limits.per_namespace.min(limits.total),
        }
    }

    /// Sets what an object costs. `namespace` is empty for cluster-wide objects; `made` orders objects by their
    /// age as text does. Returns the objects of which [`CidrBudget::admits`] says something else now.
    pub fn set(&mut self, object: K, namespace: &str, made: &str, cost: usize) -> BTreeSet<K> {
        let mut changed = BTreeSet::new();
        let place = (namespace.to_owned(), made.to_owned());
        if self
            .objects
            .get(&object)
            .is_some_and(|known| *known != place)
        {
            changed = self.remove(&object);
        }
        if cost == 0 {
            changed.append(&mut self.remove(&object));
            return changed;
        }
        let account = self.accounts.entry(namespace.to_owned()).or_default();
        let before = account
            .costs
            .insert((made.to_owned(), object.clone()), cost);
        account.sum = account.sum + cost - before.unwrap_or(0);
        self.objects.insert(object, place);
        self.decide(namespace, &mut changed);
        changed
    }

    /// Forgets an object. Returns the others of which [`CidrBudget::admits`] says something else now.
    pub fn remove(&mut self, object: &K) -> BTreeSet<K> {
        let mut changed = BTreeSet::new();
        let Some((namespace, made)) = self.objects.remove(object) else {
            return changed;
        };
        if let Some(account) = self.accounts.get_mut(&namespace) {
            let cost = account.costs.remove(&(made, object.clone()));
            account.sum -= cost.unwrap_or(0);
            account.refused.remove(object);
            if account.costs.is_empty() {
                self.accounts.remove(&namespace);
            }
        }
        self.decide(&namespace, &mut changed);
        changed
    }

    /// Whether an object's addresses are enforced; true for what costs nothing.
    pub fn admits(&self, object: &K) -> bool {
        let Some((namespace, _)) = self.objects.get(object) else {
            return true;
        };
        let account = self.accounts.get(namespace);
        account.is_none_or(|account| !account.refused.contains(object))
    }

    /// The objects whose addresses are not enforced.
    pub fn refused(&self) -> impl Iterator<Item = &K> {
        self.accounts.values().flat_map(|account| &account.refused)
    }

    /// What the objects of a namespace may cost at present.
    pub fn limit(&self, namespace: &str) -> usize {
        if namespace.is_empty() {
            self.limits.total
        } else {
            self.share
        }
    }

    /// What the objects of each namespace cost, refused ones included.
    pub fn costs(&self) -> impl Iterator<Item = (&str, usize)> {
        let accounts = self.accounts.iter();
        accounts.map(|(namespace, account)| (namespace.as_str(), account.sum))
    }

    fn decide(&mut self, touched: &str, changed: &mut BTreeSet<K>) {
        let limit = self.limits.total;
        if let Some(cluster) = self.accounts.get_mut("").filter(|_| touched.is_empty()) {
            cluster.decide(limit, changed);
        }
        let share = self.equal_share();
        let before = std::mem::replace(&mut self.share, share);
        for (namespace, account) in &mut self.accounts {
            let moved = before != share && account.sum > before.min(share);
            if !namespace.is_empty() && (moved || namespace == touched) {
                account.decide(share, changed);
            }
        }
    }

    /// The largest limit for each namespace with which all of them fit.
    fn equal_share(&self) -> usize {
        let most = self.limits.per_namespace.min(self.limits.total);
        let cluster_wide = self.accounts.get("").map_or(0, Account::granted);
        let mut left = self.limits.total.saturating_sub(cluster_wide);
        let accounts = self.accounts.iter().filter(|(name, _)| !name.is_empty());
        let mut wanted: Vec<usize> = accounts.map(|(_, account)| account.sum.min(most)).collect();
        if wanted.iter().sum::<usize>() <= left {
            return most;
        }
        wanted.sort_unstable();
        let count = wanted.len();
        for (served, wants) in wanted.into_iter().enumerate() {
            let share = left / (count - served);
            if wants > share {
                return share;
            }
            left -= wants;
        }
        most
    }
}
