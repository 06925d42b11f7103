//! Which policies somebody has heard of, each in its generation, as one digest per kind.
//!
//! Nodes say in their reports what they have heard and put in force. A list would grow with nodes times policies;
//! a revision cannot be compared where versions are opaque. A digest is as long for 20,000 policies as for one,
//! and whoever follows the same watch goes through the same digests: the changes of one kind have one order.

use crate::store::Kind;
use heddle_model::NamespacedName;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Policies as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct ObservedPolicies {
    hashes: BTreeMap<(Kind, NamespacedName), u128>,
    /// By kind: the sum of the hashes, whatever order they came in.
    sums: BTreeMap<Kind, u128>,
}

impl ObservedPolicies {
    /// Takes in an object as it is now; true when it is another object than before, or another generation of it.
    pub fn set(&mut self, kind: Kind, name: &NamespacedName, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let mut hasher = Sha256::new();
        for part in [
            kind.name(),
            &name.namespace,
            &name.name,
            metadata["uid"].as_str().unwrap_or_default(),
            &metadata["generation"].to_string(),
        ] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        let hash = hasher
            .finalize()
            .into_iter()
            .take(16)
            .fold(0, |sum, byte| (sum << 8) | u128::from(byte));
        let before = self.hashes.insert((kind, name.clone()), hash);
        let sum = self.sums.entry(kind).or_default();
        *sum = sum.wrapping_sub(before.unwrap_or(0)).wrapping_add(hash);
        before != Some(hash)
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, kind: Kind, name: &NamespacedName) {
        if let Some(hash) = self.hashes.remove(&(kind, name.clone()))
            && let Some(sum) = self.sums.get_mut(&kind)
        {
            *sum = sum.wrapping_sub(hash);
        }
    }

    /// The digest of what is known of a kind.
    pub fn digest(&self, kind: Kind) -> String {
        let sum = self.sums.get(&kind).copied().unwrap_or(0);
        format!("{sum:032x}")
    }

    /// The digests of all kinds of policy.
    pub fn digests(&self) -> BTreeMap<Kind, String> {
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_policy());
        kinds.map(|kind| (kind, self.digest(kind))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_digest_depends_on_what_is_known_and_not_on_how_it_was_heard() {
        let object = |generation: u64| json!({"metadata": {"uid": "u", "generation": generation}});
        let name = |name: &str| NamespacedName::new("n", name);
        let kind = Kind::NetworkPolicy;
        let (mut one, mut other) = (ObservedPolicies::default(), ObservedPolicies::default());
        let empty = one.digest(kind);
        assert!(one.set(kind, &name("a"), &object(1)));
        assert!(!one.set(kind, &name("a"), &object(1)));
        one.set(kind, &name("b"), &object(1));
        other.set(kind, &name("b"), &object(1));
        other.set(kind, &name("a"), &object(3));
        assert_ne!(one.digest(kind), other.digest(kind));
        assert!(one.set(kind, &name("a"), &object(3)));
        assert_eq!(one.digests(), other.digests());
        for known in ["a", "b", "b"] {
            one.remove(kind, &name(known));
        }
        assert_eq!(one.digest(kind), empty);
    }
}
