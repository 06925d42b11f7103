//! Bringing the kernel to what is wished: only differences are written, in an order that opens nothing.

use super::transition::{truncated, with_fresh, with_joined};
use super::{CIDRS_FILE, Ledger, Shortfall};
use crate::directory::{PolicyListing, Shapes};
use crate::endpoint::table::TooLarge;
use heddle_datapath::DatapathError;
use heddle_model::Identity;
use heddle_policy::{CompiledPolicy, Direction};
use heddle_rpc::durable::replace_file;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Policies that the error about one which does not fit names.
const NAMED_LARGEST: usize = 3;
/// Rows of the ipcache that stay free: some kernels cannot even change a row of a full map.
const SPARE_ROWS: usize = 64;
/// The ipcache where it stands beside endpoints.
pub(crate) const IPCACHE: &str = "ipcache";
/// Cookies that are remembered in any case.
pub(super) const LEAST_COOKIES: usize = 4_096;

impl Ledger {
    /// Brings the kernel to what is wished. What fails is tried again next time; the rest is
    /// done nevertheless, as far as the order allows. What does not fit is one endpoint's matter: it stays as strict as it was or becomes stricter, and nobody else waits. True when nothing failed.
    pub(crate) fn reconcile(&mut self) -> bool {
        let done = self.progress.is_restored() && self.write_differences();
        self.tell();
        done
    }

    fn write_differences(&mut self) -> bool {
        self.failures.begin();
        self.take_in_ranges();
        self.bring_into_force();
        self.write_routes();
        let done = self.failures.end();
        if done {
            let revision = self.heard.policy_revision();
            for endpoint in self.endpoints.values_mut() {
                if endpoint.has_wished() {
                    endpoint.policy_revision = revision;
                }
            }
            self.forget_cookies();
        }
        done
    }

    /// Keeps the cookies that rows in force bear, once there are twice as many as then.
    fn forget_cookies(&mut self) {
        if self.engine.cookie_count() < self.cookies_due {
            return;
        }
        let endpoints = self.endpoints.values();
        let endpoints = endpoints.flat_map(|it| [it.policy.as_ref(), it.wished.as_ref()]);
        let cookies: BTreeSet<u32> = endpoints
            .chain([self.host.in_force(), self.host.wished()])
            .flatten()
            .flat_map(|policy| policy.entries.iter().map(|entry| entry.cookie))
            .collect();
        self.engine
            .retain_cookies(|cookie| cookies.contains(&cookie));
        self.cookies_due = LEAST_COOKIES.max(2 * cookies.len());
    }

    /// The order of [`heddle_policy::Engine::stage_cidrs`]: at no step does an address bear a number that a
    /// policy in force has no or the wrong rows for. What fails ends it there; the next call goes on.
    fn bring_into_force(&mut self) {
        self.take_cidr_changes();
        self.extend_policies();
        if !self.failures.is_empty() {
            return;
        }
        self.write_addresses();
        if !self.failures.is_empty() {
            return;
        }
        self.compile_touched();
        self.write_policies();
        if !self.failures.is_empty() {
            return;
        }
        let touched = self.engine.settle_cidrs();
        self.touched.extend(touched);
        self.take_cidr_changes();
        self.reduce_stale_policies();
        if !self.failures.is_empty() {
            return;
        }
        self.write_addresses();
        if self.failures.is_empty() {
            self.compile_touched();
            self.write_policies();
        }
    }

    fn take_cidr_changes(&mut self) {
        let changes = self.engine.take_cidr_changes();
        for change in &changes {
            self.ipcache.change_cidr(change);
        }
        self.cidr_changes.extend(changes);
    }

    /// Gives the policies in force rows for the numbers that addresses are about to bear.
    fn extend_policies(&mut self) {
        if !self.cidr_changes.iter().any(|change| change.fresh) {
            return;
        }
        let extended: Vec<_> = self
            .endpoints
            .staying()
            .filter_map(|(id, endpoint)| {
                let present = endpoint.policy.as_ref()?;
                let extended = with_fresh(present, &self.cidr_changes).map(Arc::new);
                // Nobody knows which rows the kernel has, if not these: they are put in force again first.
                let in_doubt = || endpoint.policy_in_doubt.then(|| Arc::clone(present));
                Some((id, extended.or_else(in_doubt)?))
            })
            .collect();
        let fresh = self.cidr_changes.iter().filter(|change| change.fresh);
        let fresh: BTreeSet<Identity> = fresh.map(|change| change.after).collect();
        for (id, policy) in extended {
            self.write_policy(id, policy, &fresh);
        }
        let node = self.host.in_force();
        if let Some(policy) = node.and_then(|present| with_fresh(present, &self.cidr_changes)) {
            self.replace_node_policy(policy, &fresh);
        }
    }

    /// Where the wished policy does not fit, the former one is in force. It was not asked whether it says the same
    /// of the addresses whose numbers are about to be joined.
    fn reduce_stale_policies(&mut self) {
        if self.cidr_changes.is_empty() {
            return;
        }
        let cookie = self.engine.cookie_of_no_rule();
        let reduced: Vec<_> = self
            .endpoints
            .staying()
            .filter(|(_, endpoint)| !endpoint.has_wished())
            // A part of the wished one says of no address more than that.
            .filter(|(_, endpoint)| !endpoint.has_part_of_wished())
            .filter_map(|(id, endpoint)| {
                let stale = endpoint.policy.as_ref()?;
                Some((id, with_joined(stale, &self.cidr_changes, cookie)?))
            })
            .collect();
        let none = BTreeSet::new();
        for (id, policy) in reduced {
            self.write_policy(id, Arc::new(policy), &none);
        }
        let stale = self
            .host
            .in_force()
            .filter(|policy| self.host.wished() != Some(*policy));
        if let Some(policy) = stale.and_then(|stale| with_joined(stale, &self.cidr_changes, cookie))
        {
            self.replace_node_policy(policy, &none);
        }
    }

    /// Writes the ipcache and the facts of endpoints.
    fn write_addresses(&mut self) {
        self.write_peers();
        self.write_facts();
        if self.failures.is_empty() && !self.cidr_changes.is_empty() {
            self.cidr_changes.clear();
            self.keep_cidrs();
        }
    }

    /// Writes down which number stands for which prefix: the kernel's rows alone do not tell for every one.
    /// Not synced to the disk: a power failure empties the kernel's maps too.
    fn keep_cidrs(&self) {
        let path = self.config.state_dir.join(CIDRS_FILE);
        let written = serde_json::to_vec(&self.ipcache.cidrs())
            .map_err(std::io::Error::from)
            .and_then(|content| replace_file(&path, &content));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the numbers of policy CIDRs may change at the next restart");
        }
    }

    fn take_in_ranges(&mut self) {
        if !self.nodes.take_ranges_changed() {
            return;
        }
        self.routes_due = true;
        let ranges = self.nodes.ranges();
        let former: BTreeSet<IpNet> = self.ipcache.ranges().map(|(prefix, _)| prefix).collect();
        for gone in former.iter().filter(|prefix| !ranges.contains_key(prefix)) {
            self.touched.extend(self.engine.remove_address(*gone));
        }
        for (prefix, base) in ranges.iter().filter(|(_, base)| base.in_cluster) {
            let touched = self.engine.set_address(*prefix, base.identity);
            self.touched.extend(touched);
        }
        self.ipcache.set_ranges(ranges);
        let gateways: Vec<IpAddr> = self.nodes.gateways().collect();
        for gateway in gateways {
            self.refresh_host(gateway);
        }
        self.directory.set_ranges(self.ipcache.ranges());
    }

    /// Compiles the policies of endpoints whose identity was touched, or that have none yet.
    fn compile_touched(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        if touched.contains(&Identity::OWN_NODE) {
            self.compile_node();
        }
        let mut compiled: BTreeMap<Identity, (Arc<CompiledPolicy>, Arc<PolicyListing>)> =
            BTreeMap::new();
        let due: Vec<(u16, Identity)> = self
            .endpoints
            .staying()
            .filter(|(_, it)| it.wished.is_none() || touched.contains(&it.identity))
            .map(|(id, it)| (id, it.identity))
            .collect();
        for (id, identity) in due {
            let (policy, listing) = match compiled.get(&identity) {
                Some(known) => known.clone(),
                None => {
                    let policy = Arc::new(self.engine.compile(identity));
                    let listing = Arc::new(self.listing(identity, &policy));
                    compiled.insert(identity, (Arc::clone(&policy), Arc::clone(&listing)));
                    (policy, listing)
                }
            };
            let audit = self.endpoints.get(id).is_some_and(|it| self.audits(it));
            let policy = if audit {
                let mut told = CompiledPolicy::clone(&policy);
                told.audit = true;
                Arc::new(told)
            } else {
                policy
            };
            if let Some(endpoint) = self.endpoints.get_mut(id) {
                endpoint.wished = Some(policy);
                endpoint.listing = Some(listing);
            }
        }
    }

    /// What those who describe flows want to know of a policy.
    pub(super) fn listing(&self, subject: Identity, policy: &CompiledPolicy) -> PolicyListing {
        let cookies: BTreeSet<u32> = policy.entries.iter().map(|entry| entry.cookie).collect();
        PolicyListing {
            ingress: self.engine.isolating(subject, Direction::Ingress),
            egress: self.engine.isolating(subject, Direction::Egress),
            cookies: cookies
                .into_iter()
                .filter(|cookie| *cookie != 0)
                .map(|cookie| (cookie, self.engine.rules_of(cookie)))
                .collect(),
            shapes: Shapes::of(policy),
        }
    }

    /// Puts every endpoint's wished policy in force.
    fn write_policies(&mut self) {
        let due: Vec<(u16, Arc<CompiledPolicy>)> = self
            .endpoints
            .staying()
            .filter_map(|(id, endpoint)| {
                let wished = endpoint.wished.as_ref()?;
                (!endpoint.has_policy(wished)).then(|| (id, Arc::clone(wished)))
            })
            .collect();
        for (id, policy) in due {
            // Events may name the new cookies as soon as the kernel has them.
            if let Some(listing) = self.endpoints.get(id).and_then(|it| it.listing.as_ref()) {
                self.directory.add_cookies(listing);
            }
            self.write_policy(id, policy, &BTreeSet::new());
        }
        self.list_policies();
        self.write_node_policy();
    }

    /// Tells those who describe flows of policies that are in force now; of one that is not yet, or that did
    /// not fit, they are not told.
    fn list_policies(&mut self) {
        for endpoint in self.endpoints.values_mut() {
            if (endpoint.has_wished() || endpoint.has_part_of_wished())
                && let Some(listing) = endpoint.listing.take()
            {
                self.directory.add_cookies(&listing);
                self.directory.set_policy(endpoint.record.endpoint, listing);
            }
        }
    }

    /// Puts a policy in force, or as much of it as fits. `last` are the identities whose entries have to wait for room.
    fn write_policy(&mut self, id: u16, policy: Arc<CompiledPolicy>, last: &BTreeSet<Identity>) {
        let outcome = self.datapath.set_policy(id, &policy);
        let Some(endpoint) = self.endpoints.get_mut(id) else {
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
                let identity = endpoint.identity;
                let known = endpoint.too_large.clone();
                let known = known.filter(|known| Arc::ptr_eq(&known.whole, &policy));
                let too_large = known.unwrap_or_else(|| {
                    let error = DatapathError::MapFull { entries, max, map };
                    let most = usize::try_from(max).unwrap_or(usize::MAX);
                    TooLarge {
                        part: Arc::new(truncated(&policy, most, last)),
                        reason: format!(
                            "{error}; only a part of what it allows is in force; {}",
                            self.largest_policies(identity)
                        ),
                        whole: policy,
                    }
                });
                self.write_part(id, too_large);
            }
            Err(error) => self.policy_in_doubt(id, &error),
        }
    }

    fn write_part(&mut self, id: u16, too_large: TooLarge) {
        let endpoint = self.endpoints.get(id);
        let outcome = if endpoint.is_some_and(|it| it.has_policy(&too_large.part)) {
            Ok(())
        } else {
            self.datapath.set_policy(id, &too_large.part)
        };
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return;
        };
        match outcome {
            Ok(()) => {
                endpoint.policy = Some(Arc::clone(&too_large.part));
                endpoint.policy_in_doubt = false;
            }
            // There is no room for another map: what was in force is in force.
            Err(DatapathError::MapFull { .. }) => {}
            Err(error) => return self.policy_in_doubt(id, &error),
        }
        endpoint.failure = Some(too_large.reason.clone());
        let shortfall = Shortfall {
            reason: too_large.reason.clone(),
            pod: Some(endpoint.record.pod.clone()),
            identity: Some(endpoint.identity),
        };
        endpoint.too_large = Some(too_large);
        let object = format!("endpoint {id} ({})", endpoint.record.pod);
        self.failures.fall_short(object, shortfall);
    }

    /// The kernel may have the old one or the new one. The old one stays known: before an address bears a fresh number,
    /// it must get rows for that, and with them it is in force for certain again.
    fn policy_in_doubt(&mut self, id: u16, error: &DatapathError) {
        let Some(endpoint) = self.endpoints.get_mut(id) else {
            return;
        };
        endpoint.policy_in_doubt = true;
        let object = format!("endpoint {id} ({})", endpoint.record.pod);
        let reason = error.to_string();
        if endpoint.failure.as_ref() != Some(&reason) {
            tracing::error!(endpoint = id, %object, %reason, "policy not in force");
            endpoint.failure = Some(reason.clone());
        }
        self.failures.fail(object, reason);
    }

    /// Who makes the policy of an identity large.
    pub(super) fn largest_policies(&mut self, identity: Identity) -> String {
        let mut by_policy = self.engine.rows_by_policy(identity);
        by_policy.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
        let named = by_policy.iter().take(NAMED_LARGEST);
        let named: Vec<String> = named
            .map(|(policy, rows)| format!("{policy} ({rows} rows)"))
            .collect();
        format!("its largest parts are {}", named.join(", "))
    }

    fn write_facts(&mut self) {
        let due: Vec<_> = self
            .endpoints
            .staying()
            .filter_map(|(id, endpoint)| {
                let facts = self.wished_facts(endpoint)?;
                (endpoint.facts.as_ref() != Some(&facts)).then_some((id, facts))
            })
            .collect();
        for (id, facts) in due {
            match self.datapath.set_facts(&facts) {
                Ok(()) => {
                    if let Some(endpoint) = self.endpoints.get_mut(id) {
                        endpoint.facts = Some(facts);
                    }
                }
                Err(error) => {
                    if let Some(endpoint) = self.endpoints.get_mut(id) {
                        endpoint.facts = None;
                    }
                    self.failed(format!("endpoint {id}"), &error);
                }
            }
        }
    }

    fn write_peers(&mut self) {
        let most = (self.config.max_ipcache_entries as usize).saturating_sub(SPARE_ROWS);
        let changes = self.ipcache.changes(most);
        let mut done = true;
        if !changes.left_out.is_empty() {
            let reason = format!(
                "{} addresses of pods have no row, because the ipcache is full: nobody here reaches them, and they reach nobody here; raise maxIpcacheEntries ({})",
                changes.left_out.len(),
                self.config.max_ipcache_entries
            );
            let shortfall = Shortfall {
                reason,
                ..Shortfall::default()
            };
            self.failures.fall_short(IPCACHE.to_owned(), shortfall);
        }
        if !changes.set.is_empty() {
            match self.datapath.set_peers(&changes.set) {
                Ok(()) => self.ipcache.wrote(changes.set),
                Err(error) => {
                    done = false;
                    self.ipcache.doubt(&changes.set);
                    self.failed(IPCACHE.to_owned(), &error);
                }
            }
        }
        if !changes.remove.is_empty() {
            match self.datapath.remove_peers(&changes.remove) {
                Ok(()) => self.ipcache.removed(&changes.remove),
                Err(error) => {
                    done = false;
                    self.failed(IPCACHE.to_owned(), &error);
                }
            }
        }
        if done {
            self.ipcache.settled(changes.left_out);
        }
    }

    /// Kernel routes to other nodes' pod ranges.
    fn write_routes(&mut self) {
        if !self.routes_due {
            return;
        }
        let routes = self.nodes.routes();
        if self.routes.as_ref() != Some(&routes) {
            if let Err(error) = self.datapath.set_routes(&routes) {
                return self.failed("routes".to_owned(), &error);
            }
            self.routes = Some(routes);
        }
        self.routes_due = false;
    }

    fn failed(&mut self, object: String, error: &DatapathError) {
        tracing::error!(%object, %error, "not written");
        self.failures.fail(object, error.to_string());
    }

    /// True when something is wished that is not in force, as far as the ledger knows.
    pub(crate) fn is_behind(&self) -> bool {
        !self.failures.is_empty()
            || !self.touched.is_empty()
            || !self.cidr_changes.is_empty()
            || self.unsettled.relabel.is_waiting()
    }
}
