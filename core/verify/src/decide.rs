//! One decision with its reasons.

use crate::{About, Cluster, Family, Named, VerifyError};
use heddle_policy::{
    Decision, DirectionDecision, EntryVerdict, IcmpFamily, PortTerm, Traffic, protocol,
};
use serde::Serialize;

/// A decision and what it is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Allow when both directions allow.
    pub verdict: EntryVerdict,
    /// Who connects.
    pub from: About,
    /// To whom.
    pub to: About,
    /// The protocol's name.
    pub protocol: Option<&'static str>,
    /// The destination's port; none for ICMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The name that the port was given by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_name: Option<String>,
    /// The ICMP message type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u16>,
    /// The source's policy.
    pub egress: DirectionDecision,
    /// The destination's policy.
    pub ingress: DirectionDecision,
}

impl Answer {
    /// The decision alone.
    pub fn decision(&self) -> Decision {
        Decision {
            verdict: self.verdict,
            egress: self.egress.clone(),
            ingress: self.ingress.clone(),
        }
    }
}

/// What is decided between two ends in one family.
pub fn decide(
    cluster: &Cluster,
    from: &Named,
    to: &Named,
    traffic: Traffic,
    family: Family,
) -> Answer {
    let (source, target) = (
        from.peer.party(to.peer, cluster, family),
        to.peer.party(from.peer, cluster, family),
    );
    let decision = if from.peer.is_same_pod(to.peer, cluster) {
        Decision::within_pod()
    } else {
        cluster.engine.decide(&source, &target, traffic)
    };
    let icmp = matches!(traffic.protocol, protocol::ICMP | protocol::ICMPV6);
    Answer {
        verdict: decision.verdict,
        from: from.peer.describe(cluster, &source, family),
        to: to.peer.describe(cluster, &target, family),
        protocol: protocol::name(traffic.protocol),
        port: (!icmp).then_some(traffic.port),
        port_name: None,
        icmp_type: icmp.then_some(traffic.port),
        egress: decision.egress,
        ingress: decision.ingress,
    }
}

/// The port that is meant, by number or by the name that the destination gives it.
pub fn transport(
    cluster: &Cluster,
    to: &Named,
    protocol: u8,
    text: &str,
) -> Result<Traffic, VerifyError> {
    let port = if text.chars().all(|c| c.is_ascii_digit()) {
        let number = text.parse::<u16>().ok().filter(|port| *port != 0);
        number.ok_or_else(|| VerifyError::BadPort {
            given: text.to_owned(),
        })?
    } else {
        let named = to.peer.named_port(cluster, protocol, text);
        named.ok_or_else(|| VerifyError::UnknownPortName {
            peer: to.given.clone(),
            protocol: protocol::name(protocol).unwrap_or_default(),
            name: text.to_owned(),
        })?
    };
    Ok(Traffic { protocol, port })
}

/// The ICMP message that is meant: an address tells its family, else the type does (IPv4 has assigned none
/// above 127, IPv6's informational ones all are), else the family that both ends have.
pub fn icmp(
    text: &str,
    given: Option<Family>,
    common: Family,
) -> Result<(Traffic, Family), VerifyError> {
    let number = text.parse::<u8>().ok();
    let family = given.unwrap_or(match number {
        Some(128..) => Family::V6,
        _ => common,
    });
    let api = match family {
        Family::V4 => IcmpFamily::V4,
        Family::V6 => IcmpFamily::V6,
    };
    let kind = number
        .or_else(|| PortTerm::icmp_type(api, text))
        .ok_or_else(|| VerifyError::BadIcmp {
            given: text.to_owned(),
        })?;
    let traffic = Traffic {
        protocol: api.protocol(),
        port: u16::from(kind),
    };
    Ok((traffic, family))
}
