//! `heddle lab list`: the labs of this machine.

use crate::config::LabRecord;
use crate::control;
use crate::files;
use crate::paths::{Lab, existing_labs};
use heddle_agent::config::Fabric;
use heddle_kube::store::{Kind, Scope, Store, embedded::Client};
use heddle_kube::timestamp::rfc3339;
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};

/// How long a lab's processes may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How far a lab is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// `up` has ended well, and the lab's daemon answers.
    Up,
    /// `up` is under way, or ended early.
    HalfMade,
    /// It was up; its daemon is gone.
    DaemonGone,
}

/// A lab.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: State,
    /// Its nodes.
    pub nodes: usize,
    /// Its pods; null when its store does not answer.
    pub pods: Option<usize>,
    /// How pods' packets cross between nodes; null before that is on record.
    pub fabric: Option<Fabric>,
    /// When it was up, or half made (RFC 3339).
    pub since: Option<String>,
    /// Why it is not up; empty when it is.
    pub reason: String,
}

/// Every lab that has state on this machine, in the order of their names.
pub async fn list() -> Vec<Listed> {
    let mut listed = Vec::new();
    for name in existing_labs() {
        // What nobody could have made with `up` is no lab.
        if let Ok(lab) = Lab::named(&name) {
            listed.push(look(&lab).await);
        }
    }
    listed
}

async fn look(lab: &Lab) -> Listed {
    let read = files::read_json::<LabRecord>(&lab.record());
    let changed = std::fs::metadata(lab.record())
        .or_else(|_| std::fs::metadata(lab.state()))
        .and_then(|metadata| metadata.modified());
    let since = changed
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map(|since| rfc3339(since.as_secs()));
    let (record, unread) = match read {
        Ok(Some(record)) => (Some(record), String::new()),
        Ok(None) => (None, "it has no record yet".to_owned()),
        Err(error) => (None, error.to_string()),
    };
    let mut listed = Listed {
        name: lab.name().to_owned(),
        state: State::HalfMade,
        nodes: record.as_ref().map_or(0, |record| record.nodes.len()),
        pods: None,
        fabric: record.as_ref().map(|record| record.fabric),
        since,
        reason: unread,
    };
    match record {
        Some(record) if record.ready => {
            match control::standings_within(lab, ANSWER_TIMEOUT).await {
                Ok(_) => listed.state = State::Up,
                Err(error) => {
                    listed.state = State::DaemonGone;
                    listed.reason = error.to_string();
                }
            }
            let store = Client::new(lab.store_socket());
            let pods =
                tokio::time::timeout(ANSWER_TIMEOUT, store.list(&Scope::all(Kind::Pod))).await;
            listed.pods = pods.ok().and_then(Result::ok).map(|pods| pods.len());
        }
        Some(_) => listed.reason = "`lab up` is under way, or ended early".to_owned(),
        None => {}
    }
    listed
}
