//! `cilium.io/v2` CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (reference 1.2 to 1.4, 2).

use super::{
    CidrGroup, CidrGroups,
    fields::{Field, Problems, closest},
    kubernetes::warn_of_names_towards_addresses,
    ports::{self, cidr, holes},
    selectors::{Labels, in_any_namespace, in_namespace, requirements, selector},
};
use heddle_model::{Entity, LabelSet, Requirement};
use heddle_policy::{
    CidrBlock, EndpointSelector, IcmpFamily, Isolation, Peer, Peers, Policy, PolicyId, PolicyKind,
    PolicySpec, PortMatch, PortTerm, Ports, Rule, Section, Tier, Transport,
};
use ipnet::IpNet;
use serde_json::Value;

/// Ports of one `toPorts` entry, and fields of one `icmps` entry, at most (reference 1.2).
const MOST_PORTS: usize = 40;

const SECTIONS: [Section; 4] = [
    Section::Ingress,
    Section::IngressDeny,
    Section::Egress,
    Section::EgressDeny,
];

/// What the fields of one object share.
struct Scope<'a> {
    id: &'a PolicyId,
    groups: Option<&'a CidrGroups>,
}

pub(super) fn parse(
    root: &Field<'_>,
    id: PolicyId,
    groups: Option<&CidrGroups>,
    problems: &mut Problems,
) -> Option<Policy> {
    root.object(
        &["apiVersion", "kind", "metadata", "spec", "specs", "status"],
        &[],
        problems,
    );
    let scope = Scope { id: &id, groups };
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
            "ingress",
            "egress",
            "ingressDeny",
            "egressDeny",
            "enableDefaultDeny",
            "labels",
            "description",
        ];
        let unsupported = [
            (
                "nodeSelector",
                "host policies are not enforced yet; use endpointSelector",
            ),
            ("log", "remove it; flows name the policy by its object"),
        ];
        if !field.object(&known, &unsupported, problems) {
            return None;
        }
        let subject = self.subject(field, problems);
        let (wants_ingress, wants_egress) = match field.get("enableDefaultDeny") {
            None => (true, true),
            Some(flags) => {
                flags.object(&["ingress", "egress"], &[], problems);
                let mut flag = |name: &str| {
                    flags
                        .get(name)
                        .and_then(|flag| flag.boolean(problems))
                        .unwrap_or(true)
                };
                (flag("ingress"), flag("egress"))
            }
        };
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
                Section::Ingress | Section::IngressDeny => isolates.ingress = wants_ingress,
                Section::Egress | Section::EgressDeny => isolates.egress = wants_egress,
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
        Some(PolicySpec {
            position,
            subject: subject?,
            isolates,
            rules,
        })
    }

    fn subject(&self, spec: &Field<'_>, problems: &mut Problems) -> Option<EndpointSelector> {
        let Some(field) = spec.get("endpointSelector") else {
            if spec.get("nodeSelector").is_none() {
                problems.error(
                    "policy/missing-field",
                    spec.path_of("endpointSelector"),
                    "the policy does not say which endpoints it is about",
                    "write endpointSelector: {} for all pods of the namespace",
                );
            }
            return None;
        };
        let mut found = requirements(&field, Labels::Endpoint, problems);
        let reserved: Vec<&Requirement> = found.iter().filter(|r| is_reserved(r)).collect();
        for requirement in &reserved {
            if requirement.key != "reserved:init" {
                problems.error(
                    "policy/unsupported-field",
                    field.path.clone(),
                    format!(
                        "no policy is enforced for endpoints with {:?} yet, so the policy is refused",
                        requirement.key
                    ),
                    "select pods by their own labels",
                );
            }
        }
        if !self.clusterwide() && reserved.is_empty() {
            let named = found
                .iter()
                .any(|r| r.key == LabelSet::NAMESPACE && r.values != [self.id.namespace.clone()]);
            if named {
                problems.warning(
                    "policy/foreign-namespace",
                    field.path.clone(),
                    format!(
                        "the policy is only about pods of its own namespace {:?}",
                        self.id.namespace
                    ),
                    "leave the namespace label out, or use CiliumClusterwideNetworkPolicy",
                );
            }
            found.push(in_namespace(&self.id.namespace));
        }
        Some(EndpointSelector::new(selector(&field, found, problems)?))
    }

    fn rule(
        &self,
        field: &Field<'_>,
        section: Section,
        index: usize,
        problems: &mut Problems,
    ) -> Option<Rule> {
        let ingress = matches!(section, Section::Ingress | Section::IngressDeny);
        let names: [&str; 4] = if ingress {
            ["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"]
        } else {
            ["toEndpoints", "toEntities", "toCIDR", "toCIDRSet"]
        };
        let [endpoints, entities, cidrs, cidr_sets] = names;
        let mut known = names.to_vec();
        known.extend(["toPorts", "icmps"]);
        let unsupported: &[(&str, &str)] = if ingress {
            &[
                ("fromRequires", "write the labels into fromEndpoints"),
                ("fromGroups", "write the addresses as fromCIDRSet"),
                ("fromNodes", "use fromEntities: [host, remote-node]"),
                (
                    "authentication",
                    "remove it until mutual authentication is enforced",
                ),
            ]
        } else {
            &[
                ("toRequires", "write the labels into toEndpoints"),
                ("toGroups", "write the addresses as toCIDRSet"),
                ("toNodes", "use toEntities: [host, remote-node]"),
                ("toServices", "select the service's pods with toEndpoints"),
                (
                    "toFQDNs",
                    "write the addresses as toCIDR until DNS names are enforced",
                ),
                (
                    "authentication",
                    "remove it until mutual authentication is enforced",
                ),
            ]
        };
        if !field.object(&known, unsupported, problems) {
            return None;
        }
        let mut terms: Option<Vec<Peer>> = None;
        let mut kinds: Vec<&str> = Vec::new();
        for name in names {
            let Some(listed) = field.list(name, problems) else {
                continue;
            };
            let terms = terms.get_or_insert_default();
            if !listed.is_empty() {
                kinds.push(name);
            }
            for item in &listed {
                if name == endpoints {
                    terms.extend(self.endpoint(item, problems));
                } else if name == entities {
                    terms.extend(entity(item, problems).map(Peer::Entity));
                } else if name == cidrs {
                    terms
                        .extend(cidr(item, true, problems).map(|block| outside(block, Vec::new())));
                } else if name == cidr_sets {
                    terms.extend(self.cidr_set(item, problems));
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
        let ports = self.ports(field, problems);
        let peers = match (terms, &ports) {
            (Some(terms), _) => Peers::Terms(terms),
            // A rule that says nothing selects nothing (reference E3); with ports it is about anybody (E7).
            (None, Ports::All) => Peers::Terms(Vec::new()),
            (None, Ports::Only(_)) => Peers::Any,
        };
        warn_of_names_towards_addresses(field, section, &peers, &ports, problems);
        Some(Rule {
            section,
            index: u32::try_from(index).ok()?,
            action: section.action(),
            name: None,
            peers,
            ports,
        })
    }

    fn endpoint(&self, field: &Field<'_>, problems: &mut Problems) -> Option<Peer> {
        let mut found = requirements(field, Labels::Endpoint, problems);
        let placed = found.iter().any(|r| {
            is_reserved(r)
                || r.key == LabelSet::NAMESPACE
                || r.key.starts_with(LabelSet::NAMESPACE_LABELS)
        });
        if !placed {
            found.push(if self.clusterwide() {
                in_any_namespace()
            } else {
                in_namespace(&self.id.namespace)
            });
        }
        let selector = selector(field, found, problems)?;
        Some(Peer::Endpoints(EndpointSelector::new(selector)))
    }

    fn cidr_set(&self, field: &Field<'_>, problems: &mut Problems) -> Vec<Peer> {
        if !field.object(
            &["cidr", "cidrGroupRef", "cidrGroupSelector", "except"],
            &[],
            problems,
        ) {
            return Vec::new();
        }
        let except = field.list("except", problems).unwrap_or_default();
        let chosen = [
            field.get("cidr"),
            field.get("cidrGroupRef"),
            field.get("cidrGroupSelector"),
        ];
        match chosen {
            [Some(written), None, None] => {
                let block = cidr(&written, true, problems);
                let holes = holes(&except, block, false, problems);
                block
                    .map(|block| outside(block, holes))
                    .into_iter()
                    .collect()
            }
            [None, Some(reference), None] => {
                let Some(groups) = self.known_groups(&reference, problems) else {
                    return Vec::new();
                };
                let name = reference.text(problems).unwrap_or_default();
                let group = groups.get(name);
                if group.is_none() {
                    problems.warning(
                        "policy/missing-cidr-group",
                        reference.path.clone(),
                        format!("there is no CiliumCIDRGroup {name:?}, so this selects nothing"),
                        "create the group, or check its name",
                    );
                }
                let holes = holes(&except, None, false, problems);
                group
                    .into_iter()
                    .flat_map(|group| of_group(group, &holes))
                    .collect()
            }
            [None, None, Some(wanted)] => {
                let Some(groups) = self.known_groups(&wanted, problems) else {
                    return Vec::new();
                };
                let found = requirements(&wanted, Labels::Object, problems);
                let Some(selector) = selector(&wanted, found, problems) else {
                    return Vec::new();
                };
                let holes = holes(&except, None, false, problems);
                groups
                    .values()
                    .filter(|group| {
                        selector.matches(|key| group.labels.get(key).map(String::as_str))
                    })
                    .flat_map(|group| of_group(group, &holes))
                    .collect()
            }
            _ => {
                problems.error(
                    "policy/invalid-cidr-set",
                    field.path.clone(),
                    "exactly one of cidr, cidrGroupRef and cidrGroupSelector must be given",
                    "write one of them per entry",
                );
                Vec::new()
            }
        }
    }

    fn known_groups(&self, field: &Field<'_>, problems: &mut Problems) -> Option<&CidrGroups> {
        if self.groups.is_none() {
            problems.error(
                "policy/unsupported-field",
                field.path.clone(),
                "CIDR groups are not enforced here yet, so the policy is refused",
                "write the addresses as cidr",
            );
        }
        self.groups
    }

    fn ports(&self, field: &Field<'_>, problems: &mut Problems) -> Ports {
        let listed = field.list("toPorts", problems).unwrap_or_default();
        let icmps = field.list("icmps", problems).unwrap_or_default();
        if !listed.is_empty() && !icmps.is_empty() {
            problems.error(
                "policy/combined-ports",
                field.path_of("icmps"),
                "icmps cannot stand with toPorts in one rule",
                "write them as two rules",
            );
        }
        if listed.is_empty() && icmps.is_empty() {
            return Ports::All;
        }
        let mut terms = Vec::new();
        for entry in &listed {
            let unsupported = [
                ("rules", "remove the L7 rules until they are enforced"),
                (
                    "terminatingTLS",
                    "remove it until TLS inspection is enforced",
                ),
                (
                    "originatingTLS",
                    "remove it until TLS inspection is enforced",
                ),
                ("serverNames", "remove it until server names are enforced"),
                ("listener", "remove it until listeners are enforced"),
            ];
            if entry.object(&["ports"], &unsupported, problems) {
                let ports = entry.list("ports", problems).unwrap_or_default();
                check_count(entry, "ports", ports.len(), problems);
                terms.extend(ports.iter().filter_map(|port| port_term(port, problems)));
            }
        }
        for entry in &icmps {
            if entry.object(&["fields"], &[], problems) {
                let fields = entry.list("fields", problems).unwrap_or_default();
                check_count(entry, "fields", fields.len(), problems);
                terms.extend(fields.iter().filter_map(|icmp| icmp_term(icmp, problems)));
            }
        }
        Ports::Only(terms)
    }
}

fn check_count(entry: &Field<'_>, name: &str, count: usize, problems: &mut Problems) {
    if count > MOST_PORTS {
        problems.error(
            "policy/too-many-ports",
            entry.path_of(name),
            format!("too many {name}, the max is {MOST_PORTS}; there are {count}"),
            "use a range with endPort, or more entries",
        );
    }
}

fn is_reserved(requirement: &Requirement) -> bool {
    requirement.key.starts_with("reserved:")
}

/// A block as Cilium means it: outside the cluster (reference I1).
const fn outside(block: IpNet, except: Vec<IpNet>) -> Peer {
    Peer::Cidr(CidrBlock {
        block,
        except,
        in_cluster: false,
    })
}

/// A group's blocks; each gets the holes that lie in it, and a hole around it takes it away.
fn of_group(group: &CidrGroup, holes: &[IpNet]) -> Vec<Peer> {
    group
        .cidrs
        .iter()
        .filter(|block| !holes.iter().any(|hole| hole.contains(*block)))
        .map(|block| {
            let inside = holes
                .iter()
                .filter(|hole| block.contains(*hole))
                .copied()
                .collect();
            outside(*block, inside)
        })
        .collect()
}

fn entity(field: &Field<'_>, problems: &mut Problems) -> Option<Entity> {
    let text = field.text(problems)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let known: Vec<&str> = Entity::ALL.iter().map(|entity| entity.name()).collect();
        problems.error(
            "policy/unknown-entity",
            field.path.clone(),
            format!("unknown entity {text:?}"),
            match closest(text, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("entities: {}", known.join(", ")),
            },
        );
    }
    parsed
}

fn port_term(field: &Field<'_>, problems: &mut Problems) -> Option<PortTerm> {
    if !field.object(&["port", "endPort", "protocol"], &[], problems) {
        return None;
    }
    let transport = match field.get("protocol") {
        None => Some(Transport::Any),
        Some(protocol) => transport(&protocol, problems),
    };
    let matched = match field.get("port") {
        None => Some(PortMatch::All),
        Some(written) => match written.text(problems) {
            None => None,
            Some("" | "0") => Some(PortMatch::All),
            Some(text) => match text.parse::<i64>() {
                Ok(value) => ports::number(&written, value, problems)
                    .map(|port| PortMatch::Range(port, port)),
                Err(_) => {
                    let name = text.to_ascii_lowercase();
                    if ports::is_name(&name) {
                        Some(PortMatch::Name(name))
                    } else {
                        ports::not_a_name(&written, text, problems);
                        None
                    }
                }
            },
        },
    };
    // endPort 0 is as good as missing in this API.
    let end = field
        .get("endPort")
        .filter(|end| end.value != &Value::from(0));
    let matched = ports::with_end(matched, end, problems);
    Some(PortTerm::Transport(transport?, matched?))
}

fn transport(field: &Field<'_>, problems: &mut Problems) -> Option<Transport> {
    let known = ["TCP", "UDP", "SCTP", "ANY"];
    match field.text(problems)? {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        "SCTP" => Some(Transport::Sctp),
        "ANY" | "" => Some(Transport::Any),
        other @ ("VRRP" | "IGMP" | "GRE" | "IPIP" | "IPV6" | "ESP" | "AH") => {
            problems.error(
                "policy/unsupported-field",
                field.path.clone(),
                format!("protocol {other} is not enforced yet, so the policy is refused"),
                "a rule without toPorts covers every protocol",
            );
            None
        }
        other => {
            problems.error(
                "policy/invalid-protocol",
                field.path.clone(),
                format!("{other:?} is not a protocol"),
                match closest(other, &known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if other.to_ascii_uppercase().starts_with("ICMP") => {
                        "write ICMP types under icmps".into()
                    }
                    None => format!("protocols: {}", known.join(", ")),
                },
            );
            None
        }
    }
}

fn icmp_term(field: &Field<'_>, problems: &mut Problems) -> Option<PortTerm> {
    if !field.object(&["family", "type"], &[], problems) {
        return None;
    }
    let family = match field.get("family") {
        None => IcmpFamily::V4,
        Some(family) => match family.text(problems)? {
            "IPv4" => IcmpFamily::V4,
            "IPv6" => IcmpFamily::V6,
            other => {
                problems.error(
                    "policy/invalid-icmp",
                    family.path.clone(),
                    format!("{other:?} is not an address family"),
                    "families: IPv4, IPv6",
                );
                return None;
            }
        },
    };
    let Some(written) = field.get("type") else {
        problems.error(
            "policy/missing-field",
            field.path_of("type"),
            "the ICMP field has no type",
            "write type: 8, or type: EchoRequest",
        );
        return None;
    };
    let kind = match written.value {
        Value::String(name) => match name.parse::<u8>() {
            Ok(kind) => Some(kind),
            Err(_) => PortTerm::icmp_type(family, name),
        },
        other => other.as_u64().and_then(|kind| u8::try_from(kind).ok()),
    };
    if kind.is_none() {
        problems.error(
            "policy/invalid-icmp",
            written.path.clone(),
            format!("{} is not an ICMP type of this family", written.value),
            "types are 0 to 255, or a name such as EchoRequest",
        );
    }
    Some(PortTerm::Icmp(family, kind?))
}

/// Reads a CiliumCIDRGroup's labels and CIDRs.
pub(super) fn cidr_group(root: &Field<'_>, object: &Value, problems: &mut Problems) -> CidrGroup {
    root.object(
        &["apiVersion", "kind", "metadata", "spec", "status"],
        &[],
        problems,
    );
    let mut group = CidrGroup {
        labels: crate::pod::labels(object)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        cidrs: Vec::new(),
    };
    let Some(spec) = root.get("spec") else {
        problems.error(
            "policy/missing-field",
            "spec",
            "the group has no spec",
            "write spec.externalCIDRs",
        );
        return group;
    };
    spec.object(&["externalCIDRs"], &[], problems);
    for field in spec.list("externalCIDRs", problems).unwrap_or_default() {
        group.cidrs.extend(cidr(&field, true, problems));
    }
    group
}
