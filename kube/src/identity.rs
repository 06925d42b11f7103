//! One identity number per label set in the whole cluster, agreed through the store.
//!
//! Two objects make an identity. A CiliumIdentity is named by its number and carries the labels; making
//! it takes the number. An IdentityClaim is named by the hash of the labels and carries the number;
//! making it decides which number the label set has. Both are made atomically by name, so of many agents
//! that ask at once one decides and the others follow. What a crash leaves between the two is a number
//! without a claim: the operator collects it, or the next agent with the same labels adopts it.
//!
//! Collection is a protocol too: the operator first marks ([`UNUSED_SINCE`]) and deletes later, only if
//! the object is still the one it marked. [`IdentityAllocator::resolve`] removes the mark, so an identity
//! that was just handed out is not deleted under its user.

mod quota;

pub use quota::{IdentityLimits, QuotaError};

use crate::store::{Kind, Object, Store, StoreError};
use heddle_model::{Identity, LabelSet, NamespacedName};
use quota::Quota;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Annotation with which the operator marks a CiliumIdentity that nobody used when it looked.
pub const UNUSED_SINCE: &str = "heddle.dev/unused-since";

/// Field of a CiliumIdentity that holds its labels.
const SECURITY_LABELS: &str = "security-labels";
/// Attempts to agree with others before giving up; each round is lost only to another agent's success.
const MAX_ROUNDS: usize = 32;
/// Numbers tried for one label set in one go. What was met as taken is remembered, so the next go begins behind it.
const MAX_TRIES: usize = 256;
/// Answers remembered by one allocator, by a hash of the labels: their size does not count.
const CACHE_CAPACITY: usize = 4096;
/// How long an answer is remembered. The operator's interval between marking and deleting must be longer:
/// see [`MIN_COLLECTION_INTERVAL`].
pub const CACHE_AGE: Duration = Duration::from_secs(30);
/// The least interval between marking an identity as unused and deleting it: a number may be remembered for
/// [`CACHE_AGE`], and the ADD that then uses it may take as long again until its endpoint is published.
pub const MIN_COLLECTION_INTERVAL: Duration = Duration::from_secs(60);

/// No identity for a label set.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store refused or failed.
    #[error("no identity for labels [{labels}]: {source}")]
    Store {
        /// The labels.
        labels: LabelSet,
        /// What the store said.
        source: StoreError,
    },
    /// Every number of the cluster scope is taken.
    #[error(
        "no identity is left for labels [{labels}]: {used} of {total} numbers ({first} to {last}) are taken"
    )]
    Exhausted {
        /// The labels.
        labels: LabelSet,
        /// Numbers that are taken.
        used: usize,
        /// Numbers that there are.
        total: usize,
        /// First number.
        first: Identity,
        /// Last number.
        last: Identity,
    },
    /// Others changed the same objects again and again.
    #[error("no identity for labels [{labels}]: its claim changed {MAX_ROUNDS} times meanwhile")]
    Contended {
        /// The labels.
        labels: LabelSet,
    },
    /// The namespace has or makes too many.
    #[error("no new identity for labels [{labels}]: {source}")]
    Quota {
        /// The labels.
        labels: LabelSet,
        /// Which limit.
        source: QuotaError,
    },
    /// Every number that was tried is taken.
    #[error(
        "no identity for labels [{labels}]: the {MAX_TRIES} numbers that were tried are taken; the next attempt tries others"
    )]
    Crowded {
        /// The labels.
        labels: LabelSet,
    },
}

impl IdentityError {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Store { source, .. } => source.code(),
            Self::Exhausted { .. } => "identity/exhausted",
            Self::Contended { .. } => "identity/contended",
            Self::Quota { source, .. } => match source {
                QuotaError::TooMany { .. } => "identity/too-many",
                QuotaError::TooFast { .. } => "identity/too-fast",
            },
            Self::Crowded { .. } => "identity/crowded",
        }
    }

    /// What to try.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Store { source, .. } => source.help(),
            Self::Exhausted { .. } => {
                "leave labels that differ from pod to pod out of identities (excludedLabels), and check that the operator collects unused identities"
            }
            Self::Contended { .. } => "try again",
            Self::Quota { source, .. } => match source {
                QuotaError::TooMany { .. } => {
                    "leave labels that differ from pod to pod out of identities (excludedLabels), or raise maxIdentitiesPerNamespace"
                }
                QuotaError::TooFast { .. } => {
                    "it is tried again by itself; leave labels that change all the time out of identities (excludedLabels), or raise newIdentitiesPerMinute"
                }
            },
            Self::Crowded { .. } => {
                "try again, and check that the operator collects unused identities"
            }
        }
    }
}

/// The name of a label set's IdentityClaim: SHA-256 of its printed labels, in hexadecimal.
pub fn claim_name(labels: &LabelSet) -> String {
    hex(&digest(labels))
}

/// The CiliumIdentity object of a number and its labels.
pub fn identity_object(identity: Identity, labels: &LabelSet) -> Value {
    json!({
        "apiVersion": Kind::CiliumIdentity.api_version(),
        "kind": Kind::CiliumIdentity.name(),
        "metadata": {"name": identity.to_string()},
        SECURITY_LABELS: security_labels(labels),
    })
}

/// The IdentityClaim object that gives a label set its number.
pub fn claim_object(identity: Identity, labels: &LabelSet) -> Value {
    json!({
        "apiVersion": Kind::IdentityClaim.api_version(),
        "kind": Kind::IdentityClaim.name(),
        "metadata": {"name": claim_name(labels)},
        "spec": {"identity": identity, "labels": labels},
    })
}

/// Labels as a CiliumIdentity has them: `{"k8s:app": "web"}`.
pub fn security_labels(labels: &LabelSet) -> Map<String, Value> {
    labels
        .iter()
        .map(|(source, key, value)| (format!("{}:{key}", source.prefix()), value.into()))
        .collect()
}

/// The number and labels of a CiliumIdentity; none when it is not one that Heddle can use.
pub fn parse_identity(value: &Value) -> Option<(Identity, LabelSet)> {
    let number = value["metadata"]["name"].as_str()?.parse().ok()?;
    let mut printed = Vec::new();
    for (key, value) in value[SECURITY_LABELS].as_object()? {
        printed.push(format!("{key}={}", value.as_str()?));
    }
    let labels = LabelSet::from_strings(printed.iter().map(String::as_str))?;
    Some((Identity(number), labels))
}

/// The number in an IdentityClaim.
pub fn parse_claim(value: &Value) -> Option<Identity> {
    let number = value["spec"]["identity"].as_u64()?;
    Some(Identity(u32::try_from(number).ok()?))
}

/// Gives label sets their numbers. Clones share what they remember.
#[derive(Clone)]
pub struct IdentityAllocator {
    store: Arc<dyn Store>,
    first: Identity,
    last: Identity,
    memory: Arc<Mutex<Memory>>,
    quota: Option<Arc<Mutex<Quota>>>,
}

/// What one allocator remembers, bounded in bytes whatever labels and numbers others choose.
#[derive(Default)]
struct Memory {
    /// Answers, by the hash of the labels.
    answers: HashMap<[u8; 32], (Identity, Instant)>,
    /// Numbers that are taken as far as it is known: four bytes each, at most one per number of the range.
    taken: BTreeSet<Identity>,
    /// A watch says which numbers are taken; without one, `taken` is only what was met.
    follows_watch: bool,
}

/// What happened to one attempt.
enum Round {
    Settled(Identity),
    /// Others changed what this attempt was based on.
    Again,
}

impl IdentityAllocator {
    /// An allocator of the numbers of the cluster scope.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with_range(store, Identity::CLUSTER_FIRST, Identity::CLUSTER_LAST)
    }

    /// An allocator of the numbers from `first` to `last`, both included.
    pub fn with_range(store: Arc<dyn Store>, first: Identity, last: Identity) -> Self {
        Self {
            store,
            first,
            last,
            memory: Arc::default(),
            quota: None,
        }
    }

    /// The same without limits, for labels that the pods' own writers did not choose.
    #[must_use]
    pub fn unlimited(&self) -> Self {
        Self {
            quota: None,
            ..self.clone()
        }
    }

    /// The same, with limits for each namespace. It has to be told what exists ([`Self::observe`]).
    #[must_use]
    pub fn limited(mut self, limits: IdentityLimits) -> Self {
        self.quota = Some(Arc::new(Mutex::new(Quota::new(limits))));
        self
    }

    /// The number of a label set; it is given one when it has none.
    ///
    /// Reserved labels (`reserved:host`, ...) have fixed numbers and need no store.
    ///
    /// # Errors
    ///
    /// [`IdentityError`]; nothing that others could see has been left then but, after a lost connection,
    /// a number that the operator collects.
    pub async fn resolve(&self, labels: &LabelSet) -> Result<Identity, IdentityError> {
        if let Some(reserved) = reserved(labels) {
            return Ok(reserved);
        }
        if let Some(remembered) = self.remembered(labels) {
            return Ok(remembered);
        }
        for _ in 0..MAX_ROUNDS {
            // The answer is as old as the question: it may have been given at any time since.
            let asked = Instant::now();
            if let Round::Settled(identity) = self.round(labels).await? {
                self.remember(labels, identity, asked);
                return Ok(identity);
            }
        }
        Err(IdentityError::Contended {
            labels: labels.clone(),
        })
    }

    /// Forgets a number: call it when its CiliumIdentity is deleted.
    pub fn forget(&self, identity: Identity) {
        let mut memory = self.memory();
        memory
            .answers
            .retain(|_, (remembered, _)| *remembered != identity);
        memory.taken.remove(&identity);
        drop(memory);
        self.with_quota(|quota| quota.forget(identity, Instant::now()));
    }

    fn with_quota<T>(&self, change: impl FnOnce(&mut Quota) -> T) -> Option<T> {
        let quota = self.quota.as_ref()?;
        Some(change(
            &mut quota.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// Takes in a CiliumIdentity that a watch reports: its number is taken, and answers that say otherwise of
    /// it are forgotten. `labels` is `None` where they cannot be read.
    pub fn observe(&self, identity: Identity, labels: Option<&LabelSet>) {
        self.with_quota(|quota| match labels {
            Some(labels) => quota.observe(identity, labels, Instant::now()),
            None => quota.forget(identity, Instant::now()),
        });
        let labels = labels.map(digest);
        let mut memory = self.memory();
        memory.follows_watch = true;
        if (self.first..=self.last).contains(&identity) {
            memory.taken.insert(identity);
        }
        memory.answers.retain(|known, (remembered, _)| {
            *remembered != identity || labels.as_ref() == Some(known)
        });
    }

    /// Forgets everything: call it when a watch starts over, as what was deleted meanwhile is not reported.
    pub fn clear(&self) {
        *self.memory() = Memory::default();
        self.with_quota(|quota| quota.forget_all(Instant::now()));
    }

    /// Makes the CiliumIdentity of a number that is in use again, and the claim of its labels where there is
    /// none. False when the number stands for other labels by now.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn reassert(
        &self,
        identity: Identity,
        labels: &LabelSet,
    ) -> Result<bool, StoreError> {
        let made = self
            .store
            .create(Kind::CiliumIdentity, identity_object(identity, labels))
            .await;
        match made {
            Ok(_) => {}
            Err(StoreError::AlreadyExists { .. }) => {
                if !self.is_usable(identity, labels).await? {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
        let claim = claim_object(identity, labels);
        match self.store.create(Kind::IdentityClaim, claim).await {
            // Another claim of the same labels stands: both numbers mean the same.
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, labels: &LabelSet) -> Option<Identity> {
        let memory = self.memory();
        let (identity, since) = memory.answers.get(&digest(labels))?;
        (since.elapsed() < CACHE_AGE).then_some(*identity)
    }

    fn remember(&self, labels: &LabelSet, identity: Identity, asked: Instant) {
        let mut memory = self.memory();
        let answers = &mut memory.answers;
        if answers.len() >= CACHE_CAPACITY {
            answers.retain(|_, (_, since)| since.elapsed() < CACHE_AGE);
        }
        if answers.len() < CACHE_CAPACITY {
            answers.insert(digest(labels), (identity, asked));
        }
    }

    async fn round(&self, labels: &LabelSet) -> Result<Round, IdentityError> {
        let failed = |source| IdentityError::Store {
            labels: labels.clone(),
            source,
        };
        let name = NamespacedName::new("", claim_name(labels));
        match self.store.get(Kind::IdentityClaim, &name).await {
            Ok(claim) => {
                let identity = parse_claim(&claim.value);
                if let Some(identity) = identity
                    && self.is_usable(identity, labels).await.map_err(failed)?
                {
                    return Ok(Round::Settled(identity));
                }
                // Its identity is gone (collected, or deleted by hand): the label set gets a new one.
                match self
                    .store
                    .delete(Kind::IdentityClaim, &name, Some(&claim.version))
                    .await
                {
                    Ok(()) | Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => {
                        Ok(Round::Again)
                    }
                    Err(error) => Err(failed(error)),
                }
            }
            Err(StoreError::NotFound { .. }) => self.claim(labels).await,
            Err(error) => Err(failed(error)),
        }
    }

    /// Takes a number for labels without one.
    async fn claim(&self, labels: &LabelSet) -> Result<Round, IdentityError> {
        let failed = |source| IdentityError::Store {
            labels: labels.clone(),
            source,
        };
        if let Some(Err(source)) = self.with_quota(|quota| quota.take(labels, Instant::now())) {
            return Err(IdentityError::Quota {
                labels: labels.clone(),
                source,
            });
        }
        let Some((identity, made)) = self.take_number(labels).await? else {
            return Ok(Round::Again);
        };
        match self
            .store
            .create(Kind::IdentityClaim, claim_object(identity, labels))
            .await
        {
            Ok(_) => Ok(Round::Settled(identity)),
            Err(StoreError::AlreadyExists { name, .. }) => {
                let winner = match self.store.get(Kind::IdentityClaim, &name).await {
                    Ok(claim) => parse_claim(&claim.value),
                    Err(StoreError::NotFound { .. }) => None,
                    Err(error) => return Err(failed(error)),
                };
                // Given back only when the winner stands, so that no third one can still settle on it.
                if let (Some(winner), Some(made)) = (winner, made)
                    && winner != identity
                    && self.is_usable(winner, labels).await.map_err(failed)?
                {
                    let number = NamespacedName::new("", identity.to_string());
                    let given_back = self
                        .store
                        .delete(Kind::CiliumIdentity, &number, Some(&made.version))
                        .await;
                    if let Err(error) = given_back {
                        tracing::debug!(%identity, %error, "left to the operator");
                    }
                }
                Ok(Round::Again)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// True when a number exists and stands for these labels; a mark for collection is removed.
    async fn is_usable(&self, identity: Identity, labels: &LabelSet) -> Result<bool, StoreError> {
        let name = NamespacedName::new("", identity.to_string());
        loop {
            let mut value = match self.store.get(Kind::CiliumIdentity, &name).await {
                Ok(object) => object.value,
                Err(StoreError::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(error),
            };
            if parse_identity(&value).is_none_or(|(_, stored)| stored != *labels) {
                return Ok(false);
            }
            let marked = value["metadata"]["annotations"]
                .as_object_mut()
                .and_then(|annotations| annotations.remove(UNUSED_SINCE));
            if marked.is_none() {
                return Ok(true);
            }
            match self.store.update(Kind::CiliumIdentity, value).await {
                Ok(_) => return Ok(true),
                // Collected at this moment, or freed of its mark by another agent: look which. Ends,
                // because a mark comes back at most once per interval of the operator.
                Err(StoreError::NotFound { .. } | StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A number that has these labels: a free one that is taken now, or one that was left without a claim.
    ///
    /// Numbers known as taken are stepped over, but for the first: that is where a crash would have left one.
    /// All identities are never listed: how many there are, and how large, is others' choice.
    async fn take_number(
        &self,
        labels: &LabelSet,
    ) -> Result<Option<(Identity, Option<Object>)>, IdentityError> {
        let failed = |source| IdentityError::Store {
            labels: labels.clone(),
            source,
        };
        let total = self.last.0 - self.first.0 + 1;
        let digest = digest(labels);
        // Different labels begin at different numbers, so that agents rarely meet.
        let seed = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % total;
        let number = |step: u32| Identity(self.first.0 + (seed + step) % total);
        let mut tries = 0;
        // Twice around: what was met as taken may have been freed since.
        for fresh_look in [false, true] {
            if fresh_look {
                let mut memory = self.memory();
                if memory.follows_watch {
                    break;
                }
                memory.taken.clear();
            }
            for step in 0..total {
                let identity = number(step);
                if step > 0 && self.memory().taken.contains(&identity) {
                    continue;
                }
                if tries == MAX_TRIES {
                    return Err(IdentityError::Crowded {
                        labels: labels.clone(),
                    });
                }
                tries += 1;
                match self
                    .store
                    .create(Kind::CiliumIdentity, identity_object(identity, labels))
                    .await
                {
                    Ok(object) => return Ok(Some((identity, Some(object)))),
                    Err(StoreError::AlreadyExists { .. }) => {}
                    Err(error) => return Err(failed(error)),
                }
                if self.is_usable(identity, labels).await.map_err(failed)? {
                    return Ok(Some((identity, None)));
                }
                self.memory().taken.insert(identity);
            }
        }
        // Somebody with the same labels may have been faster with the last number.
        let name = NamespacedName::new("", claim_name(labels));
        match self.store.get(Kind::IdentityClaim, &name).await {
            Ok(_) => Ok(None),
            Err(StoreError::NotFound { .. }) => Err(IdentityError::Exhausted {
                labels: labels.clone(),
                used: total as usize,
                total: total as usize,
                first: self.first,
                last: self.last,
            }),
            Err(error) => Err(failed(error)),
        }
    }
}

/// The fixed number of a reserved label set.
fn reserved(labels: &LabelSet) -> Option<Identity> {
    Identity::RESERVED
        .into_iter()
        .find(|(_, name)| *labels == LabelSet::reserved(name))
        .map(|(identity, _)| identity)
}

fn digest(labels: &LabelSet) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for label in labels.to_strings() {
        // Lengths keep two labels apart from one that contains a separator.
        hasher.update((label.len() as u64).to_be_bytes());
        hasher.update(label.as_bytes());
    }
    hasher.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
