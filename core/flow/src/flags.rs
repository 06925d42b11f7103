//! The flags of `observe` as filters, with Hubble's meaning.
//!
//! A flag without a direction (`--pod`) means either end: it makes a left clause (the source has it) and
//! a right clause (the destination has it). A flag with a direction, or one about the whole flow, is in
//! both. So `--pod a --port 80` shows flows whose end `a` has port 80, as in Hubble.

use crate::filter::{Clause, Filter, FilterError, Matcher};
use std::collections::BTreeMap;

/// What a filter flag looks at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "the names are the flags'")]
pub enum FilterFlag {
    Namespace,
    FromNamespace,
    ToNamespace,
    Pod,
    FromPod,
    ToPod,
    Ip,
    FromIp,
    ToIp,
    Label,
    FromLabel,
    ToLabel,
    Port,
    FromPort,
    ToPort,
    Identity,
    FromIdentity,
    ToIdentity,
    Verdict,
    Type,
    Protocol,
    NodeName,
    TrafficDirection,
    DropReason,
    Reply,
    NotReply,
    TcpFlags,
}

/// Which end a flag speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Either,
    Source,
    Destination,
    Whole,
}

impl FilterFlag {
    /// Every flag.
    pub const ALL: [Self; 27] = [
        Self::Namespace,
        Self::FromNamespace,
        Self::ToNamespace,
        Self::Pod,
        Self::FromPod,
        Self::ToPod,
        Self::Ip,
        Self::FromIp,
        Self::ToIp,
        Self::Label,
        Self::FromLabel,
        Self::ToLabel,
        Self::Port,
        Self::FromPort,
        Self::ToPort,
        Self::Identity,
        Self::FromIdentity,
        Self::ToIdentity,
        Self::Verdict,
        Self::Type,
        Self::Protocol,
        Self::NodeName,
        Self::TrafficDirection,
        Self::DropReason,
        Self::Reply,
        Self::NotReply,
        Self::TcpFlags,
    ];

    /// Its long name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::FromNamespace => "from-namespace",
            Self::ToNamespace => "to-namespace",
            Self::Pod => "pod",
            Self::FromPod => "from-pod",
            Self::ToPod => "to-pod",
            Self::Ip => "ip",
            Self::FromIp => "from-ip",
            Self::ToIp => "to-ip",
            Self::Label => "label",
            Self::FromLabel => "from-label",
            Self::ToLabel => "to-label",
            Self::Port => "port",
            Self::FromPort => "from-port",
            Self::ToPort => "to-port",
            Self::Identity => "identity",
            Self::FromIdentity => "from-identity",
            Self::ToIdentity => "to-identity",
            Self::Verdict => "verdict",
            Self::Type => "type",
            Self::Protocol => "protocol",
            Self::NodeName => "node-name",
            Self::TrafficDirection => "traffic-direction",
            Self::DropReason => "drop-reason-desc",
            Self::Reply => "reply",
            Self::NotReply => "not-reply",
            Self::TcpFlags => "tcp-flags",
        }
    }

    /// Its short name.
    pub const fn short(self) -> Option<char> {
        match self {
            Self::Namespace => Some('n'),
            Self::Label => Some('l'),
            Self::Type => Some('t'),
            _ => None,
        }
    }

    /// True when it takes a value.
    pub const fn takes_value(self) -> bool {
        !matches!(self, Self::Reply | Self::NotReply)
    }

    /// True when several values may stand in one, separated by commas.
    pub const fn is_list(self) -> bool {
        !matches!(
            self,
            Self::Label | Self::FromLabel | Self::ToLabel | Self::TcpFlags
        )
    }

    /// One line of help.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Namespace => "Either end is in this namespace; completes a --pod without one",
            Self::FromNamespace => "The source is in this namespace",
            Self::ToNamespace => "The destination is in this namespace",
            Self::Pod => {
                "Either end is a pod [NAMESPACE/]PREFIX; without a namespace, `default` is meant"
            }
            Self::FromPod => "The source is a pod [NAMESPACE/]PREFIX",
            Self::ToPod => "The destination is a pod [NAMESPACE/]PREFIX",
            Self::Ip => "Either end has this address or is in this range",
            Self::FromIp => "The source has this address or is in this range",
            Self::ToIp => "The destination has this address or is in this range",
            Self::Label => "Either end's labels match this selector",
            Self::FromLabel => "The source's labels match this selector",
            Self::ToLabel => "The destination's labels match this selector",
            Self::Port => "Either end has this port",
            Self::FromPort => "The source has this port",
            Self::ToPort => "The destination has this port",
            Self::Identity => "Either end has this identity: a number or a reserved name",
            Self::FromIdentity => "The source has this identity",
            Self::ToIdentity => "The destination has this identity",
            Self::Verdict => "FORWARDED, DROPPED, ERROR, AUDIT, REDIRECTED, TRACED or TRANSLATED",
            Self::Type => {
                "drop, trace, l7, policy-verdict or sock; trace:to-endpoint names a trace point too"
            }
            Self::Protocol => "tcp, udp, sctp, icmp, icmpv4 or icmpv6",
            Self::NodeName => "The reporting node; `*` stands for any characters",
            Self::TrafficDirection => "ingress or egress",
            Self::DropReason => "Hubble's name of a drop reason, such as POLICY_DENIED",
            Self::Reply => "Replies only",
            Self::NotReply => "No replies",
            Self::TcpFlags => {
                "All of these TCP flags are set, such as SYN or RST,ACK; several --tcp-flags are alternatives"
            }
        }
    }

    const fn end(self) -> End {
        match self {
            Self::Namespace | Self::Pod | Self::Ip | Self::Label | Self::Port | Self::Identity => {
                End::Either
            }
            Self::FromNamespace
            | Self::FromPod
            | Self::FromIp
            | Self::FromLabel
            | Self::FromPort
            | Self::FromIdentity => End::Source,
            Self::ToNamespace
            | Self::ToPod
            | Self::ToIp
            | Self::ToLabel
            | Self::ToPort
            | Self::ToIdentity => End::Destination,
            _ => End::Whole,
        }
    }

    /// The flag for either end, for a flag about one end.
    const fn undirected(self) -> Self {
        match self {
            Self::FromNamespace | Self::ToNamespace => Self::Namespace,
            Self::FromPod | Self::ToPod => Self::Pod,
            Self::FromIp | Self::ToIp => Self::Ip,
            Self::FromLabel | Self::ToLabel => Self::Label,
            Self::FromPort | Self::ToPort => Self::Port,
            Self::FromIdentity | Self::ToIdentity => Self::Identity,
            other => other,
        }
    }
}

/// Collects flags in the order they were typed and makes a [`Filter`] of them.
#[derive(Clone, Debug, Default)]
pub struct FilterBuilder {
    show: Values,
    hide: Values,
    all_namespaces: bool,
}

type Values = BTreeMap<FilterFlag, Vec<String>>;

impl FilterBuilder {
    /// A pod without a namespace means every namespace's.
    pub fn all_namespaces(&mut self, yes: bool) {
        self.all_namespaces = yes;
    }

    /// Adds a flag; `not` when `--not` stands before it.
    pub fn add(&mut self, flag: FilterFlag, value: &str, not: bool) {
        let side = if not { &mut self.hide } else { &mut self.show };
        let values = side.entry(flag).or_default();
        if flag.is_list() {
            values.extend(value.split(',').map(|one| one.trim().to_owned()));
        } else {
            values.push(value.to_owned());
        }
    }

    /// The filter, with every value checked.
    pub fn build(&self) -> Result<Filter, FilterError> {
        let filter = Filter {
            whitelist: self.clauses(&self.show)?,
            blacklist: self.clauses(&self.hide)?,
        };
        Matcher::new(&filter)?;
        Ok(filter)
    }

    fn clauses(&self, values: &Values) -> Result<Vec<Clause>, FilterError> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        for (flag, given) in values {
            let either = flag.undirected();
            if either != *flag && values.contains_key(&either) {
                return Err(FilterError::new(
                    flag.name(),
                    &given.join(","),
                    format!(
                        "cannot stand beside --{}, which means either end",
                        either.name()
                    ),
                ));
            }
        }
        let (mut left, mut right) = (Clause::default(), Clause::default());
        for (flag, given) in values {
            match flag.undirected() {
                FilterFlag::Namespace | FilterFlag::Pod => {}
                _ => {
                    put(*flag, given, true, &mut left);
                    put(*flag, given, false, &mut right);
                }
            }
        }
        for (pod, namespace) in [
            (FilterFlag::Pod, FilterFlag::Namespace),
            (FilterFlag::FromPod, FilterFlag::FromNamespace),
            (FilterFlag::ToPod, FilterFlag::ToNamespace),
        ] {
            let patterns = self.pods(values, pod, namespace)?;
            put(pod, &patterns, true, &mut left);
            put(pod, &patterns, false, &mut right);
        }
        Ok(if left == right {
            vec![left]
        } else {
            vec![left, right]
        })
    }

    /// Pod patterns of a pod flag and its namespace flag.
    fn pods(
        &self,
        values: &Values,
        pod: FilterFlag,
        namespace: FilterFlag,
    ) -> Result<Vec<String>, FilterError> {
        let none = Vec::new();
        let namespaces = values.get(&namespace).unwrap_or(&none);
        let Some(pods) = values.get(&pod) else {
            return Ok(namespaces.iter().map(|one| format!("{one}/")).collect());
        };
        let mut patterns = Vec::new();
        for one in pods {
            match one.split_once('/') {
                Some((given, _)) => {
                    if !namespaces.is_empty() && !namespaces.iter().any(|known| known == given) {
                        return Err(FilterError::new(
                            pod.name(),
                            one,
                            format!(
                                "names another namespace than --{} {}",
                                namespace.name(),
                                namespaces.join(",")
                            ),
                        ));
                    }
                    patterns.push(one.clone());
                }
                None if !namespaces.is_empty() => {
                    patterns.extend(namespaces.iter().map(|known| format!("{known}/{one}")));
                }
                None if self.all_namespaces => patterns.push(format!("*/{one}")),
                None => patterns.push(format!("default/{one}")),
            }
        }
        Ok(patterns)
    }
}

/// Puts a flag's values into the left (source) or right (destination) clause.
fn put(flag: FilterFlag, values: &[String], left: bool, clause: &mut Clause) {
    let source = match flag.end() {
        End::Either => left,
        End::Source => true,
        End::Destination => false,
        End::Whole => {
            let list = match flag {
                FilterFlag::Verdict => &mut clause.verdict,
                FilterFlag::Type => &mut clause.event_type,
                FilterFlag::Protocol => &mut clause.protocol,
                FilterFlag::NodeName => &mut clause.node_name,
                FilterFlag::TrafficDirection => &mut clause.traffic_direction,
                FilterFlag::DropReason => &mut clause.drop_reason_desc,
                FilterFlag::TcpFlags => &mut clause.tcp_flags,
                FilterFlag::NotReply => return clause.reply.push(false),
                _ => return clause.reply.push(true),
            };
            return list.extend_from_slice(values);
        }
    };
    let list = match (flag.undirected(), source) {
        (FilterFlag::Ip, true) => &mut clause.source_ip,
        (FilterFlag::Ip, false) => &mut clause.destination_ip,
        (FilterFlag::Label, true) => &mut clause.source_label,
        (FilterFlag::Label, false) => &mut clause.destination_label,
        (FilterFlag::Port, true) => &mut clause.source_port,
        (FilterFlag::Port, false) => &mut clause.destination_port,
        (FilterFlag::Identity, true) => &mut clause.source_identity,
        (FilterFlag::Identity, false) => &mut clause.destination_identity,
        (_, true) => &mut clause.source_pod,
        (_, false) => &mut clause.destination_pod,
    };
    list.extend_from_slice(values);
}

#[cfg(test)]
mod tests;
