//! `heddle policy decide`: one decision with its reasons.

use super::{
    Files, Output,
    cluster::Cluster,
    peer::{Family, Named, common_family},
    probe::word,
    say, usage,
};
use crate::failure::{FINDINGS, Failure, NO_DATA};
use clap::{Args, ValueEnum};
use heddle_policy::{
    Because, Decision, DirectionDecision, EntryVerdict, IcmpFamily, PortTerm, Traffic, protocol,
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// A transport protocol on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Protocol {
    /// TCP.
    #[value(name = "TCP", alias = "tcp")]
    Tcp,
    /// UDP.
    #[value(name = "UDP", alias = "udp")]
    Udp,
    /// SCTP.
    #[value(name = "SCTP", alias = "sctp")]
    Sctp,
}

#[derive(Args)]
pub(crate) struct Decide {
    #[command(flatten)]
    files: Files,
    /// Who connects: namespace/pod, an address, host:NODE, or an entity.
    #[arg(long, value_name = "PEER")]
    from: String,
    /// To whom.
    #[arg(long, value_name = "PEER")]
    to: String,
    /// Destination port, by number or by the name that the destination gives it.
    #[arg(
        long,
        value_name = "PORT",
        required_unless_present = "icmp",
        conflicts_with = "icmp"
    )]
    port: Option<String>,
    /// Transport protocol.
    #[arg(long, value_enum, default_value = "TCP", conflicts_with = "icmp")]
    protocol: Protocol,
    /// ICMP message type by number or name; ICMPv6 when an end is an IPv6 address or the type is above 127.
    #[arg(long, value_name = "TYPE")]
    icmp: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Decide {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output.is_json();
        self.answer().map_err(|failure| failure.json(json))
    }

    fn answer(self) -> Result<ExitCode, Failure> {
        let cluster = Cluster::build(&self.files.read()?)?;
        let from = Named::parse(&cluster, &self.from)?;
        let to = Named::parse(&cluster, &self.to)?;
        let mut family = common_family(&cluster, &from, &to);
        let traffic = match &self.icmp {
            Some(text) => {
                let given = from.family.or(to.family);
                let (traffic, of) = icmp(text, given, family)?;
                family = of;
                traffic
            }
            None => {
                let text = self.port.as_deref().unwrap_or_default();
                transport(&cluster, &to, self.protocol, text)?
            }
        };
        let (decision, mut answer) = decision(&cluster, &from, &to, traffic, family);
        if let (Some(name), Some(object)) = (&self.port, answer.as_object_mut())
            && name.parse::<u16>().is_err()
        {
            object.insert("portName".into(), json!(name));
        }
        if !self.output.print(&answer)? {
            print(&from, &to, &answer, traffic, &decision)?;
        }
        Ok(match decision.verdict {
            EntryVerdict::Allow => ExitCode::SUCCESS,
            EntryVerdict::Deny => ExitCode::from(FINDINGS),
        })
    }
}

/// What is decided between two ends in one family, and the contract's words for it.
pub(super) fn decision(
    cluster: &Cluster,
    from: &Named,
    to: &Named,
    traffic: Traffic,
    family: Family,
) -> (Decision, Value) {
    let (source, target) = (
        from.peer.party(to.peer, cluster, family),
        to.peer.party(from.peer, cluster, family),
    );
    let decision = if from.peer.is_same_pod(to.peer, cluster) {
        Decision::within_pod()
    } else {
        cluster.engine.decide(&source, &target, traffic)
    };
    let mut answer = json!({
        "verdict": decision.verdict,
        "from": from.peer.describe(cluster, &source, family),
        "to": to.peer.describe(cluster, &target, family),
        "protocol": protocol::name(traffic.protocol),
        "egress": decision.egress,
        "ingress": decision.ingress,
    });
    let number = match traffic.protocol {
        protocol::ICMP | protocol::ICMPV6 => "icmpType",
        _ => "port",
    };
    answer[number] = json!(traffic.port);
    (decision, answer)
}

/// The port that is meant, by number or by the name that the destination gives it.
pub(super) fn transport(
    cluster: &Cluster,
    to: &Named,
    of: Protocol,
    text: &str,
) -> Result<Traffic, Failure> {
    let protocol = match of {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
        Protocol::Sctp => protocol::SCTP,
    };
    let port = if text.chars().all(|c| c.is_ascii_digit()) {
        let number = text.parse::<u16>().ok().filter(|port| *port != 0);
        number.ok_or_else(|| {
            usage(
                "usage/port",
                format!("{text:?} is not a port"),
                "ports go from 1 to 65535; a name is one of the destination's named ports",
            )
        })?
    } else {
        to.peer.named_port(cluster, protocol, text).ok_or_else(|| {
            Failure::new(
                "policy/unknown-port-name",
                format!(
                    "{} has no {} port named {text:?}",
                    to.given,
                    protocol::name(protocol).unwrap_or_default()
                ),
            )
            .object(to.given.clone())
            .help("declare it under containers[].ports, or ask by number")
            .exit(NO_DATA)
        })?
    };
    Ok(Traffic { protocol, port })
}

/// The ICMP message that is meant: an address tells its family, else the type does (IPv4 has assigned none
/// above 127, IPv6's informational ones all are), else the family that both ends have.
pub(super) fn icmp(
    text: &str,
    given: Option<Family>,
    common: Family,
) -> Result<(Traffic, Family), Failure> {
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
        .ok_or_else(|| {
            usage(
                "usage/icmp",
                format!("{text:?} is not an ICMP type"),
                "types are 0 to 255, or a name such as EchoRequest",
            )
        })?;
    let traffic = Traffic {
        protocol: api.protocol(),
        port: u16::from(kind),
    };
    Ok((traffic, family))
}

/// Prints a decision for people.
pub(super) fn print(
    from: &Named,
    to: &Named,
    answer: &Value,
    traffic: Traffic,
    decision: &Decision,
) -> Result<(), Failure> {
    let end = |named: &Named, about: &Value| {
        let address = about.get("ip").and_then(Value::as_str);
        let address = address.filter(|address| *address != named.given);
        let identity = about.get("identity").cloned().unwrap_or_default();
        match address {
            Some(address) => format!("{} ({address}, identity {identity})", named.given),
            None => format!("{} (identity {identity})", named.given),
        }
    };
    say(&format!(
        "{}: {} -> {} {}",
        word(decision.verdict),
        end(from, &answer["from"]),
        end(to, &answer["to"]),
        protocol::describe(traffic.protocol, traffic.port),
    ))?;
    print_direction("egress of the source", &decision.egress)?;
    print_direction("ingress of the destination", &decision.ingress)
}

fn print_direction(title: &str, part: &DirectionDecision) -> Result<(), Failure> {
    let why = match part.because {
        Because::Rule => "a rule allows it",
        Because::ExplicitDeny => "a rule denies it",
        Because::DefaultDeny => "no rule allows it",
        Because::NotEnforced => "no policy is enforced",
        Because::Reserved => "always allowed",
    };
    say(&format!("  {title}: {}, {why}", word(part.verdict)))?;
    for rule in &part.rules {
        say(&format!("    by {rule}"))?;
    }
    for rule in &part.passed {
        say(&format!("    passed on by {rule}"))?;
    }
    for policy in &part.isolated_by {
        say(&format!("    isolated by {policy}"))?;
    }
    for near in &part.nearest {
        let failed = serde_json::to_value(near.failed).unwrap_or_default();
        say(&format!(
            "    nearest {}: {} wants {}; got {}",
            near.rule,
            failed.as_str().unwrap_or_default(),
            near.wanted,
            near.got
        ))?;
    }
    Ok(())
}
