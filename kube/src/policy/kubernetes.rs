//! `networking.k8s.io/v1` NetworkPolicy, as its specification has it (reference 2.8 names where others
//! deviate).

use super::{
    fields::Field,
    ports::{self, cidr, holes},
    problems::{Problems, quoted},
    selectors::{Labels, in_any_namespace, in_namespace, requirements, selector},
};
use heddle_policy::{
    CidrBlock, EndpointSelector, Isolation, Peer, Peers, Policy, PolicyId, PolicySpec, PortMatch,
    PortTerm, Ports, Rule, Section, Tier, Transport,
};
use serde_json::Value;

pub(super) fn parse(root: &Field<'_>, id: PolicyId, problems: &mut Problems) -> Option<Policy> {
    root.object(
        &["apiVersion", "kind", "metadata", "spec", "status"],
        &[],
        problems,
    );
    let Some(spec) = root.get("spec") else {
        problems.error(
            "policy/missing-field",
            "spec",
            "the policy has no spec",
            "write spec with podSelector, policyTypes, ingress and egress",
        );
        return None;
    };
    if !spec.object(
        &["podSelector", "policyTypes", "ingress", "egress"],
        &[],
        problems,
    ) {
        return None;
    }
    let mut subject = match spec.get("podSelector") {
        Some(field) => requirements(&field, Labels::Pod, problems),
        None => {
            problems.warning(
                "policy/missing-field",
                "spec.podSelector",
                "without podSelector the policy is about every pod of its namespace",
                "write podSelector: {} if that is meant",
            );
            Vec::new()
        }
    };
    subject.push(in_namespace(&id.namespace));
    let subject = EndpointSelector::new(selector(&spec, subject, problems)?);
    let isolates = isolation(&spec, problems);
    let mut rules = Vec::new();
    for section in [Section::Ingress, Section::Egress] {
        let listed = spec.list(section.name(), problems).unwrap_or_default();
        if !listed.is_empty() && !isolates.holds(section.direction()) {
            problems.warning(
                "policy/section-without-type",
                spec.path_of(section.name()),
                format!(
                    "policyTypes leaves this direction out, so these {} rules have no effect",
                    section.name()
                ),
                "add the direction to policyTypes, or remove the rules",
            );
        }
        for (index, field) in listed.iter().enumerate() {
            let rule = rule(field, section, index, &id.namespace, problems);
            if isolates.holds(section.direction()) {
                rules.extend(rule);
            }
        }
    }
    Some(Policy {
        id,
        tier: Tier::Normal,
        priority: 0,
        specs: vec![PolicySpec {
            position: None,
            subject,
            isolates,
            rules,
        }],
    })
}

/// `policyTypes`, or its default: Ingress always, Egress when there is an egress rule.
fn isolation(spec: &Field<'_>, problems: &mut Problems) -> Isolation {
    let listed = spec.list("policyTypes", problems).unwrap_or_default();
    if listed.is_empty() {
        let egress = spec.value.get("egress").and_then(Value::as_array);
        if egress.is_some_and(Vec::is_empty) {
            problems.warning(
                "policy/egress-without-type",
                "spec.egress",
                "without policyTypes an empty egress list isolates nothing",
                "write policyTypes: [Ingress, Egress] to deny all egress",
            );
        }
        return Isolation {
            ingress: true,
            egress: egress.is_some_and(|rules| !rules.is_empty()),
        };
    }
    if listed.len() > 2 {
        problems.error(
            "policy/invalid-policy-type",
            spec.path_of("policyTypes"),
            format!("there are {} policy types, the max is 2", listed.len()),
            "write each of Ingress and Egress once at most",
        );
    }
    let mut isolates = Isolation::default();
    for field in listed.iter().take(2) {
        let types = ["Ingress", "Egress"];
        match field.one_of(
            &types,
            "policy/invalid-policy-type",
            "a policy type",
            problems,
        ) {
            Some("Ingress") => isolates.ingress = true,
            Some(_) => isolates.egress = true,
            None => {}
        }
    }
    isolates
}

fn rule(
    field: &Field<'_>,
    section: Section,
    index: usize,
    namespace: &str,
    problems: &mut Problems,
) -> Option<Rule> {
    let peers_field = match section {
        Section::Ingress => "from",
        _ => "to",
    };
    if !field.object(&[peers_field, "ports"], &[], problems) {
        return None;
    }
    // Empty and missing lists mean the same in this API: anybody, everything.
    for (name, meaning, help) in [
        (
            peers_field,
            "an empty list of peers is anybody, in the cluster and outside",
            "leave it out if that is meant; to allow nobody leave the rule out",
        ),
        (
            "ports",
            "an empty list of ports is every port and protocol",
            "leave it out if that is meant, or name the ports",
        ),
    ] {
        if field
            .get(name)
            .is_some_and(|list| list.value.as_array().is_some_and(Vec::is_empty))
        {
            problems.warning("policy/empty-list", field.path_of(name), meaning, help);
        }
    }
    let listed = field.list(peers_field, problems).unwrap_or_default();
    let peers = if listed.is_empty() {
        Peers::Any
    } else {
        Peers::Terms(
            listed
                .iter()
                .filter_map(|field| peer(field, namespace, problems))
                .collect(),
        )
    };
    let listed = field.list("ports", problems).unwrap_or_default();
    let ports = if listed.is_empty() {
        Ports::All
    } else if !ports::check_count(&field.path_of("ports"), listed.len(), problems) {
        Ports::Only(Vec::new())
    } else {
        Ports::Only(
            listed
                .iter()
                .filter_map(|field| port(field, problems))
                .collect(),
        )
    };
    Some(Rule {
        section,
        index: u32::try_from(index).ok()?,
        action: section.action(),
        name: None,
        peers,
        ports,
    })
}

fn peer(field: &Field<'_>, namespace: &str, problems: &mut Problems) -> Option<Peer> {
    if !field.object(
        &["podSelector", "namespaceSelector", "ipBlock"],
        &[],
        problems,
    ) {
        return None;
    }
    let pods = field.get("podSelector");
    let namespaces = field.get("namespaceSelector");
    if let Some(block) = field.get("ipBlock") {
        if pods.is_some() || namespaces.is_some() {
            problems.error(
                "policy/combined-peers",
                field.path.clone(),
                "ipBlock cannot stand with podSelector or namespaceSelector in one peer",
                "write them as two peers: start the second with `- `",
            );
            return None;
        }
        return ip_block(&block, problems);
    }
    if pods.is_none() && namespaces.is_none() {
        problems.error(
            "policy/empty-peer",
            field.path.clone(),
            "the peer says nothing",
            "write podSelector, namespaceSelector or ipBlock; for anybody leave the whole list out",
        );
        return None;
    }
    let mut found = match &pods {
        Some(pods) => requirements(pods, Labels::Pod, problems),
        None => Vec::new(),
    };
    match &namespaces {
        Some(namespaces) => {
            found.push(in_any_namespace());
            found.extend(requirements(namespaces, Labels::Namespace, problems));
        }
        None => found.push(in_namespace(namespace)),
    }
    let selector = selector(field, found, problems)?;
    Some(Peer::Endpoints(EndpointSelector::new(selector)))
}

fn ip_block(field: &Field<'_>, problems: &mut Problems) -> Option<Peer> {
    if !field.object(&["cidr", "except"], &[], problems) {
        return None;
    }
    let Some(written) = field.get("cidr") else {
        problems.error(
            "policy/missing-field",
            field.path_of("cidr"),
            "the block has no cidr",
            "write cidr: ADDRESS/LENGTH",
        );
        return None;
    };
    let block = cidr(&written, false, problems);
    let listed = field.list("except", problems).unwrap_or_default();
    let except = holes(&listed, block, true, problems);
    Some(Peer::Cidr(CidrBlock {
        block: block?,
        except,
        in_cluster: true,
    }))
}

fn port(field: &Field<'_>, problems: &mut Problems) -> Option<PortTerm> {
    if !field.object(&["protocol", "port", "endPort"], &[], problems) {
        return None;
    }
    let transport = match field.get("protocol") {
        None => Some(Transport::Tcp),
        Some(protocol) => {
            let known = ["TCP", "UDP", "SCTP"];
            match protocol.one_of(
                &known,
                "policy/invalid-protocol",
                "a protocol of NetworkPolicy",
                problems,
            ) {
                Some("TCP") => Some(Transport::Tcp),
                Some("UDP") => Some(Transport::Udp),
                Some(_) => Some(Transport::Sctp),
                None => None,
            }
        }
    };
    let matched = match field.get("port") {
        None => Some(PortMatch::All),
        Some(written) => match written.value {
            Value::String(name) if ports::is_name(name) => Some(PortMatch::Name(name.clone())),
            Value::String(text) => {
                match text.parse::<u16>() {
                    Ok(number) => problems.error(
                        "policy/invalid-port",
                        written.path.clone(),
                        format!(
                            "{} in quotes is read as a name, and is not one",
                            quoted(text)
                        ),
                        format!("write it without quotes: {number}"),
                    ),
                    Err(_) => ports::not_a_name(&written, text, problems),
                }
                None
            }
            _ => {
                let value = written.integer(problems)?;
                ports::number(&written, value, problems).map(|port| PortMatch::Range(port, port))
            }
        },
    };
    // A wrong port has been said already; its endPort would only be noise.
    let matched = ports::with_end(matched, field.get("endPort"), problems);
    Some(PortTerm::Transport(transport?, matched?))
}
