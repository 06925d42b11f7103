//! What a datapath does with a packet, in lines for people.

use super::{super::decide, InFamily, ask::Reply};
use crate::output::is_colored;
use heddle_model::Identity;
use heddle_policy::{Direction, RuleRef};
use heddle_verify::{
    Family, Named, Summary,
    why::{Difference, End, Reported},
    word,
};
use serde_json::Value;

/// Colours, where a terminal shows them.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) on: bool,
}

impl Paint {
    /// Colours when standard output is a terminal and NO_COLOR does not forbid them.
    pub(super) fn of_terminal() -> Self {
        Self {
            on: is_colored(&std::io::stdout()),
        }
    }

    /// A line whose first word is painted by what it says.
    pub(super) fn line(self, line: &str) -> String {
        let color = match line.split(':').next() {
            _ if !self.on => return line.to_owned(),
            Some("ALLOW") => 32,
            Some("DENY" | "BUT") => 31,
            Some("DIFFERS" | "UNKNOWN" | "ALSO" | "NOTE" | "UNCHECKED") => 33,
            _ => return line.to_owned(),
        };
        match line.split_once(':') {
            Some((word, rest)) => format!("\x1b[1;{color}m{word}\x1b[0m:{rest}"),
            None => line.to_owned(),
        }
    }
}

/// The nodes whose datapath nobody could be asked about: what follows is what policies say alone.
pub(super) fn unasked(families: &[InFamily]) -> Vec<String> {
    let ends = families.iter().flat_map(|it| &it.ends);
    let nobody = ends.filter(|(_, reply)| reply.told == Reported::Nothing);
    let mut lines: Vec<String> = nobody
        .map(|(end, reply)| {
            let why = reply.problem.as_deref().unwrap_or("it cannot be asked");
            format!(
                "UNKNOWN: what {} does: {why}; what follows is what the policies say",
                end.node
            )
        })
        .collect();
    lines.dedup();
    lines
}

/// `VERDICT: cause; fix`, once for families that agree.
pub(super) fn summaries(families: &[InFamily], from: &Named, to: &Named) -> Vec<String> {
    let mut lines: Vec<(Family, String)> = families
        .iter()
        .map(|it| {
            let verdict = word(it.answer.verdict).to_uppercase();
            let summary = Summary::of(&it.answer, &from.given, &to.given);
            let fix = summary
                .fix
                .map_or_else(String::new, |fix| format!("; {fix}"));
            (it.family, format!("{verdict}: {}{fix}", summary.cause))
        })
        .collect();
    // The verdict on both is that of the family that is denied.
    lines.sort_by_key(|(_, line)| !line.starts_with("DENY"));
    let same = lines.iter().all(|(_, line)| *line == lines[0].1);
    let take = if same { 1 } else { lines.len() };
    lines
        .into_iter()
        .take(take)
        .map(|(family, line)| match (same, family) {
            (true, _) => line,
            (false, Family::V4) => format!("{line} (over IPv4)"),
            (false, Family::V6) => format!("{line} (over IPv6)"),
        })
        .collect()
}

/// The decision and both datapaths in lines. Where the families differ in addresses alone they are one block, and the
/// lines with addresses stand for each.
pub(super) fn alike(families: &[InFamily], from: &Named, to: &Named) -> Vec<Vec<String>> {
    let blocks: Vec<Block> = families.iter().map(|it| Block::of(it, from, to)).collect();
    let [first, rest @ ..] = blocks.as_slice() else {
        return Vec::new();
    };
    if rest.iter().any(|other| !other.is_like(first)) {
        return blocks.iter().map(Block::lines).collect();
    }
    let mut merged = first.clone();
    for other in rest {
        merged.titles.extend(other.titles.iter().cloned());
        for (end, more) in merged.ends.iter_mut().zip(&other.ends) {
            end.addresses.extend(more.addresses.iter().cloned());
        }
    }
    vec![merged.lines()]
}

/// What is said of one family.
#[derive(Clone)]
struct Block {
    /// Who with which addresses.
    titles: Vec<String>,
    reasons: Vec<String>,
    ends: Vec<Part>,
}

/// What is said of one end's datapath: what may be the same in both families, and what has addresses in it.
#[derive(Clone)]
struct Part {
    lines: Vec<String>,
    addresses: Vec<String>,
}

impl Block {
    fn of(it: &InFamily, from: &Named, to: &Named) -> Self {
        let mut reasons = decide::reasons(&it.answer);
        let title = decide::title(from, to, &it.answer, it.traffic);
        let ends = it.ends.iter().map(|(end, reply)| {
            let mut lines = datapath(end, reply);
            let core = lines.iter().position(|line| is_of_addresses(line));
            let addresses = lines.split_off(core.unwrap_or(lines.len()));
            Part { lines, addresses }
        });
        let ends = ends.collect();
        reasons.retain(|line| !line.is_empty());
        Self {
            titles: vec![title],
            reasons,
            ends,
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let ends = self.ends.iter().map(|end| &end.lines);
        self.reasons == other.reasons && ends.eq(other.ends.iter().map(|end| &end.lines))
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.titles.clone();
        lines.extend(self.reasons.iter().cloned());
        for end in &self.ends {
            lines.extend(end.lines.iter().cloned());
            lines.extend(end.addresses.iter().cloned());
        }
        lines
    }
}

/// The lines about the peer's address and connections, which come last.
fn is_of_addresses(line: &str) -> bool {
    let line = line.trim_start();
    ["takes ", "it does not know ", "connection "]
        .iter()
        .any(|start| line.starts_with(start) && line != "it does not know this pod")
}

/// One end's datapath.
pub(super) fn datapath(end: &End, reply: &Reply) -> Vec<String> {
    let title = match end.direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    let title = format!("  datapath of {}, {title} of {}", end.node, end.pod);
    if reply.told == Reported::Nothing {
        let why = reply.problem.as_deref().unwrap_or("nobody could be asked");
        return vec![format!("{title}: unknown, {why}")];
    }
    let answer = &reply.answer;
    let verdict = answer["verdict"].as_str().unwrap_or("deny");
    let mut lines = Vec::new();
    let standing = match reply.told {
        Reported::Maps(_) => {
            "its agent does not answer; read from the maps that it left pinned".to_owned()
        }
        _ => format!(
            "endpoint {}, policy revision {}, all up to revision {} in force",
            plain(&answer["endpoint"]),
            plain(&answer["policyRevision"]),
            plain(&answer["realisedRevision"])
        ),
    };
    lines.push(format!("{title}: {verdict} ({standing})"));
    if answer["audit"] == true {
        lines.push("    on audit: what it denies is told, and passes".to_owned());
    }
    lines.push(format!("    {}", row(answer)));
    for rule in list(&answer["rules"]) {
        let text = serde_json::from_value::<RuleRef>(rule.clone());
        lines.push(match text {
            Ok(rule) => format!("    by {rule}"),
            Err(_) => format!("    by {rule}"),
        });
    }
    lines.push(format!("    {}", peer(end, answer)));
    for connection in list(&answer["connections"]) {
        lines.push(format!(
            "    connection {} -> {}: {}, packets {} there and {} back, {} s left",
            plain(&connection["source"]),
            plain(&connection["destination"]),
            plain(&connection["state"]),
            plain(&connection["packets"][0]),
            plain(&connection["packets"][1]),
            plain(&connection["remainingSeconds"])
        ));
    }
    lines
}

fn row(answer: &Value) -> String {
    let row = &answer["row"];
    if answer["endpoint"].is_null() {
        return "it does not know this pod".to_owned();
    }
    if answer["hasPolicy"] == false && answer["verdict"] == "allow" {
        return "no host policy is about this node: no policy is enforced on its traffic"
            .to_owned();
    }
    if answer["hasPolicy"] == false {
        return "there is no policy map: everything is dropped".to_owned();
    }
    if row.is_null() {
        return "no row matches: dropped by default".to_owned();
    }
    let whom = match row["identity"].as_u64() {
        Some(0) | None => "anybody".to_owned(),
        Some(number) => name(number),
    };
    let what = match (row["protocol"].as_str(), row["port"].as_str()) {
        (Some("any"), _) | (None, _) => "everything".to_owned(),
        (Some(protocol), port) => format!("{protocol}/{}", port.unwrap_or("any")),
    };
    let because = match (list(&answer["rules"]), row["cookie"].as_u64()) {
        ([], Some(0)) => ", because no policy is enforced".to_owned(),
        // The one row without a rule that opens something (reference D11).
        ([], Some(_)) if row["identity"] == Identity::HOST.0 && row["verdict"] == "allow" => {
            ", the endpoint's own node, which is always allowed (health probes)".to_owned()
        }
        ([], Some(cookie)) => format!(", cookie {cookie} of rules that are not in the store"),
        _ => String::new(),
    };
    let verdict = row["verdict"].as_str().unwrap_or("deny");
    format!("row: {verdict} {what} for {whom}{because}")
}

fn peer(end: &End, answer: &Value) -> String {
    let peer = &answer["peer"];
    let Some(identity) = peer["identity"].as_u64() else {
        return format!("it does not know {}: dropped", end.peer_name);
    };
    let mut text = format!("takes {} for {}", end.peer_name, name(identity));
    if let Some(cidr) = peer["cidr"].as_u64().filter(|cidr| *cidr != 0) {
        text.push_str(&format!(", CIDR identity {cidr}"));
    }
    if let Some(prefix) = peer["prefix"].as_str() {
        text.push_str(&format!(" ({prefix}"));
        if let Some(node) = peer["node"].as_str() {
            text.push_str(&format!(", behind {node}"));
        }
        text.push(')');
    }
    text
}

fn name(number: u64) -> String {
    let reserved = u32::try_from(number)
        .ok()
        .and_then(|number| Identity(number).reserved_name());
    match reserved {
        Some(name) => format!("identity {number} ({name})"),
        None => format!("identity {number}"),
    }
}

/// The lines that nobody should miss.
pub(super) fn differing(differences: &[Difference]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (at, one) in differences.iter().enumerate() {
        lines.push(format!("DIFFERS: {}", one.message));
        // The same advice once.
        if differences[..at].iter().all(|other| other.help != one.help) {
            lines.push(format!("  help: {}", one.help));
        }
    }
    lines
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_policy::EntryVerdict;
    use serde_json::json;

    fn end() -> End {
        End {
            direction: Direction::Ingress,
            node: "node-2".into(),
            pod: "shop/database".into(),
            is_node: false,
            verdict: EntryVerdict::Allow,
            identity: Identity(301),
            peer: Identity(300),
            peer_name: "shop/front".into(),
            revision: 40,
        }
    }

    #[test]
    fn an_agents_answer_names_row_rule_peer_and_connection() {
        let told = Reply::of(
            json!({
                "endpoint": 7, "identity": 301, "hasPolicy": true, "verdict": "allow",
                "policyRevision": 40, "realisedRevision": 41,
                "row": {"identity": 300, "protocol": "TCP", "port": "5432", "verdict": "allow", "cookie": 8},
                "rules": [{"kind": "NetworkPolicy", "namespace": "shop", "name": "db", "section": "ingress",
                           "index": 0, "action": "allow"}],
                "peer": {"identity": 300, "cidr": 0, "prefix": "10.244.0.5/32", "node": "172.16.0.2"},
                "connections": [{"source": "10.244.0.5:40000", "destination": "10.244.1.5:5432",
                                 "state": "established", "packets": [9, 7], "remainingSeconds": 21600}],
            }),
            None,
        );
        assert_eq!(
            datapath(&end(), &told),
            [
                "  datapath of node-2, ingress of shop/database: allow (endpoint 7, policy revision 40, all up to revision 41 in force)",
                "    row: allow TCP/5432 for identity 300",
                "    by NetworkPolicy shop/db ingress[0]",
                "    takes shop/front for identity 300 (10.244.0.5/32, behind 172.16.0.2)",
                "    connection 10.244.0.5:40000 -> 10.244.1.5:5432: established, packets 9 there and 7 back, 21600 s left",
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_said() {
        let base = json!({"endpoint": 7, "hasPolicy": true, "verdict": "deny", "peer": null});
        let told = |changes: Value| {
            let mut answer = base.clone();
            for (key, value) in changes.as_object().unwrap() {
                answer[key] = value.clone();
            }
            Reply::of(answer, Some("gone".into()))
        };
        for (changes, line) in [
            (json!({}), "    no row matches: dropped by default"),
            (
                json!({"hasPolicy": false}),
                "    there is no policy map: everything is dropped",
            ),
            (json!({"endpoint": null}), "    it does not know this pod"),
            (
                json!({"row": {"identity": 0, "protocol": "any", "port": "any", "verdict": "allow", "cookie": 0}}),
                "    row: allow everything for anybody, because no policy is enforced",
            ),
            (
                json!({"row": {"identity": 1, "protocol": "any", "port": "any", "verdict": "allow", "cookie": 5}}),
                "    row: allow everything for identity 1 (host), the endpoint's own node, which is always allowed (health probes)",
            ),
            (
                json!({"row": {"identity": 1, "protocol": "UDP", "port": "any", "verdict": "deny", "cookie": 5}}),
                "    row: deny UDP/any for identity 1 (host), cookie 5 of rules that are not in the store",
            ),
        ] {
            let lines = datapath(&end(), &told(changes));
            assert!(lines[0].contains("its agent does not answer"), "{lines:?}");
            assert_eq!(lines[1], line);
            assert_eq!(lines[2], "    it does not know shop/front: dropped");
        }
        let nothing = datapath(
            &end(),
            &Reply {
                told: Reported::Nothing,
                answer: Value::Null,
                problem: Some("no agent, no maps".into()),
            },
        );
        assert!(
            nothing[0].ends_with("unknown, no agent, no maps"),
            "{nothing:?}"
        );
    }

    #[test]
    fn every_difference_is_loud_and_advice_stands_once() {
        let difference = |what, help: &str| Difference {
            node: "n".into(),
            what,
            wished: "a".into(),
            realised: "b".into(),
            message: what.to_owned(),
            help: help.to_owned(),
        };
        let lines = differing(&[
            difference("verdict", "start it"),
            difference("revision", "start it"),
            difference("identity", "look"),
        ]);
        assert_eq!(
            lines,
            [
                "DIFFERS: verdict",
                "  help: start it",
                "DIFFERS: revision",
                "DIFFERS: identity",
                "  help: look"
            ]
        );
    }
}
