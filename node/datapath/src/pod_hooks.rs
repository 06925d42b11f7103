//! Programs on pods' links: in force at once, by tcx soon after.
//!
//! To put a program on a tcx hook takes an RCU grace period (10 ms and more), during which nobody on the
//! machine can change any link. So a new pod's link first gets clsact filters, which take none. When no pod
//! has come for a moment, a thread attaches the same programs by tcx and removes the filters. A tcx
//! program's verdict is final, so each packet meets one of the two, and there is no moment without.

use crate::{
    DatapathError,
    attach::{self, Attachment, Hook},
    background::BackgroundWorker,
    maps::lock,
    netlink::Netlink,
};
use aya::Ebpf;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

/// How long no pod must have come before links are settled.
const QUIET: Duration = Duration::from_millis(500);

/// One step from clsact filters to tcx.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SettleStep {
    /// Returns when every packet that met the hook without the program is through.
    AttachTcx,
    /// The filter goes, not its qdisc.
    RemoveClsact,
}

/// How a link is settled.
pub(crate) const SETTLE_STEPS: [SettleStep; 2] = [SettleStep::AttachTcx, SettleStep::RemoveClsact];

/// What the callers and the thread share.
struct Shared {
    object: Arc<Mutex<Ebpf>>,
    hook: Hook,
    quick: bool,
    links: PathBuf,
    netlink: Netlink,
    /// Interfaces that have clsact filters and are to have tcx links.
    pending: Mutex<BTreeSet<String>>,
    /// Held while a link is settled, so that it is not removed meanwhile.
    settling: Mutex<()>,
}

/// Attaches programs to pods' links.
pub(crate) struct PodHooks {
    shared: Arc<Shared>,
    worker: BackgroundWorker,
}

/// A pod's programs: what leaves the pod comes in by the host side of its link.
fn programs(interface: &str) -> [Attachment<'_>; 2] {
    [("from_pod", true), ("to_pod", false)].map(|(program, ingress)| Attachment {
        program,
        interface,
        ingress,
    })
}

impl PodHooks {
    /// To be called in the node's network namespace.
    pub(crate) fn open(
        object: Arc<Mutex<Ebpf>>,
        hook: Hook,
        quick: bool,
        links: &Path,
    ) -> Result<Self, DatapathError> {
        let shared = Arc::new(Shared {
            object,
            hook,
            quick,
            links: links.to_owned(),
            netlink: Netlink::open()?,
            pending: Mutex::default(),
            settling: Mutex::default(),
        });
        let worker = BackgroundWorker::start("pod-hooks", {
            let shared = Arc::clone(&shared);
            move |woken| shared.settle_when_quiet(&woken)
        })?;
        Ok(Self { shared, worker })
    }

    /// Puts a pod's programs in force on the host side of its link, or in the place of those there.
    pub(crate) fn attach(&self, interface: &str) -> Result<(), DatapathError> {
        let shared = &self.shared;
        if shared.hook == Hook::Clsact || !shared.quick || shared.is_settled(interface) {
            return shared.attach(shared.hook, interface);
        }
        shared.attach(Hook::Clsact, interface)?;
        lock(&shared.pending).insert(interface.to_owned());
        self.worker.wake();
        Ok(())
    }

    /// Whether a link has a pod's programs.
    pub(crate) fn is_attached(&self, interface: &str) -> bool {
        // In this order: an interface is pending until it is settled.
        self.shared.hook == Hook::Clsact
            || lock(&self.shared.pending).contains(interface)
            || self.shared.is_settled(interface)
    }

    /// Forgets a link that is about to be removed: nothing is attached to it afterwards.
    pub(crate) fn forget(&self, interface: &str) {
        let _settling = lock(&self.shared.settling);
        lock(&self.shared.pending).remove(interface);
    }

    /// Removes the pins of a link that is gone; those that are not there are no error.
    pub(crate) fn remove_pins(&self, interface: &str) -> Result<(), DatapathError> {
        let links = &self.shared.links;
        for pin in programs(interface).iter().flat_map(|what| what.pins(links)) {
            match std::fs::remove_file(&pin) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DatapathError::Failed {
                        doing: "remove pin",
                        object: pin.display().to_string(),
                        reason: error.to_string(),
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Shared {
    fn is_settled(&self, interface: &str) -> bool {
        programs(interface)
            .iter()
            .all(|what| what.pin(&self.links).exists())
    }

    fn attach(&self, hook: Hook, interface: &str) -> Result<(), DatapathError> {
        let mut object = lock(&self.object);
        programs(interface)
            .into_iter()
            .try_for_each(|what| attach::attach(&mut object, hook, &self.links, what))
    }

    fn settle_when_quiet(&self, woken: &mpsc::Receiver<()>) {
        while woken.recv().is_ok() {
            loop {
                match woken.recv_timeout(QUIET) {
                    Ok(()) => continue,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                }
                if self.settle_until_woken(woken) {
                    break;
                }
            }
        }
    }

    /// Settles one link after the other; false when a pod came in between.
    fn settle_until_woken(&self, woken: &mpsc::Receiver<()>) -> bool {
        // They stay pending, to be tried again when the next pod has come.
        let mut refused = BTreeSet::new();
        loop {
            let _settling = lock(&self.settling);
            let next = lock(&self.pending).difference(&refused).next().cloned();
            let Some(interface) = next else {
                return true;
            };
            match self.settle(&interface) {
                Ok(()) => {
                    lock(&self.pending).remove(&interface);
                }
                Err(error) => {
                    tracing::warn!(%interface, %error, "the link keeps its clsact filters, which enforce the same");
                    refused.insert(interface);
                }
            }
            if woken.try_recv().is_ok() {
                return false;
            }
        }
    }

    fn settle(&self, interface: &str) -> Result<(), DatapathError> {
        if self.netlink.link(interface)?.is_none() {
            return Ok(());
        }
        for step in SETTLE_STEPS {
            match step {
                SettleStep::AttachTcx => self.attach(Hook::Tcx, interface)?,
                SettleStep::RemoveClsact => programs(interface)
                    .into_iter()
                    .try_for_each(attach::remove_clsact_filter)?,
            }
        }
        Ok(())
    }
}
