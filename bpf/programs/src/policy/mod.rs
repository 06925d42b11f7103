//! Asking an endpoint's policy.

pub mod peer;

use crate::maps::{BINDINGS, POLICIES, PolicyMap};
use aya_ebpf::btf_maps::lpm_trie::Key;
use heddle_abi::{
    ConnectionVerdict, DropReason, POLICY_FULL_PREFIX, POLICY_SLOT_NONE, POLICY_VERDICT_ALIAS,
    POLICY_VERDICT_ALLOW, PolicyBinding, PolicyKey,
};
use peer::Peer;

/// Which policy an endpoint has, and since which change.
#[inline(always)]
pub fn binding(endpoint: u32) -> PolicyBinding {
    match BINDINGS.get(endpoint) {
        // SAFETY: a map's value, valid while the program runs. Volatile: slot and generation are one load.
        Some(binding) => unsafe { core::ptr::read_volatile(binding) },
        None => PolicyBinding::default(),
    }
}

/// Whether a connection's verdict was given in the present circumstances.
#[inline(always)]
pub fn holds(verdict: &ConnectionVerdict, generation: u32, peer: &Peer) -> bool {
    verdict.generation == generation
        && generation != 0
        && verdict.peer == peer.identity
        && verdict.peer_cidr == peer.cidr
}

/// Asks a bound policy about a peer; gives the cookie of the rows' rules.
///
/// On denial by an explicit deny the cookie is left in `cookie`.
#[inline(always)]
pub fn ask(
    binding: PolicyBinding,
    direction: u8,
    peer: &Peer,
    protocol: u8,
    port: u16,
    cookie: &mut u32,
) -> Result<(), DropReason> {
    *cookie = 0;
    if binding.slot() == POLICY_SLOT_NONE {
        return Err(DropReason::EpNotReady);
    }
    let Some(map) = POLICIES.get(binding.slot()) else {
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
    consider(map, &mut key, &mut precedence, &mut verdict, cookie);
    if peer.cidr != 0 {
        key.data.identity = peer.cidr;
        consider(map, &mut key, &mut precedence, &mut verdict, cookie);
    }
    key.data.identity = 0;
    consider(map, &mut key, &mut precedence, &mut verdict, cookie);
    match verdict {
        0 => Err(DropReason::PolicyDenied),
        POLICY_VERDICT_ALLOW => Ok(()),
        _ => Err(DropReason::PolicyDeny),
    }
}

/// Keeps a key's row if its precedence is the highest so far. Where the key's row is an alias, the key is changed to the
/// identity that it leads to.
#[inline(always)]
fn consider(
    map: &PolicyMap,
    key: &mut Key<PolicyKey>,
    precedence: &mut u32,
    verdict: &mut u8,
    cookie: &mut u32,
) {
    let Some(mut row) = map.get(&*key) else {
        return;
    };
    if row.verdict == POLICY_VERDICT_ALIAS {
        key.data.identity = row.cookie;
        row = match map.get(&*key) {
            Some(row) => row,
            None => return,
        };
    }
    // At a tie the narrower key, asked first, gives the rules to name.
    if *verdict == 0 || row.precedence > *precedence {
        *precedence = row.precedence;
        *verdict = row.verdict;
        *cookie = row.cookie;
    }
}
