//! `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy (reference 2.9).
//!
//! Ports are read in the form of the released API (`protocols`) and in the one that its first drafts had (`ports`).

use super::{
    fields::Field,
    names,
    ports::{self, cidr},
    problems::{Problems, quoted},
    selectors::{Labels, in_any_namespace, nodes, requirements, selector},
};
use heddle_policy::{
    Action, CidrBlock, EndpointSelector, Isolation, Peer, Peers, Policy, PolicyId, PolicySpec,
    PortMatch, PortTerm, Ports, Rule, Section, Tier, Transport,
};

/// Rules of one list, peers of one rule, CIDRs of one peer and ports of one rule at most (the API's bounds).
const MOST_ITEMS: usize = 25;
/// Characters of a rule's name at most.
const MOST_NAME: usize = 100;
/// The least precedence; 0 is the greatest.
const LAST_PRIORITY: i64 = 1000;

pub(super) fn parse(root: &Field<'_>, id: PolicyId, problems: &mut Problems) -> Option<Policy> {
    root.object(
        &["apiVersion", "kind", "metadata", "spec", "status"],
        &[],
        problems,
    );
    let Some(spec) = root.get("spec") else {
        root.missing(
            "spec",
            "write spec with tier, priority, subject and rules",
            problems,
        );
        return None;
    };
    let known = ["tier", "priority", "subject", "ingress", "egress"];
    if !spec.object(&known, &[], problems) {
        return None;
    }
    let tier = tier(&spec, problems);
    let priority = priority(&spec, problems);
    let subject = match spec.get("subject") {
        Some(field) => subject(&field, problems),
        None => {
            spec.missing(
                "subject",
                "write subject: {namespaces: {}} for every pod",
                problems,
            );
            None
        }
    };
    let mut rules = Vec::new();
    for section in [Section::Ingress, Section::Egress] {
        let listed = spec.list(section.name(), problems).unwrap_or_default();
        if few_enough(
            &spec.path_of(section.name()),
            listed.len(),
            0,
            "rules",
            problems,
        ) {
            for (index, field) in listed.iter().enumerate() {
                rules.extend(rule(field, section, index, problems));
            }
        }
    }
    if rules.is_empty() && !problems.any_error() {
        problems.warning(
            "policy/no-rules",
            spec.path.clone(),
            "the policy has no rule, so it has no effect",
            "write ingress or egress",
        );
    }
    Some(Policy {
        id,
        tier: tier?,
        priority: priority?,
        specs: vec![PolicySpec {
            position: None,
            subject: subject?,
            // What no rule decides is left to the next tier; nothing is denied by being selected.
            isolates: Isolation::default(),
            rules,
        }],
    })
}

fn tier(spec: &Field<'_>, problems: &mut Problems) -> Option<Tier> {
    let Some(field) = spec.get("tier") else {
        spec.missing("tier", "write tier: Admin, or tier: Baseline", problems);
        return None;
    };
    match field.one_of(
        &["Admin", "Baseline"],
        "policy/invalid-tier",
        "a tier",
        problems,
    )? {
        "Admin" => Some(Tier::Admin),
        _ => Some(Tier::Baseline),
    }
}

fn priority(spec: &Field<'_>, problems: &mut Problems) -> Option<i32> {
    let Some(field) = spec.get("priority") else {
        spec.missing(
            "priority",
            "write priority: 0 (first) to 1000 (last)",
            problems,
        );
        return None;
    };
    let value = field.integer(problems)?;
    if !(0..=LAST_PRIORITY).contains(&value) {
        problems.error(
            "policy/invalid-priority",
            field.path.clone(),
            format!("{value} is not a priority"),
            "priorities go from 0 (first) to 1000 (last)",
        );
        return None;
    }
    i32::try_from(value).ok()
}

/// Checks the length of a list: at least `least` items, at most 25.
fn few_enough(path: &str, count: usize, least: usize, what: &str, problems: &mut Problems) -> bool {
    if count > MOST_ITEMS {
        problems.error(
            "policy/too-many-items",
            path,
            format!("there are {count} {what}, the max is {MOST_ITEMS}"),
            "write a second policy, with a priority of its own",
        );
    } else if count < least {
        problems.error(
            "policy/missing-field",
            path,
            format!("the list of {what} is empty"),
            "write at least one, or leave the list out where it may be left out",
        );
    }
    (least..=MOST_ITEMS).contains(&count)
}

/// The one field of an object that must have exactly one.
fn the_one<'a>(
    field: &Field<'a>,
    known: &[&'static str],
    what: &str,
    problems: &mut Problems,
) -> Option<(&'static str, Field<'a>)> {
    if !field.object(known, &[], problems) {
        return None;
    }
    let mut given = known
        .iter()
        .filter_map(|name| Some((*name, field.get(name)?)));
    match (given.next(), given.next()) {
        (Some(one), None) => Some(one),
        (None, _) => {
            // An object whose only field is unknown has been told so already.
            if field
                .value
                .as_object()
                .is_some_and(serde_json::Map::is_empty)
            {
                problems.error(
                    "policy/empty-peer",
                    field.path.clone(),
                    format!("{what} says nothing"),
                    format!("write one of: {}", known.join(", ")),
                );
            }
            None
        }
        (Some((one, _)), Some((another, _))) => {
            problems.error(
                "policy/combined-peers",
                field.path.clone(),
                format!("{what} has {one} and {another}, but may have one field only"),
                "write them as two entries",
            );
            None
        }
    }
}

fn subject(field: &Field<'_>, problems: &mut Problems) -> Option<EndpointSelector> {
    match the_one(field, &["namespaces", "pods"], "the subject", problems)? {
        ("namespaces", namespaces) => of_namespaces(&namespaces, problems),
        (_, pods) => of_pods(&pods, problems),
    }
}

/// Every pod of the namespaces that match; pods in their node's network have no endpoint and never match.
fn of_namespaces(field: &Field<'_>, problems: &mut Problems) -> Option<EndpointSelector> {
    let mut found = vec![in_any_namespace()];
    found.extend(requirements(field, Labels::Namespace, problems));
    Some(EndpointSelector::new(selector(field, found, problems)?))
}

fn of_pods(field: &Field<'_>, problems: &mut Problems) -> Option<EndpointSelector> {
    let known = ["namespaceSelector", "podSelector"];
    if !field.object(&known, &[], problems) {
        return None;
    }
    let mut found = vec![in_any_namespace()];
    let mut all = true;
    for (name, labels) in known.into_iter().zip([Labels::Namespace, Labels::Pod]) {
        match field.get(name) {
            Some(labels_field) => found.extend(requirements(&labels_field, labels, problems)),
            None => {
                all = false;
                field.missing(
                    name,
                    &format!("write {name}: {{}} for all of them"),
                    problems,
                );
            }
        }
    }
    all.then_some(())?;
    Some(EndpointSelector::new(selector(field, found, problems)?))
}

fn rule(
    field: &Field<'_>,
    section: Section,
    index: usize,
    problems: &mut Problems,
) -> Option<Rule> {
    let peers_name = match section {
        Section::Ingress => "from",
        _ => "to",
    };
    let known = ["name", "action", peers_name, "protocols", "ports"];
    if !field.object(&known, &[], problems) {
        return None;
    }
    let name = rule_name(field, problems);
    let action = action(field, problems);
    let mut unsupported = Vec::new();
    let peers = peers(field, peers_name, section, &mut unsupported, problems);
    let ports = rule_ports(field, problems);
    let names_a_port = matches!(&ports, Some(Ports::Only(terms)) if terms.iter()
        .any(|term| matches!(term, PortTerm::Transport(_, PortMatch::Name(_)))));
    let has_addresses = peers.as_ref().is_some_and(|terms| {
        terms
            .iter()
            .any(|term| matches!(term, Peer::Cidr(_) | Peer::Nodes(_)))
    });
    if section == Section::Egress && names_a_port && (has_addresses || !unsupported.is_empty()) {
        problems.error(
            "policy/named-port-with-cidr",
            field.path.clone(),
            "a named port cannot stand with networks, nodes or domainNames: these have no named ports",
            "write the port as a number, or these peers as a rule of their own",
        );
    }
    if let Some((path, what)) = unsupported.first() {
        problems.error(
            "policy/unsupported-yet",
            path.clone(),
            format!("`{what}` is not enforced yet, so the policy is refused"),
            "write the addresses as networks until DNS names are enforced",
        );
        if action != Some(Action::Allow) && *what == "domainNames" && action.is_some() {
            problems.error(
                "policy/invalid-action",
                field.path_of("action"),
                "domainNames stand in Accept rules only",
                "accept the names, and deny the rest in a later rule",
            );
        }
    }
    Some(Rule {
        section,
        index: u32::try_from(index).ok()?,
        action: action?,
        name,
        peers: Peers::Terms(peers?),
        ports: ports?,
    })
}

fn rule_name(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let name = field.get("name")?;
    let text = name.text(problems)?;
    if text.chars().count() > MOST_NAME {
        problems.error(
            "policy/invalid-name",
            name.path.clone(),
            format!("{} has more than {MOST_NAME} characters", quoted(text)),
            "shorten it",
        );
    }
    (!text.is_empty()).then(|| text.to_owned())
}

fn action(field: &Field<'_>, problems: &mut Problems) -> Option<Action> {
    let Some(written) = field.get("action") else {
        field.missing("action", "write action: Accept, Deny or Pass", problems);
        return None;
    };
    if written.value == "Allow" {
        problems.error(
            "policy/invalid-action",
            written.path.clone(),
            "\"Allow\" is not an action",
            "did you mean `Accept`?",
        );
        return None;
    }
    let actions = ["Accept", "Deny", "Pass"];
    match written.one_of(&actions, "policy/invalid-action", "an action", problems)? {
        "Accept" => Some(Action::Allow),
        "Deny" => Some(Action::Deny),
        _ => Some(Action::Pass),
    }
}

/// The peers. One that is not understood refuses the policy: as an accept it would allow too little, as a
/// deny or pass too much, and the specification wants neither to go unnoticed.
fn peers(
    field: &Field<'_>,
    name: &str,
    section: Section,
    unsupported: &mut Vec<(String, &'static str)>,
    problems: &mut Problems,
) -> Option<Vec<Peer>> {
    let Some(list) = field.get(name) else {
        field.missing(name, "name at least one peer", problems);
        return None;
    };
    let listed = list.items(problems);
    if !few_enough(&list.path, listed.len(), 1, "peers", problems) {
        return None;
    }
    let known: &[&'static str] = match section {
        Section::Ingress => &["namespaces", "pods"],
        _ => &["namespaces", "pods", "nodes", "networks", "domainNames"],
    };
    let mut terms = Vec::new();
    for item in &listed {
        match the_one(item, known, "the peer", problems) {
            Some(("namespaces", field)) => {
                terms.extend(of_namespaces(&field, problems).map(Peer::Endpoints));
            }
            Some(("pods", field)) => terms.extend(of_pods(&field, problems).map(Peer::Endpoints)),
            Some(("networks", field)) => networks(&field, &mut terms, problems),
            Some(("nodes", field)) => terms.extend(nodes(&field, problems).map(Peer::Nodes)),
            Some((_, field)) => {
                domain_names(&field, problems);
                unsupported.push((field.path, "domainNames"));
            }
            None => {}
        }
    }
    Some(terms)
}

/// CIDRs; pods and nodes are selected by their addresses too, as the specification has it.
fn networks(field: &Field<'_>, terms: &mut Vec<Peer>, problems: &mut Problems) {
    let listed = field.items(problems);
    if !few_enough(&field.path, listed.len(), 1, "networks", problems) {
        return;
    }
    for item in &listed {
        terms.extend(cidr(item, false, problems).map(|block| {
            Peer::Cidr(CidrBlock {
                block,
                except: Vec::new(),
                in_cluster: true,
            })
        }));
    }
}

/// Names, with `*` as the whole first label only.
fn domain_names(field: &Field<'_>, problems: &mut Problems) {
    let listed = field.items(problems);
    if !few_enough(&field.path, listed.len(), 1, "domain names", problems) {
        return;
    }
    for item in &listed {
        let Some(text) = item.value.as_str() else {
            item.wrong_type("a string", problems);
            continue;
        };
        let rest = text.strip_prefix("*.").unwrap_or(text);
        if rest.contains('*') || !rest.trim_end_matches('.').contains('.') {
            problems.error(
                "policy/invalid-name-match",
                item.path.clone(),
                format!("{} is not a domain name", quoted(text)),
                "write a name of two labels or more, for example example.com or *.example.com",
            );
        } else {
            names::check_pattern(item, problems);
        }
    }
}

fn rule_ports(field: &Field<'_>, problems: &mut Problems) -> Option<Ports> {
    let (protocols, drafted) = (field.get("protocols"), field.get("ports"));
    let (list, read): (_, fn(&Field<'_>, &mut Problems) -> Option<PortTerm>) =
        match (protocols, drafted) {
            (None, None) => return Some(Ports::All),
            (Some(list), None) => (list, protocol),
            (None, Some(list)) => (list, drafted_port),
            (Some(_), Some(list)) => {
                problems.error(
                    "policy/combined-ports",
                    list.path.clone(),
                    "ports is the older form of protocols; the two cannot stand in one rule",
                    "move its entries into protocols",
                );
                return None;
            }
        };
    let listed = list.items(problems);
    if !few_enough(&list.path, listed.len(), 1, "ports", problems) {
        return None;
    }
    let terms: Vec<PortTerm> = listed
        .iter()
        .filter_map(|item| read(item, problems))
        .collect();
    Some(Ports::Only(terms))
}

/// `{tcp | udp | sctp: {destinationPort: {number | range}}}` or `{destinationNamedPort: NAME}`.
fn protocol(field: &Field<'_>, problems: &mut Problems) -> Option<PortTerm> {
    let known = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let (name, inner) = the_one(field, &known, "the entry", problems)?;
    let transport = match name {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        "sctp" => Transport::Sctp,
        // The name tells the protocol, too: it is the one that the pod declares it with.
        _ => {
            return port_name(&inner, problems)
                .map(|port| PortTerm::Transport(Transport::Any, port));
        }
    };
    if !inner.object(&["destinationPort"], &[], problems) {
        return None;
    }
    let Some(port) = inner.get("destinationPort") else {
        inner.missing(
            "destinationPort",
            "write destinationPort: {number: PORT}; every port is range: {start: 1, end: 65535}",
            problems,
        );
        return None;
    };
    let matched = match the_one(&port, &["number", "range"], "the port", problems)? {
        ("number", number) => {
            let value = number.integer(problems)?;
            let port = ports::number(&number, value, problems)?;
            PortMatch::Range(port, port)
        }
        (_, range) => {
            range.object(&["start", "end"], &[], problems);
            ends(&range, problems)?
        }
    };
    Some(PortTerm::Transport(transport, matched))
}

/// `{portNumber: {protocol, port}} | {portRange: {protocol, start, end}} | {namedPort: NAME}`.
fn drafted_port(field: &Field<'_>, problems: &mut Problems) -> Option<PortTerm> {
    let known = ["portNumber", "portRange", "namedPort"];
    let (name, inner) = the_one(field, &known, "the entry", problems)?;
    let fields: &[&str] = match name {
        "portNumber" => &["protocol", "port"],
        "portRange" => &["protocol", "start", "end"],
        _ => {
            return port_name(&inner, problems)
                .map(|port| PortTerm::Transport(Transport::Any, port));
        }
    };
    if !inner.object(fields, &[], problems) {
        return None;
    }
    let transport = match inner.get("protocol") {
        None => Transport::Tcp,
        Some(written) => {
            let known = ["TCP", "UDP", "SCTP"];
            match written.one_of(&known, "policy/invalid-protocol", "a protocol", problems)? {
                "TCP" => Transport::Tcp,
                "UDP" => Transport::Udp,
                _ => Transport::Sctp,
            }
        }
    };
    let matched = if name == "portRange" {
        ends(&inner, problems)?
    } else {
        let port = required_number(&inner, "port", problems)?;
        PortMatch::Range(port, port)
    };
    Some(PortTerm::Transport(transport, matched))
}

fn required_number(field: &Field<'_>, name: &str, problems: &mut Problems) -> Option<u16> {
    match field.get(name) {
        Some(number) => {
            let value = number.integer(problems)?;
            ports::number(&number, value, problems)
        }
        None => {
            field.missing(name, "write a port from 1 to 65535", problems);
            None
        }
    }
}

fn ends(field: &Field<'_>, problems: &mut Problems) -> Option<PortMatch> {
    let (start, end) = (
        required_number(field, "start", problems),
        required_number(field, "end", problems),
    );
    let (start, end) = (start?, end?);
    if start >= end {
        problems.error(
            "policy/invalid-end-port",
            field.path_of("end"),
            format!("end {end} must be greater than start {start}"),
            "write the greater port as end; one port alone is a number",
        );
        return None;
    }
    Some(PortMatch::Range(start, end))
}

fn port_name(field: &Field<'_>, problems: &mut Problems) -> Option<PortMatch> {
    let name = field.text(problems)?;
    if !ports::is_name(name) {
        ports::not_a_name(field, name, problems);
        return None;
    }
    Some(PortMatch::Name(name.to_owned()))
}
