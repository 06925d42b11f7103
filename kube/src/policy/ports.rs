//! Addresses and ports as both APIs write them.

use super::{
    fields::Field,
    limits::MOST_PORT_TERMS,
    problems::{Problems, quoted},
};
use heddle_policy::PortMatch;
use ipnet::IpNet;
use std::net::IpAddr;

/// Reads a CIDR; `bare` lets an address stand for itself.
pub(super) fn cidr(field: &Field<'_>, bare: bool, problems: &mut Problems) -> Option<IpNet> {
    let text = field.text(problems)?;
    let parsed = match text.parse::<IpNet>() {
        Ok(net) => Some(net),
        Err(_) if bare => text.parse::<IpAddr>().ok().map(IpNet::from),
        Err(_) => None,
    };
    let Some(net) = parsed else {
        problems.error(
            "policy/invalid-cidr",
            field.path.clone(),
            format!("{} is not a CIDR", quoted(text)),
            if text.parse::<IpAddr>().is_ok() {
                format!(
                    "write the prefix length too: {text}/{}",
                    if text.contains(':') { 128 } else { 32 }
                )
            } else {
                "a CIDR is ADDRESS/LENGTH, for example 10.0.0.0/8 or fd00::/8".into()
            },
        );
        return None;
    };
    if net.trunc() != net {
        problems.warning(
            "policy/cidr-host-bits",
            field.path.clone(),
            format!(
                "{net} has bits set beyond its length and is read as {}",
                net.trunc()
            ),
            format!("write {}", net.trunc()),
        );
    }
    Some(net.trunc())
}

/// Reads the holes of a block; each lies inside it, and is smaller when `strictly`.
pub(super) fn holes(
    fields: &[Field<'_>],
    block: Option<IpNet>,
    strictly: bool,
    problems: &mut Problems,
) -> Vec<IpNet> {
    let mut found = Vec::new();
    for field in fields {
        let Some(hole) = cidr(field, false, problems) else {
            continue;
        };
        found.push(hole);
        let Some(block) = block else { continue };
        if !block.contains(&hole) {
            problems.error(
                "policy/except-outside-cidr",
                field.path.clone(),
                format!("{hole} does not lie inside {block}"),
                format!("except what {block} contains, or remove this line"),
            );
        } else if strictly && hole == block {
            problems.error(
                "policy/except-outside-cidr",
                field.path.clone(),
                format!("{hole} leaves nothing of {block}"),
                "except a part of the block, or remove the peer",
            );
        }
    }
    found
}

/// Checks a port number, 1 to 65535.
pub(super) fn number(field: &Field<'_>, value: i64, problems: &mut Problems) -> Option<u16> {
    let port = u16::try_from(value).ok().filter(|port| *port != 0);
    if port.is_none() {
        problems.error(
            "policy/invalid-port",
            field.path.clone(),
            format!("{value} is not a port"),
            "ports go from 1 to 65535",
        );
    }
    port
}

/// Checks a port's name (IANA service name, RFC 6335).
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && name.chars().any(|c| c.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Says that this is no port's name.
pub(super) fn not_a_name(field: &Field<'_>, name: &str, problems: &mut Problems) {
    problems.error(
        "policy/invalid-port",
        field.path.clone(),
        format!("{} is neither a port nor a port's name", quoted(name)),
        "a name has at most 15 small letters, digits and single `-`, and at least one letter",
    );
}

/// Extends a port to a range.
pub(super) fn with_end(
    port: Option<PortMatch>,
    end: Option<Field<'_>>,
    problems: &mut Problems,
) -> Option<PortMatch> {
    let Some(end) = end else { return port };
    let value = end.integer(problems)?;
    match port? {
        PortMatch::Range(first, _) => {
            let last = number(&end, value, problems)?;
            if last < first {
                problems.error(
                    "policy/invalid-end-port",
                    end.path.clone(),
                    format!("endPort {last} is less than port {first}"),
                    format!("write an endPort from {first} to 65535, or remove it"),
                );
                return None;
            }
            Some(PortMatch::Range(first, last))
        }
        PortMatch::Name(name) => {
            problems.error(
                "policy/invalid-end-port",
                end.path.clone(),
                format!("endPort cannot stand with the named port {name:?}"),
                "write the port as a number, or remove endPort",
            );
            None
        }
        PortMatch::All => {
            problems.error(
                "policy/invalid-end-port",
                end.path.clone(),
                "endPort needs a port number to start from",
                "write port too, or remove endPort",
            );
            None
        }
    }
}

/// Checks how many port terms a rule has; beyond the bound none of them is read.
pub(super) fn check_count(path: &str, count: usize, problems: &mut Problems) -> bool {
    if count > MOST_PORT_TERMS {
        problems.error(
            "policy/too-many-ports",
            path,
            format!("the rule has {count} ports, the max is {MOST_PORT_TERMS}"),
            "write ranges with endPort; an endpoint's policy map could not hold so many rows",
        );
    }
    count <= MOST_PORT_TERMS
}
