//! A node's container runtime as the network sees it: which verb its plugins are asked, and when.

use crate::LabError;
use crate::pod::cni::{Attachment, Chain};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::RwLock;

/// The version of CNI that brought CHECK.
const CHECK: &str = "0.4.0";
/// The version of CNI that brought STATUS and GC.
const STATUS_AND_GC: &str = "1.1.0";

/// A node's runtime.
#[derive(Debug)]
pub struct Runtime {
    chain: Chain,
    /// GC must not run beside ADD or DEL (specification, section 4): those share it, GC has it alone.
    turn: RwLock<()>,
    /// Container id and interface of what is attached, or is being attached or detached.
    attachments: Mutex<BTreeSet<(String, String)>>,
}

/// What came of an attachment.
#[derive(Clone, PartialEq, Debug)]
pub struct Attached {
    /// The result of ADD.
    pub result: Value,
    /// What CHECK found wrong.
    pub complaint: Option<String>,
}

fn key(attachment: &Attachment) -> (String, String) {
    (
        attachment.container_id.clone(),
        attachment.interface.clone(),
    )
}

impl Runtime {
    /// A runtime that has attached nothing yet.
    pub fn new(chain: Chain) -> Self {
        Self {
            chain,
            turn: RwLock::new(()),
            attachments: Mutex::default(),
        }
    }

    fn attachments(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.attachments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the plugins whether they can serve; plugins of a version without STATUS always can.
    pub async fn status(&self) -> Result<(), LabError> {
        if self.chain.speaks(STATUS_AND_GC) {
            self.chain.status().await?;
        }
        Ok(())
    }

    /// Attaches a sandbox: STATUS, ADD, and one CHECK of what ADD has made. After a failure the caller
    /// detaches. What CHECK finds wrong is no failure: it is told, and the pod runs, because the CHECK of
    /// some plugins in use is wrong itself (portmap's with two families, bandwidth's without limits, both
    /// in version 1.1.1).
    pub async fn attach(&self, attachment: &Attachment) -> Result<Attached, LabError> {
        self.status().await?;
        let _turn = self.turn.read().await;
        self.attachments().insert(key(attachment));
        let result = self.chain.add(attachment).await?;
        let mut complaint = None;
        if self.chain.speaks(CHECK) && self.chain.configuration["disableCheck"] != true {
            let checked = self.chain.check(attachment, &result).await;
            complaint = checked.err().map(|error| error.to_string());
        }
        Ok(Attached { result, complaint })
    }

    /// Detaches a sandbox, with the result of its ADD if there was one.
    pub async fn detach(
        &self,
        attachment: &Attachment,
        result: Option<&Value>,
    ) -> Result<(), LabError> {
        let _turn = self.turn.read().await;
        self.chain.delete(attachment, result).await?;
        self.attachments().remove(&key(attachment));
        Ok(())
    }

    /// Lets the plugins remove what this runtime does not know: what a former one left.
    pub async fn collect_garbage(&self) -> Result<(), LabError> {
        if !self.chain.speaks(STATUS_AND_GC) || self.chain.configuration["disableGC"] == true {
            return Ok(());
        }
        let _turn = self.turn.write().await;
        let valid: Vec<_> = self.attachments().iter().cloned().collect();
        self.chain.collect_garbage(&valid).await
    }
}
