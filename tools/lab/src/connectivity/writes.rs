//! What is being created: a test that is cut short lets it through, or it would come to be after the removal.

use crate::LabError;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

/// Counts the creations under way.
#[derive(Default)]
pub(super) struct Writes {
    stopped: AtomicBool,
    under_way: watch::Sender<usize>,
}

/// A creation under way, until it is dropped.
pub(super) struct Write<'a>(&'a Writes);

impl Writes {
    /// # Errors
    ///
    /// [`LabError::Interrupted`] once they are stopped.
    pub(super) fn begin(&self) -> Result<Write<'_>, LabError> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(LabError::Interrupted {
                what: "the connectivity test".into(),
            });
        }
        self.under_way.send_modify(|count| *count += 1);
        Ok(Write(self))
    }

    /// Lets none begin any more, and waits for those under way. Whoever does them must go on meanwhile.
    pub(super) async fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // The sender is this value's own, so it never ends before.
        let _ = self
            .under_way
            .subscribe()
            .wait_for(|count| *count == 0)
            .await;
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_stop_waits_for_what_is_under_way_and_lets_nothing_begin() {
        let writes = Writes::default();
        let write = writes.begin().unwrap();
        let mut context = Context::from_waker(Waker::noop());
        let mut stop = pin!(writes.stop());
        assert!(stop.as_mut().poll(&mut context).is_pending());
        assert!(writes.begin().is_err());
        drop(write);
        assert_eq!(stop.as_mut().poll(&mut context), Poll::Ready(()));
    }
}
