//! `heddle policy decide`: one decision with its reasons.

use super::{Files, FromDumpBesidePeers, Output};
use crate::{
    failure::{FINDINGS, Failure},
    output::say,
};
use clap::{Args, ValueEnum};
use heddle_policy::{Because, DirectionDecision, EntryVerdict, Traffic, protocol};
use heddle_verify::{About, Answer, Named, common_family, decide, icmp, transport, word};
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

impl Protocol {
    /// IP protocol number.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }
}

#[derive(Args)]
pub(crate) struct Decide {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    dump: FromDumpBesidePeers,
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
        self.answer()
            .map_err(|failure| failure.no_answer().json(json))
    }

    fn answer(self) -> Result<ExitCode, Failure> {
        let cluster = self.files.cluster(self.dump.path.as_deref())?;
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
                transport(&cluster, &to, self.protocol.number(), text)?
            }
        };
        let mut answer = decide(&cluster, &from, &to, traffic, family);
        answer.port_name = self.port.filter(|name| name.parse::<u16>().is_err());
        if !self.output.print(&answer)? {
            print(&from, &to, &answer, traffic)?;
        }
        Ok(match answer.verdict {
            EntryVerdict::Allow => ExitCode::SUCCESS,
            EntryVerdict::Deny => ExitCode::from(FINDINGS),
        })
    }
}

/// Prints a decision for people.
fn print(from: &Named, to: &Named, answer: &Answer, traffic: Traffic) -> Result<(), Failure> {
    say(&title(from, to, answer, traffic))?;
    for line in reasons(answer) {
        say(&line)?;
    }
    Ok(())
}

/// The verdict and whom it is about.
pub(super) fn title(from: &Named, to: &Named, answer: &Answer, traffic: Traffic) -> String {
    let end = |named: &Named, about: &About| {
        let address = about.ip.map(|address| address.to_string());
        let address = address.filter(|address| *address != named.given);
        match address {
            Some(address) => format!("{} ({address}, identity {})", named.given, about.identity),
            None => format!("{} (identity {})", named.given, about.identity),
        }
    };
    format!(
        "{}: {} -> {} {}",
        word(answer.verdict),
        end(from, &answer.from),
        end(to, &answer.to),
        protocol::describe(traffic.protocol, traffic.port),
    )
}

/// What both directions say, in lines.
pub(super) fn reasons(answer: &Answer) -> Vec<String> {
    let mut lines = direction("egress of the source", &answer.egress);
    lines.extend(direction("ingress of the destination", &answer.ingress));
    lines
}

fn direction(title: &str, part: &DirectionDecision) -> Vec<String> {
    let why = match part.because {
        Because::Rule => "a rule allows it",
        Because::ExplicitDeny => "a rule denies it",
        Because::DefaultDeny => "no rule allows it",
        Because::NotEnforced => "no policy is enforced",
        Because::Reserved => "always allowed",
    };
    let mut lines = vec![format!("  {title}: {}, {why}", word(part.verdict))];
    lines.extend(part.rules.iter().map(|rule| format!("    by {rule}")));
    lines.extend(
        part.passed
            .iter()
            .map(|rule| format!("    passed on by {rule}")),
    );
    let isolating = part.isolated_by.iter();
    lines.extend(isolating.map(|policy| format!("    isolated by {policy}")));
    for near in &part.nearest {
        let failed = serde_json::to_value(near.failed).unwrap_or_default();
        lines.push(format!(
            "    nearest {}: {} wants {}; got {}",
            near.rule,
            failed.as_str().unwrap_or_default(),
            near.wanted,
            near.got
        ));
    }
    lines
}
