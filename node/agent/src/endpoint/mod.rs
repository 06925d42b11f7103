//! Endpoints: attaching pods, detaching them, and taking over those of a former run.

mod add;
pub(crate) mod addresses;
mod attachments;
mod check;
mod enforce;
pub(crate) mod orphan;
mod orphans;
pub(crate) mod pods;
mod publish;
pub(crate) mod record;
mod remove;
mod restore;
pub(crate) mod step;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub(crate) use add::add;
#[cfg(test)]
pub(crate) use add::add_alone;
pub(crate) use attachments::Attachments;
pub(crate) use check::check;
pub(crate) use publish::Publisher;
pub(crate) use remove::{Removals, collect_garbage, delete};
pub(crate) use restore::Restoration;

use heddle_datapath::DatapathError;
use heddle_rpc::{ApiError, error_codes};

/// A kernel failure in the words of the API.
pub(crate) fn kernel_failure(error: &DatapathError) -> ApiError {
    match error {
        DatapathError::NoNamespace { .. } => {
            ApiError::new(error_codes::NO_NAMESPACE, error.to_string())
                .help("the container's network namespace must exist until DEL")
        }
        DatapathError::MapFull { .. } => ApiError::new("datapath/map-full", error.to_string())
            .help("raise the map's size in the agent's configuration; nothing was opened"),
        DatapathError::OtherVersion { help, .. } => {
            ApiError::new("datapath/other-version", error.to_string()).help(help.clone())
        }
        DatapathError::Failed { .. } => ApiError::new("datapath/failed", error.to_string())
            .help("see the agent's log and `heddle status`"),
    }
}
