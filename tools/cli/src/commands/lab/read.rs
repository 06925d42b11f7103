//! What the lab commands that read answer from: a lab that runs, or a dump of one.

use super::{Which, unanswered};
use crate::dump::Dump;
use crate::failure::{Failure, USAGE};
use clap::Args;
use heddle_kube::store::{Kind, Store};
use heddle_lab::paths::Lab;
use heddle_lab::{events, status, time};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// What to answer from.
#[derive(Args)]
pub struct ReadFrom {
    #[command(flatten)]
    pub(super) which: Which,
    /// Answers from a dump that `heddle sysdump` made, instead of from a lab that runs; --lab does not count then.
    #[arg(long, visible_alias = "from-dump", value_name = "FILE")]
    from: Option<PathBuf>,
}

/// A lab that is read.
pub(super) struct Reading {
    pub(super) lab: Lab,
    dump: Option<Arc<Dump>>,
}

impl ReadFrom {
    /// Finds it.
    pub(super) fn open(&self) -> Result<Reading, Failure> {
        if let Some(path) = &self.from {
            let dump = Dump::open(path)?;
            return Ok(Reading {
                lab: dump.lab()?,
                dump: Some(dump),
            });
        }
        let (lab, _) = self.which.existing().map_err(unanswered)?;
        Ok(Reading { lab, dump: None })
    }
}

impl Reading {
    /// Its store, as far as these kinds go.
    pub(super) fn store(&self, kinds: &[Kind]) -> Result<Arc<dyn Store>, Failure> {
        Ok(match &self.dump {
            Some(dump) => Arc::new(dump.store(kinds)?),
            None => Arc::new(heddle_kube::store::embedded::Client::new(
                self.lab.store_socket(),
            )),
        })
    }

    /// Its events.
    pub(super) fn events(&self) -> Result<Vec<Value>, Failure> {
        match &self.dump {
            Some(dump) => dump.events(),
            None => Ok(events::read(&self.lab)),
        }
    }

    /// What it calls now, in seconds since 1970: of a dump the time of that.
    pub(super) fn now(&self) -> u64 {
        let dump = self.dump.as_ref();
        dump.map_or_else(time::now, |dump| dump.time().0 / 1_000_000_000)
    }

    /// Its status.
    pub(super) async fn status(&self) -> Result<status::Report, Failure> {
        match &self.dump {
            Some(dump) => status::Report::deserialize(dump.lab_status()?).map_err(|error| {
                Failure::new("sysdump/malformed", format!("the lab's status: {error}"))
                    .object(dump.path())
                    .help("read it with the version of heddle that made it")
                    .exit(USAGE)
            }),
            None => {
                let store = self.store(&[])?;
                let report = status::look(&self.lab, store.as_ref()).await;
                report.map_err(|error| unanswered(super::failure(error)))
            }
        }
    }

    /// Fails for a dump, in which nothing changes.
    pub(super) fn must_change(&self) -> Result<(), Failure> {
        let Some(dump) = &self.dump else {
            return Ok(());
        };
        Err(Failure::new(
            "sysdump/no-future",
            format!(
                "the dump {} ends with the time it was made: nothing changes in it",
                dump.path()
            ),
        )
        .field("--watch")
        .help("leave --watch out")
        .exit(USAGE))
    }
}
