//! One entry of `ingress`, `ingressDeny`, `egress` or `egressDeny`.

use super::{
    super::{fields::Field, names, problems::Problems, selectors::nodes},
    Scope,
    peers::{entity, outside},
};
use crate::policy::ports::cidr;
use heddle_policy::{Peer, Peers, PortMatch, PortTerm, Ports, Rule, Section};
use serde_json::{Map, Value};

/// Fields of a rule that are checked and not enforced yet.
#[derive(Default)]
pub(super) struct Unsupported(pub(super) Vec<String>);

impl Unsupported {
    /// One error for the rule, with every such field named (never half-applied).
    fn tell(self, rule: &Field<'_>, problems: &mut Problems) {
        let Some(first) = self.0.first() else { return };
        let short: Vec<String> = self
            .0
            .iter()
            .map(|path| {
                let tail = path.strip_prefix(rule.path.as_str()).unwrap_or(path);
                format!("`{}`", tail.trim_start_matches('.'))
            })
            .collect();
        let (listed, more) = short.split_at(short.len().min(8));
        let mut listed = listed.join(", ");
        if !more.is_empty() {
            listed.push_str(&format!(" and {} more", more.len()));
        }
        let are = if short.len() == 1 { "is" } else { "are" };
        problems.error(
            "policy/unsupported-yet",
            first.clone(),
            format!("{listed} {are} not enforced yet, so the policy is refused"),
            help_for(first),
        );
    }
}

/// What to write until the field is enforced.
fn help_for(path: &str) -> &'static str {
    let name = path.rsplit('.').next().unwrap_or(path);
    match name.split('[').next().unwrap_or(name) {
        "toFQDNs" => "write the addresses as toCIDR until DNS names are enforced",
        "fromGroups" => "write the addresses as fromCIDRSet",
        "toGroups" => "write the addresses as toCIDRSet",
        "mode" => {
            "without it the rule allows peers that are not authenticated: remove it only if that is meant until mutual authentication is enforced"
        }
        "rules" => {
            "without the L7 rules the rule allows every request to its ports, which widens access: remove them only if that is meant until they are enforced"
        }
        "protocol" => "a rule without toPorts covers every protocol",
        _ => "remove it until it is enforced, if what is left is what you mean",
    }
}

impl Scope<'_> {
    pub(super) fn rule(
        &self,
        field: &Field<'_>,
        section: Section,
        index: usize,
        problems: &mut Problems,
    ) -> Option<Rule> {
        let names = Names::of(section);
        if !field.object(&names.known(), names.elsewhere(), problems) {
            return None;
        }
        let mut unsupported = Unsupported::default();
        refuse_requires(field, names.requires, names.peers[0], problems);
        let terms = self.terms(field, &names, &mut unsupported, problems);
        let ports = self.ports(field, section, &mut unsupported, problems);
        if let Some(found) = field.get("authentication") {
            authentication(&found, &mut unsupported, problems);
        }
        let peers = match (terms, &ports) {
            (Some(terms), _) => Peers::Terms(terms),
            // A rule that says nothing selects nothing (reference E3); with ports it is about anybody (E7).
            (None, Ports::All) => Peers::Terms(Vec::new()),
            (None, Ports::Only(_)) => Peers::Any,
        };
        let ports = names_towards_addresses(field, section, &peers, ports, problems);
        if names.deny && field.value.as_object().is_some_and(Map::is_empty) {
            problems.warning(
                "policy/empty-deny",
                field.path.clone(),
                "an empty deny denies nobody by name, but what no rule allows is denied from now on",
                "to deny everybody write the entity all; without a deny leave the list out",
            );
        }
        unsupported.tell(field, problems);
        Some(Rule {
            section,
            index: u32::try_from(index).ok()?,
            action: section.action(),
            name: None,
            peers,
            ports,
        })
    }

    /// The terms of every peer list that is there; `None` when there is none.
    fn terms(
        &self,
        field: &Field<'_>,
        names: &Names,
        unsupported: &mut Unsupported,
        problems: &mut Problems,
    ) -> Option<Vec<Peer>> {
        let mut terms: Option<Vec<Peer>> = None;
        let mut kinds: Vec<&str> = Vec::new();
        for &name in names.peers {
            let Some(listed) = field.list(name, problems) else {
                continue;
            };
            let terms = terms.get_or_insert_default();
            if listed.is_empty() {
                problems.warning(
                    "policy/empty-list",
                    field.path_of(name),
                    "an empty list of peers selects nobody",
                    "leave it out to mean anybody on the ports of the rule, or name peers",
                );
                continue;
            }
            kinds.push(name);
            match name {
                "toFQDNs" | "fromGroups" | "toGroups" => {
                    unsupported.0.push(field.path_of(name));
                }
                _ => {}
            }
            for item in &listed {
                match name {
                    "fromEndpoints" | "toEndpoints" => terms.extend(self.endpoint(item, problems)),
                    "fromEntities" | "toEntities" => terms.extend(entity(item, problems)),
                    "fromCIDR" | "toCIDR" => {
                        terms.extend(cidr(item, true, problems).map(|b| outside(b, Vec::new())));
                    }
                    "fromCIDRSet" | "toCIDRSet" => terms.extend(self.cidr_set(item, problems)),
                    "toServices" => terms.extend(self.service(item, problems)),
                    "toFQDNs" => names::check_match(item, problems),
                    "fromNodes" | "toNodes" => terms.extend(nodes(item, problems).map(Peer::Nodes)),
                    _ => group(item, problems),
                }
            }
        }
        if let [one, another, ..] = kinds.as_slice() {
            problems.error(
                "policy/combined-peers",
                field.path.clone(),
                format!("combining {one} and {another} in one rule is not supported"),
                "write them as two rules",
            );
        }
        terms
    }
}

/// A named port towards addresses outside the cluster: there is no pod to ask what the name means. An allow of it
/// allows nothing. A deny that denied nothing would be open, so it denies every port of the protocol.
fn names_towards_addresses(
    field: &Field<'_>,
    section: Section,
    peers: &Peers,
    ports: Ports,
    problems: &mut Problems,
) -> Ports {
    let is_address = |term: &Peer| matches!(term, Peer::Cidr(_) | Peer::CidrGroup { .. });
    let towards_addresses = matches!(peers, Peers::Terms(terms) if terms.iter().any(is_address));
    let is_name = |term: &PortTerm| matches!(term, PortTerm::Transport(_, PortMatch::Name(_)));
    let Ports::Only(mut terms) = ports else {
        return ports;
    };
    if !towards_addresses || !terms.iter().any(is_name) {
        return Ports::Only(terms);
    }
    match section {
        Section::Egress => problems.warning(
            "policy/named-port-with-cidr",
            field.path.clone(),
            "a named port towards an address block selects nothing: only a pod's labels say what a name means",
            "write the port as a number, or select the pods by labels",
        ),
        Section::EgressDeny => {
            problems.warning(
                "policy/named-port-with-cidr",
                field.path.clone(),
                "nobody says what a named port means towards an address block, so every port of its protocol is denied there",
                "write the port as a number",
            );
            for term in &mut terms {
                if let PortTerm::Transport(_, port @ PortMatch::Name(_)) = term {
                    *port = PortMatch::All;
                }
            }
        }
        Section::Ingress | Section::IngressDeny => {}
    }
    Ports::Only(terms)
}

/// The fields of a rule in one section.
struct Names {
    peers: &'static [&'static str],
    requires: &'static str,
    deny: bool,
}

impl Names {
    const fn of(section: Section) -> Self {
        let deny = matches!(section, Section::IngressDeny | Section::EgressDeny);
        match section {
            Section::Ingress | Section::IngressDeny => Self {
                peers: &[
                    "fromEndpoints",
                    "fromEntities",
                    "fromCIDR",
                    "fromCIDRSet",
                    "fromGroups",
                    "fromNodes",
                ],
                requires: "fromRequires",
                deny,
            },
            Section::Egress => Self {
                peers: &[
                    "toEndpoints",
                    "toEntities",
                    "toCIDR",
                    "toCIDRSet",
                    "toGroups",
                    "toNodes",
                    "toServices",
                    "toFQDNs",
                ],
                requires: "toRequires",
                deny,
            },
            Section::EgressDeny => Self {
                peers: &[
                    "toEndpoints",
                    "toEntities",
                    "toCIDR",
                    "toCIDRSet",
                    "toGroups",
                    "toNodes",
                    "toServices",
                ],
                requires: "toRequires",
                deny,
            },
        }
    }

    fn known(&self) -> Vec<&'static str> {
        let mut known = self.peers.to_vec();
        known.extend([self.requires, "toPorts", "icmps"]);
        if !self.deny {
            known.push("authentication");
        }
        known
    }

    const fn elsewhere(&self) -> &'static [(&'static str, &'static str)] {
        if self.deny {
            &[
                (
                    "authentication",
                    "authentication stands in allow rules; a deny needs none",
                ),
                (
                    "toFQDNs",
                    "names stand in allow rules; deny addresses with toCIDR",
                ),
            ]
        } else {
            &[]
        }
    }
}

/// `fromRequires` and `toRequires` are gone from the API; the same is said by more labels per peer.
fn refuse_requires(field: &Field<'_>, name: &str, peers: &str, problems: &mut Problems) {
    let Some(found) = field.get(name) else { return };
    problems.error(
        "policy/removed-field",
        found.path.clone(),
        format!("`{name}` is not part of the API any more, so the policy is refused"),
        match rewritten(found.value, field.value.get(peers)) {
            Some(text) => format!("put its labels into every peer: {peers}: {text}"),
            None => format!("put its labels into every selector of {peers}"),
        },
    );
}

/// Every peer selector with every requirement added; `None` when that would be no line to read.
fn rewritten(requires: &Value, peers: Option<&Value>) -> Option<String> {
    let requires = requires.as_array()?;
    let everybody = [Value::Object(Map::new())];
    let peers = match peers.and_then(Value::as_array) {
        Some(list) if !list.is_empty() => list.as_slice(),
        _ => everybody.as_slice(),
    };
    if peers.len() > 4 || requires.len() > 4 {
        return None;
    }
    let mut found = Vec::new();
    for peer in peers {
        let mut merged = peer.as_object()?.clone();
        for required in requires {
            merge(&mut merged, required.as_object()?)?;
        }
        found.push(Value::Object(merged));
    }
    let text = Value::Array(found).to_string();
    (text.len() <= 400).then_some(text)
}

/// Adds a selector's requirements to another's; labels that differ cannot both hold in `matchLabels`.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) -> Option<()> {
    if let Some(labels) = from.get("matchLabels") {
        let all = into
            .entry("matchLabels")
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()?;
        for (key, value) in labels.as_object()? {
            if all
                .insert(key.clone(), value.clone())
                .is_some_and(|before| before != *value)
            {
                return None;
            }
        }
    }
    if let Some(expressions) = from.get("matchExpressions") {
        into.entry("matchExpressions")
            .or_insert_with(|| Value::Array(Vec::new()))
            .as_array_mut()?
            .extend(expressions.as_array()?.iter().cloned());
    }
    Some(())
}

fn authentication(field: &Field<'_>, unsupported: &mut Unsupported, problems: &mut Problems) {
    if !field.object(&["mode"], &[], problems) {
        return;
    }
    let Some(mode) = field.get("mode") else {
        field.missing("mode", "write mode: required", problems);
        return;
    };
    let modes = ["disabled", "required", "test-always-fail"];
    match mode.one_of(&modes, "policy/invalid-authentication", "a mode", problems) {
        // Without mutual authentication there is nothing to disable.
        Some("disabled") | None => {}
        Some(_) => unsupported.0.push(mode.path),
    }
}

/// Security groups of a cloud.
fn group(field: &Field<'_>, problems: &mut Problems) {
    if !field.object(&["aws"], &[], problems) {
        return;
    }
    let Some(aws) = field.get("aws") else { return };
    let lists = ["securityGroupsIds", "securityGroupsNames"];
    if !aws.object(&["labels", lists[0], lists[1], "region"], &[], problems) {
        return;
    }
    for name in lists {
        for item in aws.list(name, problems).unwrap_or_default() {
            item.text(problems);
        }
    }
    if let Some(region) = aws.get("region") {
        region.text(problems);
    }
    if let Some(labels) = aws.get("labels")
        && !labels.value.is_object()
    {
        labels.wrong_type("an object", problems);
    }
}
