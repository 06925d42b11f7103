//! Attaching programs: tcx links that are pinned, so that they outlive the agent and are updated in one
//! step; clsact filters where the kernel has no tcx.

use crate::{DatapathError, object::chain, pinned_link};
use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, TestRun, TestRunOptions,
        links::{FdLink, Link as _, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
    util::KernelVersion,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Priority and handle of Heddle's clsact filters.
const FILTER: (u16, TcHandle) = (1, TcHandle::new(0, 0x4844));

/// How programs are attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hook {
    /// tcx links (Linux 6.6 and later).
    Tcx,
    /// clsact filters.
    Clsact,
}

/// What to attach where.
#[derive(Clone, Copy)]
pub(crate) struct Attachment<'a> {
    pub(crate) program: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) ingress: bool,
}

impl Attachment<'_> {
    /// All pins that there can be.
    pub(crate) fn pins(&self, links: &Path) -> [PathBuf; 2] {
        [self.pin_beside(links), self.pin(links)]
    }

    fn direction(&self) -> TcAttachType {
        if self.ingress {
            TcAttachType::Ingress
        } else {
            TcAttachType::Egress
        }
    }

    /// Where its link is pinned. A bpffs takes no dot in a name, and no interface has a colon in its.
    pub(crate) fn pin(&self, links: &Path) -> PathBuf {
        links.join(format!(
            "{}-{}",
            self.interface.replace('.', ":"),
            if self.ingress { "ingress" } else { "egress" }
        ))
    }

    /// Where a link is pinned that is to take the place of the one at [`Self::pin`].
    fn pin_beside(&self, links: &Path) -> PathBuf {
        let mut pin = self.pin(links).into_os_string();
        pin.push("-next");
        pin.into()
    }

    fn failed(&self, error: &dyn std::error::Error) -> DatapathError {
        DatapathError::Failed {
            doing: "attach program",
            object: format!("{} to {}", self.program, self.interface),
            reason: chain(error),
        }
    }
}

/// The way this kernel offers.
pub(crate) fn probe(force_clsact: bool) -> Hook {
    let has_tcx =
        KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0));
    if has_tcx && !force_clsact {
        Hook::Tcx
    } else {
        Hook::Clsact
    }
}

/// Attaches a program, or puts it in the place of the one that is attached there already.
pub(crate) fn attach(
    object: &mut Ebpf,
    hook: Hook,
    links: &Path,
    what: Attachment<'_>,
) -> Result<(), DatapathError> {
    let program: &mut SchedClassifier = match object.program_mut(what.program) {
        Some(program) => program.try_into().map_err(|error| what.failed(&error))?,
        None => {
            return Err(DatapathError::Failed {
                doing: "find program",
                object: what.program.to_owned(),
                reason: "it is not in the object".to_owned(),
            });
        }
    };
    match hook {
        Hook::Tcx => attach_tcx(program, links, what),
        Hook::Clsact => attach_clsact(program, what),
    }
}

fn attach_tcx(
    program: &mut SchedClassifier,
    links: &Path,
    what: Attachment<'_>,
) -> Result<(), DatapathError> {
    let failed = |error: &dyn std::error::Error| what.failed(error);
    let (pin, beside) = (what.pin(links), what.pin_beside(links));
    if let Ok(pinned) = PinnedLink::from_pin(&pin) {
        let link: Result<SchedClassifierLink, _> = FdLink::from(pinned).try_into();
        if let Ok(Ok(updated)) = link.map(|link| program.attach_to_link(link)) {
            // The pin stays: the link is the same.
            program.take_link(updated).map_err(|error| failed(&error))?;
            return pinned_link::detach(&beside).map_err(|error| failed(&error));
        }
    }
    // A link that cannot be updated, as one whose interface is gone, gives way to a new one: which is attached
    // first, behind it, so that whatever fails leaves the old program where it is.
    let attached = program
        .attach_with_options(
            what.interface,
            what.direction(),
            TcAttachOptions::TcxOrder(LinkOrder::default()),
        )
        .map_err(|error| failed(&error))?;
    let link = program
        .take_link(attached)
        .map_err(|error| failed(&error))?;
    let link: FdLink = link.try_into().map_err(|error| failed(&error))?;
    // Left by an end between the two.
    pinned_link::detach(&beside).map_err(|error| failed(&error))?;
    link.pin(&beside).map_err(|error| failed(&error))?;
    pinned_link::replace(&beside, &pin).map_err(|error| failed(&error))
}

fn attach_clsact(program: &mut SchedClassifier, what: Attachment<'_>) -> Result<(), DatapathError> {
    // Refused when it is there already.
    let _ = qdisc_add_clsact(what.interface);
    let (priority, handle) = FILTER;
    let options = NlOptions {
        priority,
        handle,
        classid: None,
    };
    let attached =
        SchedClassifierLink::attached(what.interface, what.direction(), priority, handle, None)
            .map_err(|error| what.failed(&error))
            .and_then(|link| {
                program
                    .attach_to_link(link)
                    .map_err(|error| what.failed(&error))
            });
    let attached = match attached {
        Ok(attached) => attached,
        Err(_) => program
            .attach_with_options(
                what.interface,
                what.direction(),
                TcAttachOptions::Netlink(options),
            )
            .map_err(|error| what.failed(&error))?,
    };
    let link = program
        .take_link(attached)
        .map_err(|error| what.failed(&error))?;
    // A filter stays until its interface goes; dropping the link would remove it.
    std::mem::forget(link);
    Ok(())
}

/// Takes a program off; where it is not attached nothing is to be done.
pub(crate) fn detach(hook: Hook, links: &Path, what: Attachment<'_>) -> Result<(), DatapathError> {
    match hook {
        Hook::Tcx => what
            .pins(links)
            .iter()
            .try_for_each(|pin| pinned_link::detach(pin))
            .map_err(|error| what.failed(&error)),
        Hook::Clsact => remove_clsact_filter(what),
    }
}

/// Removes the clsact filter of a program that is attached by tcx too; without one nothing is to be done.
///
/// The qdisc stays: to remove it the kernel takes the link's transmit queues out of service for a moment
/// (`dev_deactivate` in net/sched/sch_api.c), and what the node's stack sends then is lost.
pub(crate) fn remove_clsact_filter(what: Attachment<'_>) -> Result<(), DatapathError> {
    let (priority, handle) = FILTER;
    let removed =
        SchedClassifierLink::attached(what.interface, what.direction(), priority, handle, None)
            .map_err(|error| what.failed(&error))?
            .detach();
    match removed {
        Err(ProgramError::NetlinkError(error))
            // No such filter; no such qdisc.
            if ![nix::errno::Errno::ENOENT, nix::errno::Errno::EINVAL]
                .map(|it| Some(it as i32))
                .contains(&error.raw_os_error()) =>
        {
            Err(DatapathError::Failed {
                doing: "remove clsact filter",
                object: what.interface.to_owned(),
                reason: chain(&error),
            })
        }
        _ => Ok(()),
    }
}

/// Bytes of the kernel's `struct __sk_buff`, and where the interface index stands in it (linux/bpf.h).
const CONTEXT_LENGTH: usize = 192;
const CONTEXT_IFINDEX: usize = 40;

/// What came of a program's runs on a frame.
pub(crate) struct Run {
    /// The last one's return code.
    pub(crate) code: u32,
    /// The frame after the last one.
    pub(crate) frame: Vec<u8>,
    /// Of one of them, on average.
    pub(crate) duration: Duration,
}

/// Runs a program on a frame that goes nowhere (`BPF_PROG_TEST_RUN`).
pub(crate) fn run(
    object: &mut Ebpf,
    name: &str,
    frame: &[u8],
    ifindex: u32,
    repeat: u32,
) -> Result<Run, DatapathError> {
    let failed = |reason: String| DatapathError::Failed {
        doing: "run program",
        object: name.to_owned(),
        reason,
    };
    let program: &mut SchedClassifier = object
        .program_mut(name)
        .ok_or_else(|| failed("it is not in the object".to_owned()))?
        .try_into()
        .map_err(|error| failed(chain(&error)))?;
    let mut context = [0; CONTEXT_LENGTH];
    context[CONTEXT_IFINDEX..CONTEXT_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    let mut out = vec![0; frame.len() + 256];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.ctx_in = Some(&context);
    options.repeat = repeat;
    let result = program
        .test_run(options)
        .map_err(|error| failed(chain(&error)))?;
    out.truncate(result.data_size_out as usize);
    Ok(Run {
        code: result.return_value,
        frame: out,
        duration: result.duration,
    })
}
