//! `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (reference 1.2 to 1.5, 2).

mod l7;
mod peers;
mod ports;
mod rule;

use super::{
    fields::Field,
    problems::{Problems, quoted},
    selectors::{self, Labels, in_namespace, is_reserved, required_cidr, requirements, selector},
};
use heddle_model::{LabelSet, Operator, Requirement};
use heddle_policy::{
    EndpointSelector, Isolation, Policy, PolicyId, PolicyKind, PolicySpec, Section, Tier,
};
use std::cell::Cell;

/// Characters of `log.value` at most (reference 1.2).
const MOST_LOG: usize = 32;

/// The lists of rules in the order of the API.
const SECTIONS: [Section; 4] = [
    Section::Ingress,
    Section::IngressDeny,
    Section::Egress,
    Section::EgressDeny,
];

/// What the fields of one object share.
struct Scope<'a> {
    id: &'a PolicyId,
    /// How many regular expressions it may still have.
    expressions: Cell<usize>,
}

pub(super) fn parse(root: &Field<'_>, id: PolicyId, problems: &mut Problems) -> Option<Policy> {
    root.object(
        &["apiVersion", "kind", "metadata", "spec", "specs", "status"],
        &[],
        problems,
    );
    let scope = Scope {
        id: &id,
        expressions: Cell::new(l7::MOST_EXPRESSIONS),
    };
    let mut specs = Vec::new();
    let mut given = false;
    if let Some(field) = root.get("spec") {
        given = true;
        specs.extend(scope.spec(&field, None, problems));
    }
    for (position, field) in root
        .list("specs", problems)
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        given = true;
        specs.extend(scope.spec(field, u32::try_from(position).ok(), problems));
    }
    if !given {
        problems.error(
            "policy/missing-field",
            "spec",
            "the policy has neither spec nor specs",
            "write spec with endpointSelector and rules",
        );
    }
    Some(Policy {
        id,
        tier: Tier::Normal,
        priority: 0,
        specs,
    })
}

impl Scope<'_> {
    fn clusterwide(&self) -> bool {
        self.id.kind == PolicyKind::CiliumClusterwideNetworkPolicy
    }

    fn spec(
        &self,
        field: &Field<'_>,
        position: Option<u32>,
        problems: &mut Problems,
    ) -> Option<PolicySpec> {
        let known = [
            "endpointSelector",
            "nodeSelector",
            "ingress",
            "ingressDeny",
            "egress",
            "egressDeny",
            "labels",
            "enableDefaultDeny",
            "description",
            "log",
        ];
        if !field.object(&known, &[], problems) {
            return None;
        }
        let subject = self.subject(field, problems);
        let wants = default_deny(field, problems);
        remarks(field, problems);
        let mut rules = Vec::new();
        let mut isolates = Isolation::default();
        let mut any = false;
        for section in SECTIONS {
            let listed = field.list(section.name(), problems).unwrap_or_default();
            if listed.is_empty() {
                continue;
            }
            any = true;
            // An entry isolates whatever it selects, and denies do too (references D6, D12, E3).
            match section {
                Section::Ingress | Section::IngressDeny => {
                    isolates.ingress = wants.ingress.unwrap_or(true);
                }
                Section::Egress | Section::EgressDeny => {
                    isolates.egress = wants.egress.unwrap_or(true);
                }
            }
            for (index, field) in listed.iter().enumerate() {
                rules.extend(self.rule(field, section, index, problems));
            }
        }
        if !any {
            problems.error(
                "policy/no-rules",
                field.path.clone(),
                "rule must have at least one of Ingress, IngressDeny, Egress, EgressDeny",
                "to deny all ingress write ingress: [{}]",
            );
        }
        wants.warn_without_rules(field, problems);
        Some(PolicySpec {
            position,
            subject: subject?,
            isolates,
            rules,
        })
    }

    fn subject(&self, spec: &Field<'_>, problems: &mut Problems) -> Option<EndpointSelector> {
        let (endpoints, nodes) = (spec.get("endpointSelector"), spec.get("nodeSelector"));
        if let Some(nodes) = &nodes {
            let wanted = selectors::nodes(nodes, problems);
            if endpoints.is_some() {
                problems.error(
                    "policy/combined-subjects",
                    nodes.path.clone(),
                    "a rule cannot have both endpointSelector and nodeSelector",
                    "write them as two policies",
                );
            } else if self.clusterwide() {
                return Some(EndpointSelector::of_nodes(&wanted?));
            } else {
                problems.error(
                    "policy/combined-subjects",
                    nodes.path.clone(),
                    "a policy of a namespace cannot select nodes",
                    "use CiliumClusterwideNetworkPolicy",
                );
            }
        }
        let Some(field) = endpoints else {
            if nodes.is_none() {
                spec.missing(
                    "endpointSelector",
                    "write endpointSelector: {} for all pods of the namespace",
                    problems,
                );
            }
            return None;
        };
        let found = requirements(&field, Labels::Endpoint, problems);
        self.check_subject(&field, &found, problems);
        let mut found = found;
        if !self.clusterwide() && !found.iter().any(is_reserved) {
            self.place_subject(&field, &mut found, problems);
        }
        Some(EndpointSelector::new(selector(&field, found, problems)?))
    }

    fn check_subject(&self, field: &Field<'_>, found: &[Requirement], problems: &mut Problems) {
        for requirement in found {
            if is_reserved(requirement) && requirement.key != "reserved:init" {
                problems.error(
                    "policy/unsupported-yet",
                    field.path.clone(),
                    format!(
                        "no policy is enforced for endpoints with {} yet, so the policy is refused",
                        requirement.key
                    ),
                    "select pods by their own labels",
                );
            }
            if required_cidr(requirement).is_some() {
                problems.error(
                    "policy/invalid-selector",
                    field.path.clone(),
                    format!("no endpoint bears the label {}", requirement.key),
                    "a policy is about pods; write addresses as peers, in fromCIDR or toCIDR",
                );
            }
        }
    }

    /// A policy of a namespace is about that namespace's pods, whatever else it names (reference 1.4).
    fn place_subject(
        &self,
        field: &Field<'_>,
        found: &mut Vec<Requirement>,
        problems: &mut Problems,
    ) {
        let own = in_namespace(&self.id.namespace);
        let foreign = |requirement: &Requirement| {
            requirement.key == LabelSet::NAMESPACE
                && requirement.operator == Operator::In
                && requirement.values != own.values
        };
        if found.iter().any(foreign) {
            problems.warning(
                "policy/foreign-namespace",
                field.path.clone(),
                format!(
                    "the policy is about pods of its own namespace {}, whatever this selector names",
                    quoted(&self.id.namespace)
                ),
                "leave the namespace label out, or use CiliumClusterwideNetworkPolicy",
            );
            found.retain(|requirement| !foreign(requirement));
        }
        found.push(own);
    }
}

/// `enableDefaultDeny` as it is written.
#[derive(Default)]
struct DefaultDeny {
    ingress: Option<bool>,
    egress: Option<bool>,
}

fn default_deny(spec: &Field<'_>, problems: &mut Problems) -> DefaultDeny {
    let Some(flags) = spec.get("enableDefaultDeny") else {
        return DefaultDeny::default();
    };
    flags.object(&["ingress", "egress"], &[], problems);
    let mut flag = |name: &str| flags.get(name).and_then(|flag| flag.boolean(problems));
    DefaultDeny {
        ingress: flag("ingress"),
        egress: flag("egress"),
    }
}

impl DefaultDeny {
    /// A direction that is to be denied and has no rule is not denied (reference D9).
    fn warn_without_rules(&self, spec: &Field<'_>, problems: &mut Problems) {
        for (name, flag, lists) in [
            ("ingress", self.ingress, ["ingress", "ingressDeny"]),
            ("egress", self.egress, ["egress", "egressDeny"]),
        ] {
            let empty = |list: &str| {
                spec.get(list)
                    .is_none_or(|field| field.value.as_array().is_some_and(Vec::is_empty))
            };
            if flag == Some(true) && lists.into_iter().all(empty) {
                problems.warning(
                    "policy/default-deny-without-rules",
                    spec.path_of(&format!("enableDefaultDeny.{name}")),
                    format!("without a rule in {name} this has no effect"),
                    format!("to deny all {name} write {name}: [{{}}]"),
                );
            }
        }
    }
}

/// Fields that say something to people: their form is checked, and nothing follows from them.
fn remarks(spec: &Field<'_>, problems: &mut Problems) {
    for label in spec.list("labels", problems).unwrap_or_default() {
        if label.value.is_string() {
            continue;
        }
        if label.object(&["key", "value", "source"], &[], problems) {
            if label.get("key").is_none() {
                label.missing("key", "write key: LABEL", problems);
            }
            for name in ["key", "value", "source"] {
                if let Some(text) = label.get(name) {
                    text.text(problems);
                }
            }
        }
    }
    if let Some(text) = spec.get("description") {
        text.text(problems);
    }
    let Some(log) = spec.get("log") else { return };
    if !log.object(&["value"], &[], problems) {
        return;
    }
    if let Some(value) = log.get("value")
        && let Some(text) = value.text(problems)
        && (text.chars().count() > MOST_LOG || text.chars().any(char::is_control))
    {
        problems.error(
            "policy/invalid-log",
            value.path.clone(),
            format!("{} is not a log value", quoted(text)),
            format!("write at most {MOST_LOG} printable characters"),
        );
    }
}
