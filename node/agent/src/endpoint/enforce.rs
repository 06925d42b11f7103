//! Policies and facts of endpoints, brought into the kernel. What does not fit is one endpoint's matter: it stays as
//! strict as it was or becomes stricter, and nobody else waits.

use super::table::{EndpointTable, LocalEndpoint, TooLarge};
use crate::addresses::peers::Peers;
use crate::audit::Audit;
use crate::directory::PolicyListing;
use crate::ledger::transition::{truncated, with_fresh, with_joined};
use crate::ledger::{Shortfall, Writer};
use crate::policy::Rules;
use heddle_datapath::DatapathError;
use heddle_model::Identity;
use heddle_policy::{CidrChange, CompiledPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl EndpointTable {
    /// Gives the policies in force rows for the numbers that addresses are about to bear. `fresh` are these numbers.
    pub(crate) fn extend_policies(
        &mut self,
        changes: &[CidrChange],
        fresh: &BTreeSet<Identity>,
        rules: &mut Rules,
        writer: &mut Writer,
    ) {
        let extended: Vec<_> = self
            .staying()
            .filter_map(|(id, endpoint)| {
                let present = endpoint.policy.as_ref()?;
                let extended = with_fresh(present, changes).map(Arc::new);
                // Nobody knows which rows the kernel has, if not these: they are put in force again first.
                let in_doubt = || endpoint.policy_in_doubt.then(|| Arc::clone(present));
                Some((id, extended.or_else(in_doubt)?))
            })
            .collect();
        for (id, policy) in extended {
            self.write_policy(id, policy, fresh, rules, writer);
        }
    }

    /// Where the wished policy does not fit, the former one is in force. It was not asked whether it says the same
    /// of the addresses whose numbers are about to be joined. `cookie` is that of no rule.
    pub(crate) fn reduce_stale_policies(
        &mut self,
        changes: &[CidrChange],
        cookie: u32,
        rules: &mut Rules,
        writer: &mut Writer,
    ) {
        let reduced: Vec<_> = self
            .staying()
            .filter(|(_, endpoint)| !endpoint.has_wished())
            // A part of the wished one says of no address more than that.
            .filter(|(_, endpoint)| !endpoint.has_part_of_wished())
            .filter_map(|(id, endpoint)| {
                let stale = endpoint.policy.as_ref()?;
                Some((id, with_joined(stale, changes, cookie)?))
            })
            .collect();
        let none = BTreeSet::new();
        for (id, policy) in reduced {
            self.write_policy(id, Arc::new(policy), &none, rules, writer);
        }
    }

    /// Compiles the policies of endpoints whose identity was touched, or that have none yet.
    pub(crate) fn compile(
        &mut self,
        touched: &BTreeSet<Identity>,
        audit: Audit<'_>,
        rules: &mut Rules,
    ) {
        let mut compiled: BTreeMap<Identity, (Arc<CompiledPolicy>, Arc<PolicyListing>)> =
            BTreeMap::new();
        let is_due =
            |it: &&mut LocalEndpoint| it.wished.is_none() || touched.contains(&it.identity);
        for endpoint in self.staying_mut().filter(is_due) {
            let identity = endpoint.identity;
            let (policy, listing) = compiled.entry(identity).or_insert_with(|| {
                let policy = rules.compile(identity);
                let listing = rules.listing(identity, &policy);
                (Arc::new(policy), Arc::new(listing))
            });
            endpoint.wished = Some(if audit.audits(endpoint, rules) {
                let mut told = CompiledPolicy::clone(policy);
                told.audit = true;
                Arc::new(told)
            } else {
                Arc::clone(policy)
            });
            endpoint.listing = Some(Arc::clone(listing));
        }
    }

    /// Puts every endpoint's wished policy in force.
    pub(crate) fn write_policies(&mut self, rules: &mut Rules, writer: &mut Writer) {
        let due: Vec<(u16, Arc<CompiledPolicy>)> = self
            .staying()
            .filter_map(|(id, endpoint)| {
                let wished = endpoint.wished.as_ref()?;
                (!endpoint.has_policy(wished)).then(|| (id, Arc::clone(wished)))
            })
            .collect();
        for (id, policy) in due {
            writer.announce(self.get(id).and_then(|it| it.listing.as_ref()));
            self.write_policy(id, policy, &BTreeSet::new(), rules, writer);
        }
        self.list_policies(writer);
    }

    /// Tells those who describe flows of policies that are in force now; of one that is not yet, or that did
    /// not fit, they are not told.
    fn list_policies(&mut self, writer: &Writer) {
        for endpoint in self.values_mut() {
            if (endpoint.has_wished() || endpoint.has_part_of_wished())
                && let Some(listing) = endpoint.listing.take()
            {
                writer.list(endpoint.record.endpoint, listing);
            }
        }
    }

    /// Puts a policy in force, or as much of it as fits. `last` are the identities whose entries have to wait for room.
    fn write_policy(
        &mut self,
        id: u16,
        policy: Arc<CompiledPolicy>,
        last: &BTreeSet<Identity>,
        rules: &mut Rules,
        writer: &mut Writer,
    ) {
        let outcome = writer.datapath.set_policy(id, &policy);
        let Some(endpoint) = self.get_mut(id) else {
            return;
        };
        match outcome {
            Ok(()) => {
                if endpoint.wished.as_ref() == Some(&policy) {
                    endpoint.failure = None;
                    endpoint.too_large = None;
                }
                endpoint.policy = Some(policy);
                endpoint.policy_in_doubt = false;
            }
            Err(DatapathError::MapFull { entries, max, map }) => {
                let known = endpoint.too_large.clone();
                let known = known.filter(|known| Arc::ptr_eq(&known.whole, &policy));
                let too_large = known.unwrap_or_else(|| {
                    let error = DatapathError::MapFull { entries, max, map };
                    let most = usize::try_from(max).unwrap_or(usize::MAX);
                    TooLarge {
                        part: Arc::new(truncated(&policy, most, last)),
                        reason: format!(
                            "{error}; only a part of what it allows is in force; {}",
                            rules.largest_policies(endpoint.identity)
                        ),
                        whole: policy,
                    }
                });
                write_part(endpoint, too_large, writer);
            }
            Err(error) => policy_in_doubt(endpoint, &error, writer),
        }
    }

    /// Writes the facts of endpoints that are not as wished.
    pub(crate) fn write_facts(&mut self, peers: &Peers, writer: &mut Writer) {
        for endpoint in self.staying_mut() {
            let Some(facts) = peers.facts_of(endpoint) else {
                continue;
            };
            if endpoint.facts.as_ref() == Some(&facts) {
                continue;
            }
            match writer.datapath.set_facts(&facts) {
                Ok(()) => endpoint.facts = Some(facts),
                Err(error) => {
                    endpoint.facts = None;
                    writer.failed(format!("endpoint {}", endpoint.record.endpoint), &error);
                }
            }
        }
    }
}

/// Puts as much of a policy in force as fits.
fn write_part(endpoint: &mut LocalEndpoint, too_large: TooLarge, writer: &mut Writer) {
    let outcome = if endpoint.has_policy(&too_large.part) {
        Ok(())
    } else {
        let id = endpoint.record.endpoint;
        writer.datapath.set_policy(id, &too_large.part)
    };
    match outcome {
        Ok(()) => {
            endpoint.policy = Some(Arc::clone(&too_large.part));
            endpoint.policy_in_doubt = false;
        }
        // There is no room for another map: what was in force is in force.
        Err(DatapathError::MapFull { .. }) => {}
        Err(error) => return policy_in_doubt(endpoint, &error, writer),
    }
    endpoint.failure = Some(too_large.reason.clone());
    let shortfall = Shortfall {
        reason: too_large.reason.clone(),
        pod: Some(endpoint.record.pod.clone()),
        identity: Some(endpoint.identity),
    };
    endpoint.too_large = Some(too_large);
    writer.failures.fall_short(object(endpoint), shortfall);
}

/// The kernel may have the old one or the new one. The old one stays known: before an address bears a fresh number,
/// it must get rows for that, and with them it is in force for certain again.
fn policy_in_doubt(endpoint: &mut LocalEndpoint, error: &DatapathError, writer: &mut Writer) {
    endpoint.policy_in_doubt = true;
    let object = object(endpoint);
    let reason = error.to_string();
    if endpoint.failure.as_ref() != Some(&reason) {
        tracing::error!(endpoint = endpoint.record.endpoint, %object, %reason, "policy not in force");
        endpoint.failure = Some(reason.clone());
    }
    writer.failures.fail(object, reason);
}

/// An endpoint in messages.
fn object(endpoint: &LocalEndpoint) -> String {
    format!(
        "endpoint {} ({})",
        endpoint.record.endpoint, endpoint.record.pod
    )
}
