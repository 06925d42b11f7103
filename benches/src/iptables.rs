//! The rules that kube-proxy writes in its iptables mode, for a number of services.

use std::fmt::Write;

/// Rules that one service costs: one to match it, one to choose a backend, two for the backend.
pub(crate) const RULES_PER_SERVICE: usize = 4;

/// Address family of the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// `iptables-restore`.
    V4,
    /// `ip6tables-restore`.
    V6,
}

/// Input of `iptables-restore`: chains, matches and their order as kube-proxy has them. New connections
/// walk KUBE-SERVICES in full, because pods here talk to each other by address, as they do behind a
/// service once it is translated; established ones only pass the filter table's head.
pub(crate) fn rules(family: Family, services: usize) -> String {
    let (address, length): (fn(usize) -> String, u8) = match family {
        Family::V4 => (|n| format!("10.96.{}.{}", n / 250, n % 250 + 1), 32),
        Family::V6 => (|n| format!("fd96::{n:x}"), 128),
    };
    let backend = match family {
        Family::V4 => "10.88.0.2:8080",
        Family::V6 => "[fd88::2]:8080",
    };
    let mut text = String::from(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :KUBE-FIREWALL - [0:0]\n:KUBE-FORWARD - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]\n:KUBE-SERVICES - [0:0]\n\
         :KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         -A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
         -A INPUT -j KUBE-NODEPORTS\n\
         -A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n\
         -A INPUT -j KUBE-FIREWALL\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
         -A FORWARD -j KUBE-FORWARD\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n\
         -A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
         -A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-FIREWALL\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n\
         *nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n",
    );
    for n in 0..services {
        let _ = writeln!(text, ":KUBE-SVC-{n:016} - [0:0]\n:KUBE-SEP-{n:016} - [0:0]");
    }
    text.push_str(
        "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for n in 0..services {
        let address = address(n);
        let _ = writeln!(
            text,
            "-A KUBE-SERVICES -d {address}/{length} -p tcp -m tcp --dport 80 -j KUBE-SVC-{n:016}\n\
             -A KUBE-SVC-{n:016} -j KUBE-SEP-{n:016}\n\
             -A KUBE-SEP-{n:016} -s {address}/{length} -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{n:016} -p tcp -m tcp -j DNAT --to-destination {backend}"
        );
    }
    text.push_str("COMMIT\n");
    text
}
