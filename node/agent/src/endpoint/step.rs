//! The steps of an ADD.

/// The steps of an ADD, in order; each names what has been done when it is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    /// Addresses are leased, in memory.
    Leased,
    /// The intent is on the disk.
    Recorded,
    /// The pod's labels have an identity.
    Identified,
    /// The link exists, its host side down.
    LinkMade,
    /// Policy, facts and ipcache rows are written.
    InForce,
    /// The endpoint is in the store.
    Published,
    /// Programs are attached, the link is up.
    Attached,
    /// The result is on the disk.
    Committed,
}

impl Step {
    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Leased => "address",
            Self::Recorded => "record",
            Self::Identified => "identity",
            Self::LinkMade => "link",
            Self::InForce => "policy",
            Self::Published => "publish",
            Self::Attached => "attach",
            Self::Committed => "commit",
        }
    }

    /// Every step, in order.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Leased,
        Self::Recorded,
        Self::Identified,
        Self::LinkMade,
        Self::InForce,
        Self::Published,
        Self::Attached,
        Self::Committed,
    ];
}
