//! Asking an endpoint's policy.

use crate::{
    maps::{GENERATIONS, POLICIES},
    peer::Peer,
};
use aya_ebpf::btf_maps::{LpmTrie, lpm_trie::Key};
use heddle_abi::{DropReason, POLICY_FULL_PREFIX, POLICY_VERDICT_ALLOW, PolicyKey, PolicyValue};

/// Generation of an endpoint's policy; to be read before the policy is asked.
#[inline(always)]
pub fn generation(endpoint: u32) -> u32 {
    GENERATIONS.get(endpoint).copied().unwrap_or(0)
}

/// Asks an endpoint's policy about a peer; gives the cookie of the rows' rules.
///
/// On denial by an explicit deny the cookie is left in `cookie`.
#[inline(always)]
pub fn ask(
    endpoint: u32,
    direction: u8,
    peer: &Peer,
    protocol: u8,
    port: u16,
    cookie: &mut u32,
) -> Result<(), DropReason> {
    *cookie = 0;
    let Some(map) = POLICIES.get(endpoint) else {
        return Err(DropReason::EpNotReady);
    };
    let mut key = Key::new(
        POLICY_FULL_PREFIX,
        PolicyKey {
            identity: peer.identity,
            direction,
            protocol,
            port,
        },
    );
    let mut precedence = 0;
    let mut verdict = 0;
    consider(map, &key, &mut precedence, &mut verdict, cookie);
    if peer.cidr != 0 {
        key.data.identity = peer.cidr;
        consider(map, &key, &mut precedence, &mut verdict, cookie);
    }
    key.data.identity = 0;
    consider(map, &key, &mut precedence, &mut verdict, cookie);
    match verdict {
        0 => Err(DropReason::PolicyDenied),
        POLICY_VERDICT_ALLOW => Ok(()),
        _ => Err(DropReason::PolicyDeny),
    }
}

/// Keeps a key's row if its precedence is the highest so far.
#[inline(always)]
fn consider(
    map: &LpmTrie<PolicyKey, PolicyValue, 16384>,
    key: &Key<PolicyKey>,
    precedence: &mut u32,
    verdict: &mut u8,
    cookie: &mut u32,
) {
    if let Some(row) = map.get(key) {
        if row.precedence >= *precedence {
            *precedence = row.precedence;
            *verdict = row.verdict;
            *cookie = row.cookie;
        }
    }
}
