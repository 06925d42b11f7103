//! An endpoint of the kernel that no record names, or a record that cannot be read.

use super::record::{AttachmentKey, Records};
use heddle_datapath::Facts;
use heddle_ipam::Owner;
use std::path::PathBuf;

/// An endpoint without a record, a file that cannot be read, or both.
#[derive(Clone, Debug)]
pub(crate) struct Orphan {
    /// The kernel's endpoint, if it has one.
    pub(crate) endpoint: Option<u16>,
    /// The damaged file and its name without endings.
    pub(crate) file: Option<(PathBuf, String)>,
    /// Under whose name its addresses are reserved.
    pub(crate) owner: Owner,
}

impl Orphan {
    /// What the kernel has of an endpoint.
    pub(super) fn of_kernel(facts: &Facts, file: Option<(PathBuf, String)>) -> Self {
        Self {
            endpoint: Some(facts.endpoint),
            file,
            // No container has such an id and interface.
            owner: Owner::new(format!("endpoint {}", facts.endpoint), "kernel"),
        }
    }

    pub(super) fn tells_attachment(&self) -> bool {
        let file = self.file.as_ref();
        file.is_some_and(|(_, stem)| stem.contains('@'))
    }

    pub(super) fn is_of(&self, key: &AttachmentKey) -> bool {
        let file = self.file.as_ref();
        file.is_some_and(|(_, stem)| Records::is_about(stem, key))
    }
}
