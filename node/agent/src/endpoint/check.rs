//! CHECK: is the attachment as it was answered?

use super::record::AttachmentKey;
use crate::agent::{Agent, blocking};
use heddle_rpc::cni::CheckParams;
use heddle_rpc::{ApiError, error_codes};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Compares an attachment with what the runtime was told and with the kernel.
pub(crate) async fn check(agent: &Arc<Agent>, params: CheckParams) -> Result<(), ApiError> {
    agent.health.must_be_ready()?;
    let key = AttachmentKey {
        container_id: params.container_id.clone(),
        interface: params.interface.clone(),
    };
    let wished = || {
        let key = key.clone();
        agent.on_ledger(move |ledger| {
            let endpoint = ledger.endpoints.by_key(&key)?;
            Some((endpoint.record.clone(), endpoint.facts.clone()))
        })
    };
    let failed = |what: String| {
        ApiError::new(
            error_codes::CHECK_FAILED,
            format!(
                "container {} interface {}: {what}",
                params.container_id, params.interface
            ),
        )
        .help("recreate the pod's sandbox")
    };
    let (record, mut facts) = wished()
        .await
        .ok_or_else(|| failed("it is not attached".to_owned()))?;
    if record.netns != params.netns {
        return Err(failed(format!(
            "it was attached in namespace {}, not {}",
            record.netns.display(),
            params.netns.display()
        )));
    }
    let has: BTreeSet<IpAddr> = record.addresses().collect();
    let told: BTreeSet<IpAddr> = params.addresses.iter().copied().collect();
    if has != told {
        return Err(failed(format!(
            "it has the addresses {has:?}, the previous result says {told:?}"
        )));
    }
    loop {
        let datapath = Arc::clone(&agent.datapath);
        let realised = blocking(move || datapath.endpoints())
            .await
            .map_err(|error| super::kernel_failure(&error))?;
        let it = realised
            .into_iter()
            .find(|it| it.facts.endpoint == record.endpoint)
            .ok_or_else(|| failed("the kernel does not have it".to_owned()))?;
        if !it.attached {
            return Err(failed("its programs are not attached".to_owned()));
        }
        if facts.as_ref() == Some(&it.facts) {
            return Ok(());
        }
        // A change of labels or policy between the two looks is no fault; each round needs another.
        let now = wished().await.and_then(|(_, facts)| facts);
        if now == facts {
            return Err(failed(
                "the kernel's facts about it differ (see `heddle diff`)".to_owned(),
            ));
        }
        facts = now;
    }
}
