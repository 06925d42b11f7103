//! Identities in use here: what the store says otherwise of them is refused, and what it lost is made again.

use super::Ledger;
use heddle_kube::store::Kind;
use heddle_model::{Identity, IdentityScope, LabelSet, NamespacedName};
use std::net::IpAddr;
use std::sync::Arc;

impl Ledger {
    /// Whether a number is known to stand for other labels than these.
    pub(crate) fn stands_for_others(&self, identity: Identity, labels: &LabelSet) -> bool {
        if labels.is_empty() || identity.scope() != IdentityScope::Cluster {
            return false;
        }
        let is_other = |known: &LabelSet| known != labels;
        // While one of two has it here the other does not get it, whatever the store says by now.
        self.endpoints
            .labels_of(identity)
            .is_some_and(|held| is_other(&held))
            || match self.unsettled.contested(identity) {
                Some(others) => is_other(others),
                None => self.labels_of(identity).is_some_and(is_other),
            }
    }

    /// An identity's labels as the store says them. Where local endpoints have the number with other labels,
    /// they keep these, and are moved to a number of their own.
    pub(crate) fn set_identity(&mut self, identity: Identity, labels: LabelSet) {
        if let Some(held) = self.endpoints.labels_of(identity)
            && *held != labels
        {
            self.contest(identity, labels);
            return;
        }
        self.unsettled.reassert.remove(identity);
        if self.unsettled.end_contest(identity).is_some() {
            self.refresh_bearers(identity);
        }
        self.accept_identity(identity, labels);
    }

    fn accept_identity(&mut self, identity: Identity, labels: LabelSet) {
        if self.labels_of(identity) != Some(&labels) {
            self.know_identity(identity, Some(Arc::new(labels)));
        }
    }

    fn contest(&mut self, identity: Identity, labels: LabelSet) {
        self.unsettled.reassert.remove(identity);
        let bearers = self.endpoints.iter();
        let bearers = bearers.filter(|(_, it)| it.identity == identity);
        self.unsettled.relabel.extend(bearers.map(|(id, _)| id));
        if self.unsettled.contested(identity) == Some(&labels) {
            return;
        }
        tracing::error!(
            %identity, labels = %labels,
            "refused: the number is in use here with other labels; its endpoints keep these and get another number"
        );
        self.unsettled.contest(identity, labels);
        self.refresh_bearers(identity);
    }

    /// A number went to others, whose labels the watch has not said or nobody can read: its endpoints get another.
    pub(crate) fn give_up_identity(&mut self, identity: Identity) {
        if self.unsettled.contested(identity).is_none()
            && self.endpoints.labels_of(identity).is_some()
        {
            self.contest(identity, LabelSet::new());
        }
    }

    /// An identity's object is gone from the store.
    pub(super) fn remove_identity(&mut self, identity: Identity) {
        if identity.scope() != IdentityScope::Cluster {
            return;
        }
        let contested = self.unsettled.end_contest(identity).is_some();
        if contested {
            self.refresh_bearers(identity);
        }
        if self.endpoints.bears(identity) {
            // Whoever deleted it was wrong.
            self.unsettled.reassert.insert(identity);
            return;
        }
        self.know_identity(identity, None);
    }

    /// Whether the store has the object of an identity.
    fn is_in_store(&self, identity: Identity) -> bool {
        let name = NamespacedName::new("", identity.to_string());
        self.heard.knows(Kind::CiliumIdentity, &name)
    }

    /// A local endpoint has an identity whose object the store does not have, or has no more: it is made (again).
    pub(super) fn assert_identity(&mut self, identity: Identity) {
        if identity.scope() == IdentityScope::Cluster && !self.is_in_store(identity) {
            self.unsettled.reassert.insert(identity);
        }
    }

    /// A local endpoint does not have this identity any more: when it was the last, the store's word counts.
    pub(super) fn left_identity(&mut self, identity: Identity) {
        if identity.scope() != IdentityScope::Cluster || self.endpoints.bears(identity) {
            return;
        }
        if let Some(labels) = self.unsettled.end_contest(identity) {
            if labels.is_empty() {
                self.know_identity(identity, None);
            } else {
                self.accept_identity(identity, labels);
            }
            self.refresh_bearers(identity);
        } else if self.unsettled.reassert.remove(identity) && !self.is_in_store(identity) {
            self.know_identity(identity, None);
        }
    }

    /// Works out again who the addresses are that other nodes' pods with this identity have.
    fn refresh_bearers(&mut self, identity: Identity) {
        let addresses: Vec<IpAddr> = self.peers.remote.addresses_of(identity).collect();
        for address in addresses {
            self.refresh_address(address);
        }
    }
}
