//! All ordered pairs, all probes.

use crate::{Answers, Cluster, Named, Probe, common_family};
use heddle_model::Selector;
use heddle_policy::EntryVerdict;

/// One cell.
#[derive(Clone, Copy)]
pub struct Cell<'a> {
    /// The source.
    pub from: &'a Named,
    /// The destination.
    pub to: &'a Named,
    /// What is tried.
    pub probe: &'a Probe,
    /// What the source's policy says.
    pub egress: EntryVerdict,
    /// What the destination's policy says.
    pub ingress: EntryVerdict,
}

impl Cell<'_> {
    /// Allow when both directions allow.
    pub fn verdict(&self) -> EntryVerdict {
        self.egress.max(self.ingress)
    }
}

/// The pods that a selector selects, and the peers that join.
pub fn ends(cluster: &Cluster, selector: &Selector, peers: &[Named]) -> Vec<Named> {
    (0..cluster.pods.len())
        .filter(|pod| {
            let labels = &cluster.pods[*pod].labels;
            selector.matches(|key| labels.get(key).map(String::as_str))
        })
        .map(|pod| Named::pod(cluster, pod))
        .chain(peers.iter().cloned())
        .collect()
}

/// Calls `each` for every cell, sources outermost, then destinations, then probes, until it fails. A cell exists only
/// where the destination has the probe's named port.
pub fn cells<'a, E>(
    cluster: &Cluster,
    probes: &'a [Probe],
    sources: &'a [Named],
    targets: &'a [Named],
    mut each: impl FnMut(Cell<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut answers = Answers::of(cluster);
    for from in sources {
        for to in targets {
            let common = common_family(cluster, from, to);
            for probe in probes {
                let Some(traffic) = probe.traffic(cluster, to.peer) else {
                    continue;
                };
                let (egress, ingress) = if from.peer.is_same_pod(to.peer, cluster) {
                    (EntryVerdict::Allow, EntryVerdict::Allow)
                } else {
                    let family = probe.family.unwrap_or(common);
                    let source = from.peer.party(to.peer, cluster, family);
                    let target = to.peer.party(from.peer, cluster, family);
                    answers.ask(&source, &target, traffic)
                };
                each(Cell {
                    from,
                    to,
                    probe,
                    egress,
                    ingress,
                })?;
            }
        }
    }
    Ok(())
}
