//! What a candidate does with the lease as it stands. Pure: time is a duration since any moment of its own.

use crate::objects::LeaseSpec;
use crate::store::Version;
use std::time::Duration;

/// How long things take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// For how long after a change of the lease nobody else takes it.
    pub lease: Duration,
    /// For how long after it asked for its last renewal a leader leads. Shorter than `lease`: what it still does
    /// in that moment is done before another one leads.
    pub renew_deadline: Duration,
    /// Between two renewals.
    pub renew: Duration,
    /// Between two looks of one that does not lead.
    pub retry: Duration,
}

impl Timing {
    /// The timing for a lease of so many seconds, at least 3: two thirds to renew it, three attempts at that.
    pub fn of_seconds(seconds: u32) -> Self {
        let lease = Duration::from_secs(u64::from(seconds.max(3)));
        Self {
            lease,
            renew_deadline: lease * 2 / 3,
            renew: lease / 4,
            retry: lease / 8,
        }
    }
}

/// One time of leading: no two have the same number and holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Term {
    /// Who leads.
    pub holder: String,
    /// How often the lease was taken, this time included.
    pub transitions: u32,
    /// When it was taken, for people to read.
    pub since: String,
}

/// What to do with the lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// It does not exist: create it so.
    Create(LeaseSpec),
    /// Update it so, if it still is what was looked at.
    Update(LeaseSpec),
    /// Somebody else holds it: look again later.
    Wait,
}

/// One candidate's part.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    /// The newest state of the lease, and when this candidate saw it first.
    observed: Option<(Version, Duration)>,
    /// The term, and until when it lasts.
    leading: Option<(Term, Duration)>,
}

impl Election {
    /// A candidate. No two that live at the same time may have the same identity; one that was restarted may
    /// have its former one, and then takes over from itself at once.
    pub fn new(identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            identity: identity.into(),
            timing,
            observed: None,
            leading: None,
        }
    }

    /// How long things take.
    pub const fn timing(&self) -> Timing {
        self.timing
    }

    /// The term, while this candidate leads.
    pub fn leads(&self, now: Duration) -> Option<&Term> {
        let (term, until) = self.leading.as_ref()?;
        (now < *until).then_some(term)
    }

    /// Until when it leads, if nothing happens.
    pub fn leads_until(&self) -> Option<Duration> {
        self.leading.as_ref().map(|(_, until)| *until)
    }

    /// Looks at the lease as it is `now`; `wall_clock` (RFC 3339 with microseconds) is what people will read.
    pub fn look(
        &mut self,
        now: Duration,
        lease: Option<(&Version, &LeaseSpec)>,
        wall_clock: &str,
    ) -> Step {
        let Some((version, spec)) = lease else {
            self.leading = None;
            self.observed = None;
            return Step::Create(self.taken(0, wall_clock));
        };
        let since = match &self.observed {
            Some((seen, since)) if seen == version => *since,
            _ => {
                self.observed = Some((version.clone(), now));
                now
            }
        };
        let transitions = spec.lease_transitions.unwrap_or(0);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if let Some(term) = self.leads(now)
            && holder == self.identity
            && transitions == term.transitions
        {
            return Step::Update(LeaseSpec {
                renew_time: Some(wall_clock.to_owned()),
                ..self.taken_since(term)
            });
        }
        // Whatever it thought: the lease is not its own any more, or it has to begin anew.
        self.leading = None;
        let holds = spec
            .lease_duration_seconds
            .map_or(self.timing.lease, |seconds| {
                Duration::from_secs(u64::from(seconds)).max(self.timing.lease)
            });
        let is_free = holder.is_empty() || holder == self.identity || now >= since + holds;
        if is_free {
            Step::Update(self.taken(transitions.wrapping_add(1), wall_clock))
        } else {
            Step::Wait
        }
    }

    /// What was asked for at `asked` is written: this candidate leads for a while, counted from then.
    pub fn written(&mut self, asked: Duration, version: Version, spec: &LeaseSpec) {
        self.observed = Some((version, asked));
        let term = Term {
            holder: self.identity.clone(),
            transitions: spec.lease_transitions.unwrap_or(0),
            since: spec.acquire_time.clone().unwrap_or_default(),
        };
        self.leading = Some((term, asked + self.timing.renew_deadline));
    }

    /// Stops leading; what to write so that the next one need not wait, if it led.
    pub fn resign(&mut self, now: Duration) -> Option<LeaseSpec> {
        let led = self.leads(now).cloned();
        self.leading = None;
        led.map(|term| LeaseSpec {
            holder_identity: Some(String::new()),
            ..self.taken_since(&term)
        })
    }

    fn taken(&self, transitions: u32, wall_clock: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: u32::try_from(self.timing.lease.as_secs()).ok(),
            acquire_time: Some(wall_clock.to_owned()),
            renew_time: Some(wall_clock.to_owned()),
            lease_transitions: Some(transitions),
        }
    }

    fn taken_since(&self, term: &Term) -> LeaseSpec {
        LeaseSpec {
            acquire_time: Some(term.since.clone()),
            ..self.taken(term.transitions, &term.since)
        }
    }
}
