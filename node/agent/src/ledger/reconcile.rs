//! Bringing the kernel to what is wished: only differences are written, in an order that opens nothing.

use super::Ledger;
use crate::audit::Audit;
use crate::config::PolicyAudit;
use crate::host::Needs;
use heddle_model::Identity;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Ledger {
    /// Brings the kernel to what is wished. What fails is tried again next time; the rest is
    /// done nevertheless, as far as the order allows. True when nothing failed.
    pub(crate) fn reconcile(&mut self) -> bool {
        let done = self.progress.is_restored() && self.write_differences();
        self.tell();
        done
    }

    fn write_differences(&mut self) -> bool {
        self.writer.failures.begin();
        self.take_in_ranges();
        self.bring_into_force();
        self.peers.write_routes(&mut self.writer);
        let done = self.writer.failures.end();
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

    fn forget_cookies(&mut self) {
        let endpoints = self.endpoints.values();
        let policies = endpoints
            .flat_map(|it| [it.policy.as_ref(), it.wished.as_ref()])
            .chain([self.host.in_force(), self.host.wished()])
            .flatten();
        self.policies
            .rules
            .forget_cookies(policies.map(|policy| &**policy));
    }

    fn take_in_ranges(&mut self) {
        if self.peers.take_in_ranges(&mut self.policies.rules) {
            let gateways: Vec<IpAddr> = self.peers.nodes.gateways().collect();
            for gateway in gateways {
                self.refresh_address(gateway);
            }
            let ranges = self.peers.ipcache.ranges();
            self.writer.directory.set_ranges(ranges);
        }
    }

    /// The order of [`heddle_policy::Engine::stage_cidrs`]: at no step does an address bear a number that a
    /// policy in force has no or the wrong rows for. What fails ends it there; the next call goes on.
    fn bring_into_force(&mut self) {
        let steps = [
            Self::extend_policies,
            Self::write_addresses,
            Self::write_policies,
            Self::join_numbers,
            Self::write_addresses,
            Self::write_policies,
        ];
        for step in steps {
            step(self);
            if !self.writer.failures.is_empty() {
                return;
            }
        }
    }

    /// Gives the policies in force rows for the numbers that addresses are about to bear.
    fn extend_policies(&mut self) {
        let rules = &mut self.policies.rules;
        self.peers.take_cidr_changes(rules);
        let changes = self.peers.cidr_changes();
        let fresh = changes.iter().filter(|change| change.fresh);
        let fresh: BTreeSet<Identity> = fresh.map(|change| change.after).collect();
        if !fresh.is_empty() {
            self.endpoints
                .extend_policies(changes, &fresh, rules, &mut self.writer);
            self.host.extend(changes, &fresh, rules, &mut self.writer);
        }
    }

    /// Addresses of which every wished policy says the same may have one number: whoever has another policy denies
    /// what it can no longer tell apart.
    fn join_numbers(&mut self) {
        let rules = &mut self.policies.rules;
        rules.change(heddle_policy::Engine::settle_cidrs);
        self.peers.take_cidr_changes(rules);
        let changes = self.peers.cidr_changes();
        if !changes.is_empty() {
            let cookie = rules.cookie_of_no_rule();
            self.endpoints
                .reduce_stale_policies(changes, cookie, rules, &mut self.writer);
            self.host
                .reduce_stale(changes, cookie, rules, &mut self.writer);
        }
    }

    /// Writes the ipcache and the facts of endpoints.
    fn write_addresses(&mut self) {
        self.peers.write_rows(&mut self.writer);
        self.endpoints.write_facts(&self.peers, &mut self.writer);
        if self.writer.failures.is_empty() {
            self.peers.numbers_written();
        }
    }

    /// Compiles what was touched, and puts what is wished in force.
    fn write_policies(&mut self) {
        let rules = &mut self.policies.rules;
        let touched = rules.take_touched();
        if touched.contains(&Identity::OWN_NODE) {
            let own = self.peers.nodes.own();
            let audit = self.config.policy_audit != PolicyAudit::None
                || own.is_some_and(|node| node.on_audit);
            self.host.compile(audit, rules);
        }
        let audit = Audit {
            config: &self.config,
            pods: &self.pods,
        };
        self.endpoints.compile(&touched, audit, rules);
        self.endpoints.write_policies(rules, &mut self.writer);
        let needs = Needs {
            config: &self.config,
            endpoints: &self.endpoints,
            pods: &self.pods,
        };
        self.host.write(needs, &mut self.policies, &mut self.writer);
    }

    /// True when something is wished that is not in force, as far as the ledger knows.
    pub(crate) fn is_behind(&self) -> bool {
        !self.writer.failures.is_empty()
            || !self.policies.rules.is_compiled()
            || !self.peers.cidr_changes().is_empty()
            || self.unsettled.relabel.is_waiting()
    }
}
