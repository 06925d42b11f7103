//! Request/response, short connections and streams, on one node and between two.

use crate::RunArguments;
use crate::compare::{Arm, Report, Rounds};
use crate::iptables::RULES_PER_SERVICE;
use crate::load::Kind;
use crate::process::{Server, measure};
use crate::topology::Chain;
use anyhow::Result;
use std::net::IpAddr;
use std::path::PathBuf;

/// A way from a client to a server, with the server running.
struct Way {
    name: &'static str,
    client: PathBuf,
    addresses: [IpAddr; 2],
    _server: Server,
    _chain: Chain,
}

impl Way {
    fn over(name: &'static str, chain: Chain, arguments: &RunArguments) -> Result<Self> {
        Ok(Self {
            name,
            client: chain.client(),
            addresses: chain.addresses(),
            _server: Server::start(&chain.server(), arguments.placement)?,
            _chain: chain,
        })
    }
}

/// One veth pair.
const BARE: &str = "bare-veth";
/// Two namespaces, routed by the kernel.
const ROUTED: &str = "routed";
/// The same with kube-proxy's rules for one service.
const ONE_SERVICE: &str = "routed+iptables-1-service";
/// The same with 1,000 rules.
const THOUSAND_RULES: &str = "routed+iptables-1000-rules";

/// Pairs to compare, baseline first.
const PAIRS: &[(&str, &str)] = &[
    (BARE, ROUTED),
    (ROUTED, THOUSAND_RULES),
    (ROUTED, ONE_SERVICE),
];

/// Runs every network benchmark that was asked for.
pub(crate) fn run(arguments: &RunArguments, report: &mut Report) -> Result<()> {
    let places = [("same-node", 1), ("cross-node", 3)];
    for (place, routers) in places {
        let wanted: Vec<(String, Kind, usize)> = Kind::ALL
            .into_iter()
            .flat_map(|kind| {
                ["v4", "v6"]
                    .into_iter()
                    .enumerate()
                    .map(move |(family, shown)| {
                        (format!("{place}/{}/{shown}", kind.name()), kind, family)
                    })
            })
            .filter(|(name, ..)| {
                arguments
                    .bench
                    .as_ref()
                    .is_none_or(|part| name.contains(part.as_str()))
            })
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let services = 1000 / RULES_PER_SERVICE;
        let ways = [
            Way::over(BARE, Chain::bare()?, arguments)?,
            Way::over(ROUTED, Chain::routed(routers, None)?, arguments)?,
            Way::over(ONE_SERVICE, Chain::routed(routers, Some(1))?, arguments)?,
            Way::over(
                THOUSAND_RULES,
                Chain::routed(routers, Some(services))?,
                arguments,
            )?,
        ];
        for (name, kind, family) in wanted {
            let arms = ways
                .iter()
                .map(|way| Arm {
                    name: way.name,
                    measure: Box::new(move || {
                        measure(
                            &way.client,
                            kind,
                            way.addresses[family],
                            arguments.seconds,
                            arguments.placement,
                        )
                    }),
                })
                .collect();
            let rounds = Rounds::run(arms, arguments.rounds)?;
            for (baseline, candidate) in PAIRS {
                if let Some(comparison) = rounds.compare(&name, kind.unit(), baseline, candidate) {
                    report.add(comparison)?;
                }
            }
        }
    }
    Ok(())
}
