//! Connections that hear no answer, and how far their packets came.

use super::{Check, Code, RECENT_SECONDS, Status, Subject};
use crate::Family;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

const TCP: u8 = 6;

/// A tracked connection of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracked {
    /// Who opened it.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Packets from the source, and from the destination.
    pub packets: [u64; 2],
    /// Whether a packet of the destination was seen.
    pub answered: bool,
    /// Seconds since its last packet.
    pub idle_seconds: u32,
}

impl Tracked {
    const fn tuple(&self) -> (SocketAddr, SocketAddr) {
        (self.source, self.destination)
    }

    /// A first packet that was sent a moment ago has no answer yet.
    const fn is_unanswered(&self) -> bool {
        !self.answered
            && self.packets[0] > 0
            && (self.packets[0] > 1 || self.idle_seconds > 0)
            && self.idle_seconds <= RECENT_SECONDS
    }
}

/// The connections that one node tracks between the two ends, by the protocol and port that were asked about.
#[derive(Clone, Copy, Debug)]
pub struct Connections<'a> {
    /// The node.
    pub node: &'a str,
    /// The connections that it told, those with the latest packets.
    pub recent: &'a [Tracked],
    /// Whether those are all.
    pub complete: bool,
    /// Whether those are the latest of all, though there are more.
    pub latest_of_all: bool,
}

impl Connections<'_> {
    /// Whether a connection that was not told cannot be the latest without an answer.
    fn none_is_hidden(&self) -> bool {
        let ends_the_search = |it: &Tracked| it.answered || it.idle_seconds > RECENT_SECONDS;
        self.complete || self.latest_of_all && self.recent.iter().any(ends_the_search)
    }

    fn not_all(&self, names: (&str, &str), family: Family) -> Check {
        let (from, to) = names;
        Check {
            subject: Subject::Connections,
            status: Status::NotDone,
            code: None,
            node: self.node.to_owned(),
            families: vec![family],
            stops: false,
            seen: format!(
                "whether connections from {from} to {to} hear an answer: not all that {} tracks could be looked through, and there was none without an answer among those that could",
                self.node
            ),
            help: None,
        }
    }
}

/// The connection that has waited least for an answer that did not come, if none was answered since; and how far its
/// packets came, by what both nodes track. Where there is none among what was told, and there may be one among what was
/// not, the check was not done. `explained` are sources whose packets a policy dropped.
pub fn one_way(
    names: (&str, &str),
    family: Family,
    protocol: u8,
    sending: Option<Connections<'_>>,
    receiving: Option<Connections<'_>>,
    explained: &[SocketAddr],
) -> Option<Check> {
    let (from, to) = names;
    let first = sending.or(receiving)?;
    let unanswered = first
        .recent
        .iter()
        .filter(|it| it.is_unanswered() && !explained.contains(&it.source));
    let Some(waiting) = unanswered.min_by_key(|it| it.idle_seconds) else {
        return (!first.none_is_hidden()).then(|| first.not_all(names, family));
    };
    let answered = first.recent.iter().filter(|it| it.answered);
    let last_answered = answered.map(|it| it.idle_seconds).min();
    if last_answered.is_some_and(|idle| idle <= waiting.idle_seconds) {
        return None;
    }
    let (node, what, help) = match (sending, receiving) {
        (Some(sending), Some(receiving)) if sending.node != receiving.node => {
            let there = receiving
                .recent
                .iter()
                .find(|it| it.tuple() == waiting.tuple());
            match there {
                None if !receiving.complete => (
                    sending.node,
                    format!("no answer comes back to {}", sending.node),
                    format!(
                        "{} tracks too many connections to tell whether it arrives there",
                        receiving.node
                    ),
                ),
                None => (
                    sending.node,
                    format!(
                        "it leaves {} and does not arrive at {}",
                        sending.node, receiving.node
                    ),
                    format!(
                        "look at the network between {} and {}: its routes to {to}, its filters, its checks of source addresses",
                        sending.node, receiving.node
                    ),
                ),
                Some(it) if it.answered => (
                    receiving.node,
                    format!(
                        "{to} answers, and the answers do not arrive at {}",
                        sending.node
                    ),
                    format!(
                        "look at the way back, from {} to {from}: the network's routes, its filters, its checks of source addresses",
                        receiving.node
                    ),
                ),
                Some(_) => (receiving.node, no_answer(to), look_inside(to)),
            }
        }
        (_, Some(receiving)) => (receiving.node, no_answer(to), look_inside(to)),
        _ => (
            first.node,
            format!("no answer comes back to {}", first.node),
            format!(
                "look at {to}, and at the network between it and {}",
                first.node
            ),
        ),
    };
    let count = match waiting.packets[0] {
        1 => "1 packet".to_owned(),
        packets => format!("{packets} packets"),
    };
    // One that was answered since may be among those that were not looked through.
    let is_latest = first.complete || first.latest_of_all;
    let doubt = if is_latest {
        String::new()
    } else {
        format!(
            " ({} tracks too many to tell whether another was answered since)",
            first.node
        )
    };
    Some(Check {
        subject: Subject::Connections,
        // Who sends datagrams may want no answer.
        status: if protocol == TCP && is_latest {
            Status::Fail
        } else {
            Status::Warn
        },
        code: Some(Code::OneWay),
        node: node.to_owned(),
        families: vec![family],
        stops: false,
        seen: format!(
            "a connection goes one way only: {count} {} -> {}, the last {} s ago, and none back: {what}{doubt}",
            waiting.source, waiting.destination, waiting.idle_seconds
        ),
        help: Some(help),
    })
}

fn no_answer(to: &str) -> String {
    format!("it arrives, and {to} does not answer")
}

fn look_inside(to: &str) -> String {
    format!("look at {to}: whether its process runs and accepts, its own packet filter, its routes")
}
