//! A background worker: a thread for work that nobody waits for.

use crate::DatapathError;
use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

/// A thread that works when it is woken; dropping this ends it and waits for its end, so that whoever opens
/// the datapath next finds nobody at work on it.
pub(crate) struct BackgroundWorker {
    name: &'static str,
    /// Dropped first: that is what the thread ends by.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BackgroundWorker {
    /// Starts a thread whose work ends when the receiver says that nobody is left to wake it.
    pub(crate) fn start(
        name: &'static str,
        work: impl FnOnce(Receiver<()>) + Send + 'static,
    ) -> Result<Self, DatapathError> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(woken))
            .map_err(|error| DatapathError::Failed {
                doing: "start thread",
                object: name.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            name,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Wakes it. One that has been woken already looks at everything anyway.
    pub(crate) fn wake(&self) {
        let _ = self.wake.as_ref().map(|wake| wake.try_send(()));
    }
}

impl Drop for BackgroundWorker {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(thread = self.name, "it ended early");
        }
    }
}
