//! What tests use instead of a kernel, and how they cut an ADD short.

mod fake;
mod flaky;
mod node;

pub(crate) use fake::FakeDatapath;
pub(crate) use flaky::FlakyStore;
pub(crate) use node::{Node, eventually, soon};

use crate::endpoint::step::Step;
use heddle_model::{Identity, LabelSet};
use heddle_rpc::ApiError;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// How a step ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// It fails, and the agent goes on.
    Fail,
    /// The agent dies there: nothing more is done.
    Crash,
}

/// Steps at which something goes wrong.
#[derive(Default)]
pub(crate) struct Faults {
    planned: Mutex<Option<(Step, Cut)>>,
    /// Rung when a crash has come.
    pub(crate) crashed: Arc<Notify>,
}

impl Faults {
    pub(crate) fn plan(&self, step: Step, cut: Cut) {
        *self.planned.lock().unwrap() = Some((step, cut));
    }

    pub(crate) async fn reach(&self, step: Step) -> Result<(), ApiError> {
        let planned = self.planned.lock().unwrap().take_if(|(at, _)| *at == step);
        match planned {
            None => Ok(()),
            Some((_, Cut::Fail)) => Err(ApiError::new("test/fault", format!("fault at {step:?}"))),
            Some((_, Cut::Crash)) => {
                self.crashed.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// A CiliumIdentity of a pod of `shop`.
pub(crate) fn identity(number: u32, app: &str) -> Value {
    let labels = LabelSet::from_strings([
        format!("k8s:app={app}").as_str(),
        "k8s:io.kubernetes.pod.namespace=shop",
    ])
    .unwrap();
    heddle_kube::identity::identity_object(Identity(number), &labels)
}

/// A Node object beside this node's, with pod ranges of both families.
pub(crate) fn second_node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n2" },
        "spec": { "podCIDRs": ["10.244.2.0/24", "fd10:244:0:2::/64"] },
        "status": { "addresses": [
            { "type": "InternalIP", "address": "192.168.0.2" },
            { "type": "InternalIP", "address": "fd00::2" },
        ] },
    })
}
