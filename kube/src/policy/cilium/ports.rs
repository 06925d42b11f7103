//! `toPorts` and `icmps` of a rule.

use super::{
    super::{
        fields::{Field, closest},
        ports::{self, check_count},
        problems::{Problems, quoted},
    },
    Scope,
    l7::{self, PortsBeside},
    rule::Unsupported,
};
use heddle_policy::{IcmpFamily, PortMatch, PortTerm, Ports, Section, Transport};
use serde_json::Value;

/// Ports of one `toPorts` entry, and fields of one `icmps` entry, at most (reference 1.2).
const MOST_PORTS: usize = 40;
/// Beside the ports of an allow rule.
const BESIDE: [&str; 5] = [
    "terminatingTLS",
    "originatingTLS",
    "serverNames",
    "listener",
    "rules",
];

impl Scope<'_> {
    pub(super) fn ports(
        &self,
        field: &Field<'_>,
        section: Section,
        unsupported: &mut Unsupported,
        problems: &mut Problems,
    ) -> Ports {
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
        let count = |list: &[Field<'_>], name: &str| -> usize {
            list.iter()
                .filter_map(|entry| entry.value.get(name)?.as_array())
                .map(Vec::len)
                .sum()
        };
        let total = count(&listed, "ports") + count(&icmps, "fields");
        let mut terms = Vec::new();
        if !check_count(&field.path_of("toPorts"), total.max(listed.len()), problems) {
            return Ports::Only(terms);
        }
        for entry in &listed {
            self.to_ports(entry, section, &mut terms, unsupported, problems);
        }
        for entry in &icmps {
            if entry.object(&["fields"], &[], problems) {
                let fields = entry.list("fields", problems).unwrap_or_default();
                if not_too_many(entry, "fields", fields.len(), problems) {
                    terms.extend(fields.iter().filter_map(|icmp| icmp_term(icmp, problems)));
                }
            }
        }
        Ports::Only(terms)
    }

    fn to_ports(
        &self,
        entry: &Field<'_>,
        section: Section,
        terms: &mut Vec<PortTerm>,
        unsupported: &mut Unsupported,
        problems: &mut Problems,
    ) {
        let deny = matches!(section, Section::IngressDeny | Section::EgressDeny);
        let fits = if deny {
            let help = "a deny rule has ports alone; what it denies needs no further look";
            entry.object(&["ports"], &BESIDE.map(|name| (name, help)), problems)
        } else {
            let [a, b, c, d, e] = BESIDE;
            entry.object(&["ports", a, b, c, d, e], &[], problems)
        };
        if !fits {
            return;
        }
        let listed = entry.list("ports", problems).unwrap_or_default();
        if listed.is_empty() && !entry.value.is_null() {
            problems.warning(
                "policy/empty-list",
                entry.path_of("ports"),
                "an entry without ports matches no port",
                "name the ports; for every port leave toPorts out",
            );
        }
        let mut beside = PortsBeside {
            count: listed.len(),
            not_tcp: None,
            any_port: false,
            range: false,
        };
        if not_too_many(entry, "ports", listed.len(), problems) {
            for port in &listed {
                terms.extend(port_term(port, unsupported, problems));
                let text = |name: &str| port.value.get(name).and_then(Value::as_str);
                let protocol = text("protocol").filter(|name| !name.is_empty());
                if protocol != Some("TCP") && beside.not_tcp.is_none() {
                    beside.not_tcp = Some(quoted(protocol.unwrap_or("ANY")));
                }
                beside.any_port |= matches!(text("port"), None | Some("" | "0"));
                beside.range |= end_of(port).is_some();
            }
        }
        if !deny {
            let ingress = section == Section::Ingress;
            l7::check(
                entry,
                ingress,
                &beside,
                &self.expressions,
                &mut unsupported.0,
                problems,
            );
        }
    }
}

fn not_too_many(entry: &Field<'_>, name: &str, count: usize, problems: &mut Problems) -> bool {
    if count > MOST_PORTS {
        problems.error(
            "policy/too-many-ports",
            entry.path_of(name),
            format!("too many {name}, the max is {MOST_PORTS}; there are {count}"),
            "use a range with endPort, or more entries",
        );
    }
    count <= MOST_PORTS
}

/// `endPort`; 0 is as good as missing in this API.
fn end_of<'a>(port: &Field<'a>) -> Option<Field<'a>> {
    port.get("endPort")
        .filter(|end| end.value != &Value::from(0))
}

fn port_term(
    field: &Field<'_>,
    unsupported: &mut Unsupported,
    problems: &mut Problems,
) -> Option<PortTerm> {
    if !field.object(&["port", "endPort", "protocol"], &[], problems) {
        return None;
    }
    let transport = match field.get("protocol") {
        None => Some(Transport::Any),
        Some(protocol) => transport(&protocol, unsupported, problems),
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
    let matched = ports::with_end(matched, end_of(field), problems);
    Some(PortTerm::Transport(transport?, matched?))
}

fn transport(
    field: &Field<'_>,
    unsupported: &mut Unsupported,
    problems: &mut Problems,
) -> Option<Transport> {
    let known = ["TCP", "UDP", "SCTP", "ANY"];
    match field.text(problems)? {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        "SCTP" => Some(Transport::Sctp),
        "ANY" | "" => Some(Transport::Any),
        "VRRP" | "IGMP" | "GRE" | "IPIP" | "IPV6" | "ESP" | "AH" => {
            unsupported.0.push(field.path.clone());
            None
        }
        other => {
            problems.error(
                "policy/invalid-protocol",
                field.path.clone(),
                format!("{} is not a protocol", quoted(other)),
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
        None => Some(IcmpFamily::V4),
        Some(family) => family
            .one_of(
                &["IPv4", "IPv6"],
                "policy/invalid-icmp",
                "an address family",
                problems,
            )
            .map(|name| match name {
                "IPv4" => IcmpFamily::V4,
                _ => IcmpFamily::V6,
            }),
    };
    let Some(written) = field.get("type") else {
        field.missing("type", "write type: 8, or type: EchoRequest", problems);
        return None;
    };
    let family = family?;
    let kind = match written.value {
        Value::String(name) => match name.parse::<u8>() {
            Ok(kind) => Some(kind),
            Err(_) => PortTerm::icmp_type(family, name),
        },
        other => other.as_u64().and_then(|kind| u8::try_from(kind).ok()),
    };
    if kind.is_none() {
        let given = match written.value {
            Value::String(name) => quoted(name),
            Value::Number(number) => number.to_string(),
            _ => "this".to_owned(),
        };
        problems.error(
            "policy/invalid-icmp",
            written.path.clone(),
            format!("{given} is not an ICMP type of this family"),
            "types are 0 to 255, or a name such as EchoRequest",
        );
    }
    Some(PortTerm::Icmp(family, kind?))
}
