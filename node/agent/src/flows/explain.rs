//! Denied flows that wait for their explanation: a bounded queue in front of one thread, so that the thread that
//! reads events never waits for whoever explains.

use heddle_abi::Event;
use heddle_flow::{Denied, Extensions, Flow, NearestAllow};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Says what nearly allowed a denied connection.
pub trait Explainer: Send + Sync {
    /// The allows that came nearest, by the policy that was in force then; empty when that is not known (any more).
    /// It may wait.
    fn nearest(&self, denied: &Denied) -> Vec<NearestAllow>;
}

/// Both ends of a connection with their ports, whichever way a packet travels, and the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Connection([(IpAddr, u16); 2], u8);

impl Connection {
    pub(super) fn of(event: &Event) -> Self {
        let mut ends = [
            (event.source.into(), event.source_port),
            (event.destination.into(), event.destination_port),
        ];
        ends.sort_unstable();
        Self(ends, event.protocol)
    }
}

/// A flow on its way.
pub(super) struct Pending {
    pub(super) connection: Connection,
    /// What is to be explained of it.
    pub(super) denied: Option<Denied>,
    pub(super) flow: Flow,
}

impl Pending {
    /// The flow with what nearly allowed it.
    pub(super) fn explained(mut self, explainer: &dyn Explainer) -> Flow {
        if let Some(denied) = &self.denied {
            let nearest = explainer.nearest(denied);
            self.flow.extensions = (!nearest.is_empty()).then(|| Extensions::nearest(nearest));
        }
        self.flow
    }
}

#[derive(Default)]
struct State {
    flows: VecDeque<Pending>,
    /// How many flows of a connection are here, the one that is being explained included.
    connections: HashMap<Connection, usize>,
    stopped: bool,
}

/// What an offer came to.
pub(super) enum Offer {
    /// The flow waits for its turn.
    Queued,
    /// It goes on as it is: nothing is to be explained, and no flow of its connection waits.
    Passed(Flow),
    /// It goes on without explanation, because the queue is full.
    Full(Flow),
}

/// Flows that wait, and those of the same connections behind them.
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    capacity: usize,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            arrived: Condvar::new(),
            capacity,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a flow of a connection waits.
    pub(super) fn has(&self, connection: &Connection) -> bool {
        self.state().connections.contains_key(connection)
    }

    /// Takes a flow that is to be explained, or that follows one. Never waits.
    pub(super) fn offer(&self, pending: Pending) -> Offer {
        let mut state = self.state();
        if pending.denied.is_none() && !state.connections.contains_key(&pending.connection) {
            return Offer::Passed(pending.flow);
        }
        if state.flows.len() >= self.capacity {
            return Offer::Full(pending.flow);
        }
        *state.connections.entry(pending.connection).or_default() += 1;
        state.flows.push_back(pending);
        self.arrived.notify_one();
        Offer::Queued
    }

    /// The next flow; waits for one. `None` after [`Self::stop`].
    pub(super) fn next(&self) -> Option<Pending> {
        let state = self.state();
        let mut state = self
            .arrived
            .wait_while(state, |state| state.flows.is_empty() && !state.stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return None;
        }
        state.flows.pop_front()
    }

    /// A flow that [`Self::next`] gave has gone on.
    pub(super) fn done(&self, connection: &Connection) {
        let mut state = self.state();
        if let Some(count) = state.connections.get_mut(connection) {
            *count -= 1;
            if *count == 0 {
                state.connections.remove(connection);
            }
        }
    }

    /// Nothing waits, though something may be being explained.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.flows.is_empty() && !state.connections.is_empty()
    }

    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.arrived.notify_all();
    }
}
