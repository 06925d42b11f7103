//! A candidate at work: looks at the lease, takes and renews it, and says whether it leads.

use super::election::{Election, Step, Term};
use crate::objects::LeaseSpec;
use crate::store::{Kind, Object, Store, StoreError};
use crate::timestamp::rfc3339_micros;
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// Whether a candidate leads, as everybody of its process may ask. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<(Term, Instant)>>);

impl Leadership {
    /// The term, while it leads: asked at the moment, so that a candidate that was held up knows that it is over.
    pub fn term(&self) -> Option<Term> {
        let state = self.0.borrow();
        let (term, until) = state.as_ref()?;
        (Instant::now() < *until).then(|| term.clone())
    }

    /// Waits until something else than `known` is true.
    pub async fn changed(&mut self, known: Option<&Term>) {
        loop {
            let now = self.term();
            if now.as_ref() != known {
                return;
            }
            let until = self.0.borrow_and_update().as_ref().map(|(_, until)| *until);
            let ends = async {
                match until.filter(|_| now.is_some()) {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.0.changed() => if changed.is_err() {
                    // The candidate is gone: what is true stays true until it has run out.
                    tokio::time::sleep_until(until.unwrap_or_else(Instant::now)).await;
                    if self.term().as_ref() == known {
                        std::future::pending::<()>().await;
                    }
                    return;
                },
                () = ends => {}
            }
        }
    }
}

/// A candidate for a lease.
pub struct Candidate {
    store: Arc<dyn Store>,
    lease: NamespacedName,
    election: Election,
    /// The moment that the election counts from.
    epoch: Instant,
    state: watch::Sender<Option<(Term, Instant)>>,
}

impl Candidate {
    /// A candidate for the Lease of this name, and what others ask whether it leads.
    pub fn new(
        store: Arc<dyn Store>,
        lease: NamespacedName,
        election: Election,
    ) -> (Self, Leadership) {
        let (state, leadership) = watch::channel(None);
        let candidate = Self {
            store,
            lease,
            election,
            epoch: Instant::now(),
            state,
        };
        (candidate, Leadership(leadership))
    }

    /// Stands for election until `stop`, and resigns then.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let led = self.election.leads(self.now()).is_some();
            let outcome = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                outcome = self.round() => outcome,
            };
            self.say();
            let leads = self.election.leads(self.now()).is_some();
            match outcome {
                Err(error) if led || leads => {
                    tracing::warn!(lease = %self.lease, %error, "cannot renew the lease");
                }
                Err(error) => tracing::debug!(lease = %self.lease, %error, "cannot take the lease"),
                Ok(()) => {}
            }
            let timing = self.election.timing();
            let wait = if leads { timing.renew } else { timing.retry };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.resign().await;
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn say(&self) {
        let now = self.now();
        let state = self.election.leads(now).cloned().and_then(|term| {
            let until = self.epoch + self.election.leads_until()?;
            Some((term, until))
        });
        self.state.send_if_modified(|before| {
            let changed = *before != state;
            *before = state;
            changed
        });
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let read = match self.store.get(Kind::Lease, &self.lease).await {
            Ok(object) => Some(object),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let spec = read.as_ref().map(|object| LeaseSpec::of(&object.value));
        let lease = read
            .as_ref()
            .zip(spec.as_ref())
            .map(|(object, spec)| (&object.version, spec));
        let asked = self.now();
        let before = read.as_ref().map(|object| object.version.clone());
        let step = self.election.look(asked, lease, &wall_clock());
        let (written, spec) = match (step, read) {
            (Step::Create(spec), _) => {
                let value = self.object(&spec);
                (self.store.create(Kind::Lease, value).await, spec)
            }
            (Step::Update(spec), Some(read)) => (self.update(read, &spec).await, spec),
            (Step::Update(_), None) | (Step::Wait, _) => return Ok(()),
        };
        match written {
            // The same text at two moments of a clock that was set back: nobody would see that it was renewed.
            Ok(object) if Some(&object.version) == before.as_ref() => Ok(()),
            Ok(object) => {
                self.election.written(asked, object.version, &spec);
                Ok(())
            }
            // Somebody else was faster: it is looked at again.
            Err(
                StoreError::Conflict { .. }
                | StoreError::AlreadyExists { .. }
                | StoreError::NotFound { .. },
            ) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn object(&self, spec: &LeaseSpec) -> Value {
        json!({
            "apiVersion": Kind::Lease.api_version(), "kind": Kind::Lease.name(),
            "metadata": {"namespace": self.lease.namespace, "name": self.lease.name},
            "spec": spec,
        })
    }

    /// Writes the lease if it still is what was read: its version goes along.
    async fn update(&self, read: Object, spec: &LeaseSpec) -> Result<Object, StoreError> {
        let mut value = read.value;
        value["spec"] = json!(spec);
        self.store.update(Kind::Lease, value).await
    }

    async fn resign(&mut self) {
        let Some(spec) = self.election.resign(self.now()) else {
            return;
        };
        self.say();
        let given_back = async {
            let read = self.store.get(Kind::Lease, &self.lease).await?;
            let held = LeaseSpec::of(&read.value);
            if held.lease_transitions != spec.lease_transitions {
                return Ok(());
            }
            self.update(read, &spec).await.map(drop)
        };
        let deadline = self.election.timing().retry;
        match tokio::time::timeout(deadline, given_back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(lease = %self.lease, %error, "not given back; it runs out");
            }
            Err(_) => tracing::debug!(lease = %self.lease, "not given back in time; it runs out"),
        }
    }
}

fn wall_clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    rfc3339_micros(now.unwrap_or_default())
}
