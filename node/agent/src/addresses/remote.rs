//! Other nodes' pods, and who of those that claim an address has it.

use heddle_model::{Identity, NamespacedName};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// How old a claim of addresses is: the younger is greater. A watch tells changes in the order in which they were
/// made; what a list tells at once goes by when it was made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Age {
    /// Which change this agent heard of it was, as a count that one list shares.
    heard: u64,
    /// When the object was made, to the second.
    created: String,
    uid: String,
}

impl Age {
    /// Of an object; [`RemoteTable::set`] says which change it was.
    pub(crate) fn of(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let field = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
        Self {
            heard: 0,
            created: field("creationTimestamp"),
            uid: field("uid"),
        }
    }
}

/// Another pod's endpoint as the store has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RemoteEndpoint {
    pub(crate) age: Age,
    pub(crate) identity: Identity,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) node_name: Option<String>,
    pub(crate) node_address: Option<IpAddr>,
}

/// Other nodes' endpoints by pod, by address and by node.
#[derive(Debug)]
pub(crate) struct RemoteTable {
    endpoints: HashMap<NamespacedName, RemoteEndpoint>,
    /// Who claims an address; the newest claim counts.
    claims: HashMap<IpAddr, BTreeSet<(Age, NamespacedName)>>,
    /// Claims of addresses that were heard of, as a count.
    claims_heard: u64,
    /// A list is being told: until the next time that all has been said.
    is_listing: bool,
    by_node: HashMap<String, BTreeSet<NamespacedName>>,
}

impl Default for RemoteTable {
    fn default() -> Self {
        Self {
            endpoints: HashMap::new(),
            claims: HashMap::new(),
            claims_heard: 0,
            is_listing: true,
            by_node: HashMap::new(),
        }
    }
}

impl RemoteTable {
    /// The watch starts over: what it tells next is one list.
    pub(crate) const fn begin_list(&mut self) {
        self.is_listing = true;
        self.claims_heard += 1;
    }

    /// The watch has said all of its list.
    pub(crate) const fn end_list(&mut self) {
        self.is_listing = false;
    }

    /// What the store says of a pod's endpoint now. The addresses that may be somebody else now.
    pub(crate) fn set(
        &mut self,
        name: NamespacedName,
        mut endpoint: RemoteEndpoint,
    ) -> BTreeSet<IpAddr> {
        endpoint.age.heard = match self.endpoints.get(&name) {
            Some(before)
                if before.age.uid == endpoint.age.uid && before.addresses == endpoint.addresses =>
            {
                before.age.heard
            }
            _ => {
                self.claims_heard += u64::from(!self.is_listing);
                self.claims_heard
            }
        };
        let mut addresses = self.remove(&name);
        for address in &endpoint.addresses {
            let claims = self.claims.entry(*address).or_default();
            claims.insert((endpoint.age.clone(), name.clone()));
        }
        addresses.extend(&endpoint.addresses);
        if let Some(node) = &endpoint.node_name {
            let pods = self.by_node.entry(node.clone()).or_default();
            pods.insert(name.clone());
        }
        self.endpoints.insert(name, endpoint);
        addresses
    }

    /// A pod's endpoint is gone. The addresses that may be somebody else now.
    pub(crate) fn remove(&mut self, name: &NamespacedName) -> BTreeSet<IpAddr> {
        let Some(endpoint) = self.endpoints.remove(name) else {
            return BTreeSet::new();
        };
        let addresses: BTreeSet<IpAddr> = endpoint.addresses.iter().copied().collect();
        for address in &addresses {
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(&(endpoint.age.clone(), name.clone()));
                if claims.is_empty() {
                    self.claims.remove(address);
                }
            }
        }
        if let Some(node) = &endpoint.node_name
            && let Some(pods) = self.by_node.get_mut(node)
        {
            pods.remove(name);
            if pods.is_empty() {
                self.by_node.remove(node);
            }
        }
        addresses
    }

    /// Whose an address is: the newest claim counts.
    pub(crate) fn at(&self, address: IpAddr) -> Option<(&NamespacedName, &RemoteEndpoint)> {
        let (_, name) = self.claims.get(&address)?.last()?;
        self.endpoints.get_key_value(name)
    }

    /// The addresses of a node's pods.
    pub(crate) fn addresses_on(&self, node: &str) -> impl Iterator<Item = IpAddr> + '_ {
        let pods = self.by_node.get(node).into_iter().flatten();
        let endpoints = pods.filter_map(|pod| self.endpoints.get(pod));
        endpoints.flat_map(|endpoint| endpoint.addresses.iter().copied())
    }

    /// The addresses of the pods that have an identity.
    pub(crate) fn addresses_of(&self, identity: Identity) -> impl Iterator<Item = IpAddr> + '_ {
        let bearers = self.endpoints.values();
        let bearers = bearers.filter(move |it| it.identity == identity);
        bearers.flat_map(|endpoint| endpoint.addresses.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_claim_counts_and_nothing_is_left_of_those_that_are_gone() {
        let mut remote = RemoteTable::default();
        let address = IpAddr::from([10, 244, 2, 9]);
        let name = |name: &str| NamespacedName::new("shop", name);
        remote.end_list();
        let claim = |uid: &str, node: &str| RemoteEndpoint {
            age: Age::of(&serde_json::json!({"metadata": {"uid": uid}})),
            identity: Identity(40_000),
            addresses: vec![address],
            node_name: Some(node.to_owned()),
            node_address: None,
        };
        let at = |remote: &RemoteTable| remote.at(address).map(|(name, _)| name.name.clone());
        remote.set(name("a"), claim("1", "n2"));
        remote.set(name("b"), claim("2", "n3"));
        assert_eq!(at(&remote).as_deref(), Some("b"));
        remote.set(name("a"), claim("3", "n3"));
        assert_eq!(at(&remote).as_deref(), Some("a"));
        assert_eq!(remote.addresses_on("n2").count(), 0);
        assert_eq!(remote.addresses_on("n3").count(), 2);
        assert_eq!(remote.addresses_of(Identity(40_000)).count(), 2);
        assert_eq!(remote.remove(&name("a")), BTreeSet::from([address]));
        assert_eq!(at(&remote).as_deref(), Some("b"));
        remote.remove(&name("b"));
        assert!(remote.claims.is_empty() && remote.by_node.is_empty());
    }
}
