//! `heddle why`, and `heddle policy why`: why one can or cannot reach another in a live lab. The decision as `decide` gives it, from
//! the live store; what the datapaths of both nodes do with such a packet now; loudly where the two differ; and what is
//! wrong with the path that carries the packets.

mod ask;
mod path;
mod show;
mod store;

use super::{Output, decide::Protocol, usage};
use crate::commands::which::Which;
use crate::{
    failure::{DIFFERS, FINDINGS, Failure, NO_DATA},
    output::{one_line, say},
};
use ask::{FlowEnd, Reply};
use clap::Args;
use heddle_agent::{AskedPeer, Question};
use heddle_flow::{
    Response,
    print::{Form, Style},
};
use heddle_policy::{EntryVerdict, Traffic};
use heddle_verify::{
    Answer, Cluster, Family, Named, Peer, Summary, common_family, decide as decide_pair, icmp,
    path::{self as packet_path, Check},
    transport,
    why::{self, AskedEnd, Difference, End, Reported},
};
use serde_json::{Value, json};
use show::Paint;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};
use store::{Live, Wished};

/// How long a difference must last to be told: a change that is on its way to the nodes is none.
const SETTLING: Duration = Duration::from_secs(2);
/// Between two looks.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// `heddle why`.
#[derive(Args)]
pub(crate) struct Why {
    /// Who connects: namespace/pod, namespace/deploy/NAME (or another kind of workload), an address, host:NODE, or an
    /// entity such as world.
    #[arg(long, value_name = "PEER")]
    from: String,
    /// To whom.
    #[arg(long, value_name = "PEER")]
    to: String,
    /// Destination port, by number or by the name that the destination gives it, as PORT or PORT/PROTOCOL
    /// [default: the only port that the destination declares].
    #[arg(long, value_name = "PORT[/PROTOCOL]", conflicts_with = "icmp")]
    port: Option<String>,
    /// Transport protocol.
    #[arg(long, value_enum, conflicts_with = "icmp")]
    protocol: Option<Protocol>,
    /// ICMP message type by number or name.
    #[arg(long, value_name = "TYPE")]
    icmp: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    which: Which,
    /// Answers from a dump that `heddle sysdump` made, instead of from a lab that runs; --lab does not count then.
    /// (What other commands call --from: here that is who connects.)
    #[arg(long, value_name = "FILE")]
    from_dump: Option<PathBuf>,
}

/// The answer for one address family.
struct InFamily {
    family: Family,
    traffic: Traffic,
    answer: Answer,
    ends: Vec<(End, Reply)>,
    differences: Vec<Difference>,
    /// What the kernels of both nodes have of the path.
    path: Vec<Check>,
}

impl InFamily {
    fn agrees(&self) -> Option<bool> {
        why::agrees(
            &self.differences,
            self.ends.iter().map(|(_, reply)| &reply.told),
        )
    }
}

/// Everything that is answered.
struct Findings {
    wished: Wished,
    from: Named,
    to: Named,
    families: Vec<InFamily>,
}

impl Why {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let json = self.output.is_json();
        self.answer()
            .map_err(|failure| failure.no_answer().json(json))
    }

    fn answer(&self) -> Result<ExitCode, Failure> {
        let live = match &self.from_dump {
            Some(path) => Live::in_dump(path)?,
            None => Live::open(self.which.or_default())?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                Failure::new("lab/runtime", format!("the runtime cannot start: {error}"))
            })?;
        let until = Instant::now() + SETTLING;
        let findings = loop {
            let snapshot = runtime.block_on(live.snapshot())?;
            let findings = self.find(&live, &snapshot)?;
            // A node without an agent does not catch up.
            let may_settle = findings.families.iter().any(|it| {
                let mut ends = it.ends.iter();
                it.path.iter().any(Check::is_transient)
                    || !it.differences.is_empty()
                        && ends.any(|(_, reply)| matches!(reply.told, Reported::Agent(_)))
            });
            if !may_settle || live.dump.is_some() || Instant::now() >= until {
                break findings;
            }
            std::thread::sleep(CHECK_INTERVAL);
        };
        let nodes: BTreeSet<String> = findings
            .families
            .iter()
            .flat_map(|it| it.ends.iter().map(|(end, _)| end.node.clone()))
            .collect();
        let [from, to] = [&findings.from, &findings.to].map(|end| flow_end(&findings, end));
        let flows = ask::flows(&live, nodes, &from, &to);
        let path = path::all(&findings.families, &findings.from, &findings.to, &flows);
        let value = findings.value(&flows, &path);
        if !self.output.print(&value)? {
            findings.print(&flows, &path)?;
        }
        Ok(ExitCode::from(findings.exit(&path)))
    }

    fn find(&self, live: &Live, snapshot: &store::Snapshot) -> Result<Findings, Failure> {
        for given in [&self.from, &self.to] {
            snapshot.must_have_address(given)?;
        }
        let node = live.record.nodes.first().cloned().unwrap_or_default();
        let wished = snapshot.cluster(live.lab.name(), &live.agent_config(&node)?)?;
        let cluster = &wished.cluster;
        let from = Named::parse(cluster, &self.from)?;
        let to = Named::parse(cluster, &self.to)?;
        let families = self
            .questions(cluster, &from, &to)?
            .into_iter()
            .map(|(traffic, family)| {
                let answer = decide_pair(cluster, &from, &to, traffic, family);
                let decision = answer.decision();
                let ends = why::ends(cluster, wished.revision, &from, &to, &decision, family);
                let named = path::Ends {
                    cluster,
                    from: &from,
                    to: &to,
                };
                let path = path::checks(live, named, &ends, traffic, family);
                let ends: Vec<(End, Reply)> = ends
                    .into_iter()
                    .map(|asked| {
                        let question = question(&asked, traffic);
                        let mut reply = ask::standing(live, &wished, &asked.end, &question);
                        reply.keep_connections_of(cluster, &from, &to, family);
                        (asked.end, reply)
                    })
                    .collect();
                let differences = ends
                    .iter()
                    .flat_map(|(end, reply)| why::differences(live.lab.name(), end, &reply.told))
                    .collect();
                InFamily {
                    family,
                    traffic,
                    answer,
                    ends,
                    differences,
                    path,
                }
            })
            .collect();
        Ok(Findings {
            wished,
            from,
            to,
            families,
        })
    }

    /// What is asked, for every family that both ends have.
    fn questions(
        &self,
        cluster: &Cluster,
        from: &Named,
        to: &Named,
    ) -> Result<Vec<(Traffic, Family)>, Failure> {
        let theirs = to.families(cluster);
        let mut families = from.families(cluster);
        families.retain(|family| theirs.contains(family));
        if families.is_empty() {
            families.push(common_family(cluster, from, to));
        }
        if let Some(text) = &self.icmp {
            let given = from.family.or(to.family);
            if text.parse::<u8>().is_ok() {
                return Ok(vec![icmp(text, given, families[0])?]);
            }
            let each = families.into_iter();
            return each
                .map(|family| Ok(icmp(text, Some(family), family)?))
                .collect();
        }
        let traffic = match &self.port {
            Some(text) => self.transport(cluster, to, text)?,
            None => self.only_port(cluster, to)?,
        };
        Ok(families.into_iter().map(|it| (traffic, it)).collect())
    }

    fn transport(&self, cluster: &Cluster, to: &Named, text: &str) -> Result<Traffic, Failure> {
        let (port, protocol) = match text.split_once('/') {
            None => (text, self.protocol.unwrap_or(Protocol::Tcp)),
            Some((port, name)) => {
                use clap::ValueEnum;
                let protocol = Protocol::from_str(name, true).map_err(|_| {
                    usage(
                        "usage/port",
                        format!("{name:?} in --port {text} is no protocol"),
                        "write it as 80/TCP, 53/UDP or 9/SCTP",
                    )
                })?;
                (port, protocol)
            }
        };
        Ok(transport(cluster, to, protocol.number(), port)?)
    }

    /// The port that the destination declares, where it is one.
    fn only_port(&self, cluster: &Cluster, to: &Named) -> Result<Traffic, Failure> {
        let declared: &[_] = match to.peer {
            Peer::Pod(pod) => &cluster.pods[pod].ports,
            _ => &[],
        };
        if let ([port], None) = (declared, self.protocol) {
            return self.transport(cluster, to, &format!("{}/{}", port.number, port.protocol));
        }
        let known: Vec<String> = declared
            .iter()
            .map(|port| format!("{}/{}", port.number, port.protocol))
            .collect();
        let help = match known.as_slice() {
            [] => "add --port PORT/PROTOCOL, or --icmp TYPE".to_owned(),
            known => format!("add --port PORT/PROTOCOL; it declares {}", known.join(", ")),
        };
        Err(usage(
            "usage/missing-argument",
            format!("which port of {} is meant?", to.given),
            &help,
        ))
    }
}

/// What one end's datapath is asked.
const fn question(asked: &AskedEnd, traffic: Traffic) -> Question {
    Question {
        address: asked.address,
        direction: asked.end.direction,
        peer: match asked.party.prefix {
            Some(prefix) => AskedPeer::Range(prefix),
            None => AskedPeer::Identity(asked.party.identity),
        },
        protocol: traffic.protocol,
        port: traffic.port,
    }
}

fn flow_end(findings: &Findings, end: &Named) -> FlowEnd {
    let cluster = &findings.wished.cluster;
    let addresses: BTreeSet<IpAddr> = findings
        .families
        .iter()
        .filter_map(|it| end.peer.address(cluster, it.family))
        .collect();
    FlowEnd {
        addresses: addresses.iter().map(IpAddr::to_string).collect(),
        identity: end.given.clone(),
    }
}

impl Findings {
    /// Exit code: 4 where store and datapath differ, 3 where a node could not be asked, else the verdict's; and where
    /// something on the path stops every packet, what is allowed does not reach either.
    fn exit(&self, path: &[Check]) -> u8 {
        match self.agrees() {
            Some(false) => DIFFERS,
            None => NO_DATA,
            Some(true) if packet_path::Verdict::of(path) == packet_path::Verdict::Broken => {
                FINDINGS
            }
            Some(true) => match self.verdict() {
                EntryVerdict::Allow => 0,
                EntryVerdict::Deny => FINDINGS,
            },
        }
    }

    fn agrees(&self) -> Option<bool> {
        let all: Vec<Option<bool>> = self.families.iter().map(InFamily::agrees).collect();
        if all.contains(&Some(false)) {
            Some(false)
        } else {
            all.iter().all(Option::is_some).then_some(true)
        }
    }

    /// Allowed when every family is.
    fn verdict(&self) -> EntryVerdict {
        let verdicts = self.families.iter().map(|it| it.answer.verdict);
        verdicts.max().unwrap_or(EntryVerdict::Deny)
    }

    fn value(&self, flows: &BTreeMap<String, Vec<Response>>, path: &[Check]) -> Value {
        let families: Vec<Value> = self.families.iter().map(family_value).collect();
        // The family that has the verdict speaks for both.
        let verdict = self.verdict();
        let first = self.families.iter().find(|it| it.answer.verdict == verdict);
        let mut answer = serde_json::to_value(first.map(|it| &it.answer)).unwrap_or_default();
        let differences: Vec<&Difference> = self
            .families
            .iter()
            .flat_map(|it| &it.differences)
            .collect();
        let summary = first.map(|it| Summary::of(&it.answer, &self.from.given, &self.to.given));
        answer["summary"] = json!(summary);
        answer["agrees"] = json!(self.agrees());
        answer["differences"] = json!(differences);
        answer["families"] = json!(families);
        answer["path"] = path::value(path);
        answer["flows"] = json!(flows);
        answer["revision"] = json!(self.wished.revision);
        answer["refused"] = json!(self.wished.refused);
        answer
    }

    /// What matters most stands first: where paper and datapath differ, then the verdict with its cause and fix, then what
    /// is wrong with the path.
    fn print(
        &self,
        flows: &BTreeMap<String, Vec<Response>>,
        path: &[Check],
    ) -> Result<(), Failure> {
        let paint = Paint::of_terminal();
        let mut differences: Vec<Difference> = Vec::new();
        for one in self.families.iter().flat_map(|it| &it.differences) {
            if !differences.contains(one) {
                differences.push(one.clone());
            }
        }
        // An agent that is behind explains the others, and matters least by itself.
        differences.sort_by_key(|one| one.what == "revision");
        for line in show::differing(&differences) {
            say(&paint.line(&line))?;
        }
        for line in show::unasked(&self.families) {
            say(&paint.line(&line))?;
        }
        for line in show::summaries(&self.families, &self.from, &self.to) {
            say(&paint.line(&line))?;
        }
        for line in path::lines(path, self.verdict(), self.families.len()) {
            say(&paint.line(&line))?;
        }
        for (at, families) in show::alike(&self.families, &self.from, &self.to)
            .iter()
            .enumerate()
        {
            if at > 0 {
                say("")?;
            }
            for line in families {
                say(line)?;
            }
        }
        if let Some(line) = path::summary(path) {
            say(&line)?;
        }
        for (node, flows) in flows {
            say(&format!("last flows that {node} saw:"))?;
            if flows.is_empty() {
                say("  none")?;
            }
            let style = Style {
                form: Form::Compact,
                color: paint.on,
                node: false,
            };
            for flow in flows {
                say(&format!("  {}", style.write(flow)))?;
            }
        }
        for refused in &self.wished.refused {
            say(&one_line(&format!(
                "note: {refused}; a version of it that was accepted before stays in force"
            )))?;
        }
        Ok(())
    }
}

fn family_value(one: &InFamily) -> Value {
    let datapath: Vec<Value> = one
        .ends
        .iter()
        .map(|(end, reply)| {
            let mut value = match reply.told {
                Reported::Nothing => json!({}),
                _ => reply.answer.clone(),
            };
            let source = match reply.told {
                Reported::Agent(_) => "agent",
                Reported::Maps(_) => "maps",
                Reported::Nothing => "none",
            };
            value["direction"] = json!(end.direction);
            value["node"] = json!(end.node);
            value["pod"] = json!(end.pod);
            value["source"] = json!(source);
            value["problem"] = json!(reply.problem);
            value
        })
        .collect();
    let mut value = json!(one.answer);
    value["family"] = json!(one.family);
    value["datapath"] = json!(datapath);
    value["differences"] = json!(one.differences);
    value["agrees"] = json!(one.agrees());
    value
}

#[cfg(test)]
mod tests;
