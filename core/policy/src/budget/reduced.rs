//! A policy whose addresses do not fit, in a form that opens nothing.

use crate::{Action, CidrBlock, Peer, Peers, Policy, Rule};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

impl Policy {
    /// The policy without its addresses: rules that allow select none of them, rules that deny select all
    /// addresses outside the cluster (and inside, where theirs did) instead, and a pass that names addresses
    /// denies. Whom it isolates stays isolated.
    #[must_use]
    pub fn without_addresses(mut self) -> Self {
        for rule in self.specs.iter_mut().flat_map(|spec| &mut spec.rules) {
            reduce(rule);
        }
        self
    }
}

fn reduce(rule: &mut Rule) {
    let Peers::Terms(terms) = &mut rule.peers else {
        return;
    };
    let allows = rule.action == Action::Allow;
    let mut named = false;
    let mut in_cluster = false;
    terms.retain(|term| match term {
        Peer::Cidr(block) => {
            named = true;
            in_cluster |= block.in_cluster;
            false
        }
        Peer::CidrGroup { .. } => {
            named = true;
            false
        }
        // One that allows keeps the Services' pods out, too; one that denies goes on denying them.
        Peer::Services(_) => {
            named = true;
            !allows
        }
        Peer::Endpoints(_) | Peer::Nodes(_) | Peer::Entity(_) => true,
    });
    if named && rule.action != Action::Allow {
        rule.action = Action::Deny;
        let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        terms.extend(all.map(|block| {
            Peer::Cidr(CidrBlock {
                block,
                except: Vec::new(),
                in_cluster,
            })
        }));
    }
}
