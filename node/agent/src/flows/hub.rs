//! The flow hub: one thread reads the kernel's events, and another one explains denials; any number of observers read
//! what they remember.
//!
//! The flows of one connection are shown in the order of its events, unless more denials wait for their explanation
//! than [`EXPLAINED_AT_ONCE`]: those beyond go on at once and without one. Flows of different connections may be shown in
//! another order than that of their events; each has its time.

use super::explain::{Connection, Explainer, Offer, Pending, Queue};
use super::ring::Ring;
use crate::agent::lock;
use crate::metrics::Metrics;
use heddle_abi::Event;
use heddle_datapath::Datapath;
use heddle_flow::{
    Context, FilterError, Flow, Line, LossSource, LostEvents, Matcher, ObserveRequest, Resolver,
    Response, Timestamp, decode, denial,
};
use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Least time between two lines about lost events of one kind (reference 4.3).
const LOSS_INTERVAL: Duration = Duration::from_secs(1);
/// How long `status` warns after drop events were left out.
const SAMPLING_MEMORY: Duration = Duration::from_secs(60);
/// Records an observer takes from the ring at once.
const BATCH: usize = 256;
/// Pause after the kernel's events could not be read.
const RETRY: Duration = Duration::from_secs(1);
/// Flows that wait for their explanation at most, or for another one's of the same connection.
const EXPLAINED_AT_ONCE: usize = 1024;
/// Observers at once; each costs a walk over new flows.
const MAX_OBSERVERS: usize = 64;

/// How the hub works.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Name of this node.
    pub node: String,
    /// Flows remembered (2^n - 1; reference 4.3).
    pub capacity: usize,
    /// How long one wait for events lasts at most; bounds how long a stop takes.
    pub poll: Duration,
}

impl HubOptions {
    /// The usual options for a node that remembers `capacity` flows.
    pub fn new(node: impl Into<String>, capacity: usize) -> Self {
        Self {
            node: node.into(),
            capacity,
            poll: Duration::from_millis(250),
        }
    }
}

/// Numbers about the hub (Hubble's `ServerStatus`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HubStatus {
    /// Records remembered now.
    pub num_flows: u64,
    /// Records remembered at most.
    pub max_flows: u64,
    /// Flows seen since the start.
    pub seen_flows: u64,
    /// Observers connected now.
    pub observers: usize,
    /// Events lost on their way from the kernel since the start.
    pub lost: u64,
    /// Drops since the start that the kernel counted but did not report, to bound their rate.
    pub sampled: u64,
    /// True when some of them are younger than a minute.
    pub sampling_now: bool,
    /// Why the kernel's events cannot be read right now.
    pub problem: Option<String>,
}

/// An `observe` request that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Its filter makes no sense.
    #[error("the filter cannot be understood: {0}")]
    Filter(#[from] FilterError),
    /// There are too many already.
    #[error(
        "{MAX_OBSERVERS} observers are connected to this agent already; close one and try again"
    )]
    TooMany,
}

impl ObserveError {
    /// Its stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Filter(_) => "observe/bad-filter",
            Self::TooMany => "observe/too-many-observers",
        }
    }
}

/// How far the hub is; observers wait for it to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Progress {
    written: u64,
    stopped: bool,
}

struct Shared {
    node: String,
    capacity: usize,
    ring: Mutex<Ring>,
    progress: watch::Sender<Progress>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    explained: Queue,
    stop: AtomicBool,
    stopping: Condvar,
}

#[derive(Default)]
struct State {
    seen: u64,
    lost: u64,
    sampled: u64,
    last_sampled: Option<Instant>,
    problem: Option<String>,
}

/// Reads the kernel's events, remembers the last flows and serves observers. Stops when dropped.
pub struct FlowHub {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl FlowHub {
    /// Starts the threads that read and explain events.
    pub fn start(
        datapath: Arc<dyn Datapath>,
        resolver: Arc<dyn Resolver>,
        explainer: Arc<dyn Explainer>,
        metrics: Arc<Metrics>,
        options: HubOptions,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            ring: Mutex::new(Ring::new(options.capacity)),
            capacity: options.capacity,
            node: options.node,
            progress: watch::Sender::new(Progress::default()),
            metrics,
            state: Mutex::default(),
            explained: Queue::new(EXPLAINED_AT_ONCE),
            stop: AtomicBool::new(false),
            stopping: Condvar::new(),
        });
        let reader = Reader {
            shared: Arc::clone(&shared),
            datapath,
            resolver,
            poll: options.poll,
            // Every node and every start has its own numbers, without asking for randomness per flow.
            seed: u128::from(RandomState::new().build_hasher().finish()) << 64,
            count: 0,
            losses: Vec::new(),
        };
        let hub = Self {
            shared: Arc::clone(&shared),
            threads: Mutex::default(),
        };
        hub.spawn("flows-explained", move || explain(&shared, &*explainer))?;
        hub.spawn("flows", move || reader.run())?;
        Ok(hub)
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        lock(&self.threads).push(thread.spawn(work)?);
        Ok(())
    }

    /// Begins to observe.
    pub fn observe(&self, request: ObserveRequest) -> Result<Observation, ObserveError> {
        let matcher = request.matcher()?;
        // Subscribed before the ring is read: no record can slip between history and what follows.
        let progress = self.shared.progress.subscribe();
        if self.shared.progress.receiver_count() > MAX_OBSERVERS {
            return Err(ObserveError::TooMany);
        }
        let (records, cursor) = lock(&self.shared.ring).snapshot();
        let ready = request.past(records, &matcher).into();
        Ok(Observation {
            shared: Arc::clone(&self.shared),
            progress,
            matcher,
            request,
            cursor,
            ready,
        })
    }

    /// Numbers about the hub.
    pub fn status(&self) -> HubStatus {
        let num_flows = lock(&self.shared.ring).len() as u64;
        let state = lock(&self.shared.state);
        HubStatus {
            num_flows,
            max_flows: self.shared.capacity as u64,
            seen_flows: state.seen,
            observers: self.shared.progress.receiver_count(),
            lost: state.lost,
            sampled: state.sampled,
            sampling_now: state
                .last_sampled
                .is_some_and(|last| last.elapsed() < SAMPLING_MEMORY),
            problem: state.problem.clone(),
        }
    }

    /// Stops the threads and ends every observation. Takes at most the poll time, and what one explanation takes.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.stopping.notify_all();
        self.shared.explained.stop();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            if thread.join().is_err() {
                tracing::error!("a thread that reads flows has panicked");
            }
        }
        self.shared
            .progress
            .send_modify(|progress| progress.stopped = true);
    }
}

impl Drop for FlowHub {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Losses of one source that no line has told yet.
struct Loss {
    source: LossSource,
    untold: u64,
    told: Option<Instant>,
}

/// The thread's own state.
struct Reader {
    shared: Arc<Shared>,
    datapath: Arc<dyn Datapath>,
    resolver: Arc<dyn Resolver>,
    poll: Duration,
    seed: u128,
    count: u128,
    losses: Vec<Loss>,
}

impl Reader {
    fn run(mut self) {
        let mut events = Vec::new();
        while !self.shared.stop.load(Ordering::SeqCst) {
            events.clear();
            match self.datapath.poll_events(self.poll, &mut events) {
                Ok((ring_full, sampled)) => {
                    self.shared.metrics.sampled(sampled);
                    {
                        let mut state = lock(&self.shared.state);
                        state.problem = None;
                        state.lost += ring_full;
                        state.sampled += sampled;
                        if sampled > 0 {
                            state.last_sampled = Some(Instant::now());
                        }
                    }
                    // What was left out on purpose is counted, and not lost.
                    self.lose(LossSource::PerfEventRingBuffer, ring_full);
                    self.take(&events);
                }
                Err(error) => self.complain(&error.to_string()),
            }
        }
    }

    /// Says once what is wrong, and waits before the next try.
    fn complain(&self, problem: &str) {
        let mut state = lock(&self.shared.state);
        if state.problem.as_deref() != Some(problem) {
            tracing::error!(node = self.shared.node, problem, "flows cannot be read");
            state.problem = Some(problem.to_owned());
        }
        let stop = &self.shared.stop;
        let _unlocked = self
            .shared
            .stopping
            .wait_timeout_while(state, RETRY, |_| !stop.load(Ordering::SeqCst));
    }

    fn lose(&mut self, source: LossSource, number: u64) {
        if number == 0 {
            return;
        }
        self.shared.metrics.lost(source, number);
        match self.losses.iter_mut().find(|loss| loss.source == source) {
            Some(loss) => loss.untold += number,
            None => self.losses.push(Loss {
                source,
                untold: number,
                told: None,
            }),
        }
    }

    /// Decodes events and makes them, and what was lost, visible.
    fn take(&mut self, events: &[Event]) {
        let now = wall_clock();
        let boot = now.earlier(self.datapath.now());
        let mut records = Vec::with_capacity(events.len());
        for loss in &mut self.losses {
            let due = loss.told.is_none_or(|told| told.elapsed() >= LOSS_INTERVAL);
            if loss.untold > 0 && due {
                records.push(self.shared.lost(loss.source, loss.untold, now));
                loss.untold = 0;
                loss.told = Some(Instant::now());
            }
        }
        // Behind what waits for its explanation goes what follows on the same connection.
        let mut waiting = Vec::new();
        let mut connections = HashSet::new();
        for event in events {
            self.count += 1;
            let context = Context {
                node: &self.shared.node,
                boot,
                unique: self.seed | self.count,
            };
            let flow = decode(event, &context, self.resolver.as_ref());
            self.shared.metrics.flow(&flow);
            let (connection, denied) = (Connection::of(event), denial(event));
            let waits = denied.is_some()
                || connections.contains(&connection)
                || self.shared.explained.has(&connection);
            if waits {
                connections.insert(connection);
                waiting.push(Pending {
                    connection,
                    denied,
                    flow,
                });
            } else {
                records.push(self.shared.record(flow));
            }
        }
        self.shared.publish(records);
        for pending in waiting {
            let is_denied = pending.denied.is_some();
            let flow = match self.shared.explained.offer(pending) {
                Offer::Queued => continue,
                Offer::Passed(flow) => flow,
                Offer::Full(flow) => {
                    if is_denied {
                        self.shared.metrics.unexplained();
                    }
                    flow
                }
            };
            self.shared.publish(vec![self.shared.record(flow)]);
        }
    }
}

/// Explains what waits for it, until the hub stops.
fn explain(shared: &Shared, explainer: &dyn Explainer) {
    while let Some(pending) = shared.explained.next() {
        let connection = pending.connection;
        let flow = pending.explained(explainer);
        shared.publish(vec![shared.record(flow)]);
        shared.explained.done(&connection);
    }
}

impl Shared {
    fn record(&self, flow: Flow) -> Arc<Response> {
        Arc::new(Response {
            node_name: self.node.clone(),
            time: flow.time,
            line: Line::Flow(Box::new(flow)),
        })
    }

    /// Makes records visible, in their order.
    fn publish(&self, records: Vec<Arc<Response>>) {
        if records.is_empty() {
            return;
        }
        let flows = records.iter().filter(|record| record.flow().is_some());
        let flows = flows.count() as u64;
        let written = {
            let mut ring = lock(&self.ring);
            for record in records {
                ring.push(record);
            }
            ring.next()
        };
        lock(&self.state).seen += flows;
        self.progress
            .send_modify(|progress| progress.written = progress.written.max(written));
    }

    fn lost(&self, source: LossSource, number: u64, time: Timestamp) -> Arc<Response> {
        Arc::new(Response {
            line: Line::LostEvents(LostEvents {
                source,
                num_events_lost: number,
            }),
            node_name: self.node.clone(),
            time,
        })
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// One observer's stream.
pub struct Observation {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    matcher: Matcher,
    request: ObserveRequest,
    cursor: u64,
    ready: VecDeque<Arc<Response>>,
}

impl Observation {
    /// The next line; `None` at the end of the past, or for a follower when `until` has come or the hub
    /// stops. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<Response>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            if !self.request.follow {
                return None;
            }
            let progress = *self.progress.borrow_and_update();
            if progress.written > self.cursor {
                self.fetch();
                // A follower whose filter matches little must not keep its thread to itself.
                tokio::task::yield_now().await;
                continue;
            }
            if progress.stopped {
                return None;
            }
            let changed = match self.request.until {
                None => self.progress.changed().await.is_ok(),
                Some(until) => {
                    let left = Duration::from_nanos(until.0.saturating_sub(wall_clock().0));
                    if left.is_zero() {
                        return None;
                    }
                    tokio::time::timeout(left, self.progress.changed())
                        .await
                        .is_ok_and(|changed| changed.is_ok())
                }
            };
            if !changed && self.request.until.is_none() {
                return None;
            }
        }
    }

    /// Takes new records out of the ring, and says how many were overwritten before.
    fn fetch(&mut self) {
        let batch = lock(&self.shared.ring).read(self.cursor, BATCH);
        self.cursor = batch.next;
        if batch.missed > 0 {
            self.shared
                .metrics
                .lost(LossSource::HubbleRingBuffer, batch.missed);
            self.ready.push_back(self.shared.lost(
                LossSource::HubbleRingBuffer,
                batch.missed,
                wall_clock(),
            ));
        }
        let (request, matcher) = (&self.request, &self.matcher);
        let shown = batch
            .records
            .into_iter()
            .filter(|record| request.is_within(record) && matcher.shows(record));
        self.ready.extend(shown);
    }
}

#[cfg(test)]
mod tests;
