//! How many identities the pods of one namespace may have, and how fast it may get new ones: numbers are the
//! whole cluster's, and every node holds the labels of each.

use heddle_model::{Identity, LabelSet, Source};
use std::collections::HashMap;
use std::time::Instant;

/// Minutes' worth of new identities that may be made at once.
const BURST_MINUTES: f64 = 4.0;

/// Limits for the identities of one namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdentityLimits {
    /// Identities at most.
    pub per_namespace: usize,
    /// New ones per minute at most, made by one allocator; four minutes' worth may come at once.
    pub new_per_minute: u32,
}

/// Why a namespace gets no identity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuotaError {
    /// It has as many as it may.
    #[error("namespace {namespace} has {limit} identities, which is the most one may have")]
    TooMany {
        /// The namespace.
        namespace: String,
        /// Identities at most.
        limit: usize,
    },
    /// It got too many of late.
    #[error(
        "the pods of namespace {namespace} on this node get new labels faster than {per_minute} times a minute"
    )]
    TooFast {
        /// The namespace.
        namespace: String,
        /// New ones per minute at most.
        per_minute: u32,
    },
}

/// What each namespace has and may get.
#[derive(Debug)]
pub(super) struct Quota {
    limits: IdentityLimits,
    namespaces: HashMap<String, Standing>,
    namespace_of: HashMap<Identity, String>,
}

#[derive(Debug)]
struct Standing {
    identities: usize,
    /// New identities that it may get at once, as of `since`.
    tokens: f64,
    since: Instant,
}

impl Quota {
    pub(super) fn new(limits: IdentityLimits) -> Self {
        Self {
            limits,
            namespaces: HashMap::new(),
            namespace_of: HashMap::new(),
        }
    }

    fn burst(&self) -> f64 {
        BURST_MINUTES * f64::from(self.limits.new_per_minute)
    }

    fn standing(&mut self, namespace: &str, now: Instant) -> &mut Standing {
        let tokens = self.burst();
        self.namespaces
            .entry(namespace.to_owned())
            .or_insert(Standing {
                identities: 0,
                tokens,
                since: now,
            })
    }

    /// An identity is known to exist.
    pub(super) fn observe(&mut self, identity: Identity, labels: &LabelSet, now: Instant) {
        let namespace = namespace(labels).unwrap_or_default();
        if self.namespace_of.get(&identity).map(String::as_str) == Some(namespace) {
            return;
        }
        self.forget(identity, now);
        self.standing(namespace, now).identities += 1;
        self.namespace_of.insert(identity, namespace.to_owned());
    }

    /// An identity is gone.
    pub(super) fn forget(&mut self, identity: Identity, now: Instant) {
        let Some(namespace) = self.namespace_of.remove(&identity) else {
            return;
        };
        let standing = self.standing(&namespace, now);
        standing.identities = standing.identities.saturating_sub(1);
        if standing.identities == 0 {
            self.forget_idle(now);
        }
    }

    /// The watch starts over: what exists will be told again.
    pub(super) fn forget_all(&mut self, now: Instant) {
        self.namespace_of.clear();
        for standing in self.namespaces.values_mut() {
            standing.identities = 0;
        }
        self.forget_idle(now);
    }

    /// Namespaces that have nothing and may get all are as if they were not known.
    fn forget_idle(&mut self, now: Instant) {
        let burst = self.burst();
        let per_minute = self.limits.new_per_minute;
        self.namespaces.retain(|_, standing| {
            standing.identities > 0 || standing.refilled(now, per_minute) < burst
        });
    }

    /// Takes one new identity for labels off what their namespace may get.
    pub(super) fn take(&mut self, labels: &LabelSet, now: Instant) -> Result<(), QuotaError> {
        let Some(namespace) = namespace(labels) else {
            return Ok(());
        };
        let IdentityLimits {
            per_namespace,
            new_per_minute,
        } = self.limits;
        let burst = self.burst();
        let standing = self.standing(namespace, now);
        if standing.identities >= per_namespace {
            return Err(QuotaError::TooMany {
                namespace: namespace.to_owned(),
                limit: per_namespace,
            });
        }
        let tokens = standing.refilled(now, new_per_minute).min(burst);
        if tokens < 1.0 {
            return Err(QuotaError::TooFast {
                namespace: namespace.to_owned(),
                per_minute: new_per_minute,
            });
        }
        standing.tokens = tokens - 1.0;
        standing.since = now;
        Ok(())
    }
}

impl Standing {
    fn refilled(&self, now: Instant, per_minute: u32) -> f64 {
        let elapsed = now.saturating_duration_since(self.since);
        self.tokens + elapsed.as_secs_f64() / 60.0 * f64::from(per_minute)
    }
}

fn namespace(labels: &LabelSet) -> Option<&str> {
    labels.get_from(Source::K8s, LabelSet::NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn labels(namespace: &str, number: u32) -> LabelSet {
        LabelSet::from_strings([
            format!("k8s:n={number}").as_str(),
            format!("k8s:{}={namespace}", LabelSet::NAMESPACE).as_str(),
        ])
        .unwrap()
    }

    #[test]
    fn one_namespace_uses_up_its_own_share_alone() {
        let mut quota = Quota::new(IdentityLimits {
            per_namespace: 3,
            new_per_minute: 60,
        });
        let now = Instant::now();
        for number in 0..3 {
            quota.take(&labels("a", number), now).unwrap();
            quota.observe(Identity(300 + number), &labels("a", number), now);
            // Heard twice, counted once.
            quota.observe(Identity(300 + number), &labels("a", number), now);
        }
        let refused = quota.take(&labels("a", 3), now);
        assert!(matches!(refused, Err(QuotaError::TooMany { limit: 3, .. })));
        quota.take(&labels("b", 0), now).unwrap();
        quota.forget(Identity(301), now);
        quota.take(&labels("a", 3), now).unwrap();
        // What other labels took over counts for their namespace.
        quota.observe(Identity(301), &labels("a", 3), now);
        quota.observe(Identity(301), &labels("b", 3), now);
        quota.take(&labels("a", 4), now).unwrap();
    }

    #[test]
    fn new_ones_come_at_a_bounded_rate_after_a_bounded_burst() {
        let mut quota = Quota::new(IdentityLimits {
            per_namespace: 10_000,
            new_per_minute: 60,
        });
        let now = Instant::now();
        let taken = |quota: &mut Quota, now| {
            let attempts = (0..1_000).map(|number| quota.take(&labels("a", number), now));
            attempts.filter(Result::is_ok).count()
        };
        assert_eq!(taken(&mut quota, now), 240);
        assert_eq!(taken(&mut quota, now), 0);
        assert_eq!(taken(&mut quota, now + Duration::from_secs(5)), 5);
        assert_eq!(taken(&mut quota, now + Duration::from_secs(3_600)), 240);
        quota.take(&labels("b", 0), now).unwrap();
    }

    #[test]
    fn what_is_remembered_is_bounded_by_what_exists_and_what_was_taken_of_late() {
        let mut quota = Quota::new(IdentityLimits {
            per_namespace: 10,
            new_per_minute: 60,
        });
        let now = Instant::now();
        for number in 0..100 {
            let name = format!("n{number}");
            quota.take(&labels(&name, 0), now).unwrap();
            quota.observe(Identity(300 + number), &labels(&name, 0), now);
        }
        quota.forget_all(now + Duration::from_secs(60));
        assert!(quota.namespaces.is_empty() && quota.namespace_of.is_empty());
    }
}
