//! Policy sets drawn by seed: every kind, every sort of peer and port, allows and denies.

use serde_json::{Value, json};

/// Labels that pods bear: `app` and `tier`.
pub const APPS: [&str; 3] = ["web", "db", "cache"];
/// See [`APPS`].
pub const TIERS: [&str; 2] = ["front", "back"];
/// Values of the label `role` that nodes bear.
pub const ROLES: [&str; 2] = ["edge", "inner"];
/// Namespaces, each with the labels `team` (its own name) and `env`.
pub const NAMESPACES: [(&str, &str); 3] = [("red", "prod"), ("green", "prod"), ("blue", "test")];

/// The addresses that rules may speak of.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Prefixes, both families: pods, pod ranges, nodes, the world, everything.
    pub prefixes: Vec<String>,
}

/// Draws from a seed: the same seed draws the same.
pub struct Draw {
    state: u64,
}

impl Draw {
    /// A source of draws.
    pub fn new(seed: u64) -> Self {
        // SplitMix64's increment keeps neighbouring seeds apart.
        let state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { state }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A set of policies, with the CIDR groups and services that they may refer to.
    pub fn policies(&mut self, addresses: &Addresses) -> Vec<Value> {
        let mut set = vec![self.cidr_group(0, addresses), self.cidr_group(1, addresses)];
        set.extend(self.services(addresses));
        let number = 2 + self.below(5);
        set.extend((0..number).map(|number| match self.below(100) {
            0..32 => self.network_policy(number, addresses),
            32..60 => self.cilium(number, addresses, true),
            60..72 => self.cilium(number, addresses, false),
            72..86 => self.host(number, addresses),
            _ => self.cluster(number, addresses),
        }));
        set
    }

    fn cidr_group(&mut self, number: usize, addresses: &Addresses) -> Value {
        let prefixes: Vec<&String> = (0..1 + self.below(4))
            .map(|_| self.one(&addresses.prefixes))
            .collect();
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
            "metadata": {"name": format!("group-{number}"), "labels": {"half": number.to_string()}},
            "spec": {"externalCIDRs": prefixes},
        })
    }

    /// A service with a selector, and one whose endpoints are written by hand.
    fn services(&mut self, addresses: &Addresses) -> [Value; 3] {
        let namespace = self.one(&NAMESPACES).0;
        let single = |prefix: &&String| prefix.ends_with("/32");
        let known: Vec<&String> = addresses.prefixes.iter().filter(single).collect();
        let address = self.one(&known).trim_end_matches("/32");
        let ports = json!([{"port": 80, "targetPort": 8080}]);
        [
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "chosen", "namespace": namespace, "labels": {"kind": "chosen"}},
                "spec": {"selector": {"app": self.one(&APPS)}, "ports": ports},
            }),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "outside", "namespace": "red", "labels": {"kind": "outside"}},
                "spec": {"ports": ports},
            }),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "outside-1", "namespace": "red",
                    "labels": {"kubernetes.io/service-name": "outside"}},
                "endpoints": [{"addresses": [address]}], "ports": [{"port": 8080}],
            }),
        ]
    }

    /// A ClusterNetworkPolicy. Priorities differ, so that the order is written down.
    fn cluster(&mut self, number: usize, addresses: &Addresses) -> Value {
        let tier = *self.one(&["Admin", "Admin", "Baseline"]);
        let subject = match self.below(3) {
            0 => json!({"namespaces": {}}),
            1 => json!({"namespaces": {"matchLabels": {"env": self.one(&["prod", "test"])}}}),
            _ => json!({"pods": {"namespaceSelector": {}, "podSelector": self.selector()}}),
        };
        let mut spec = json!({"tier": tier, "priority": number * 7, "subject": subject});
        for (section, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules: Vec<Value> = (0..self.below(3))
                .map(|_| self.cluster_rule(peers, addresses))
                .collect();
            if !rules.is_empty() {
                spec[section] = json!(rules);
            }
        }
        json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": format!("tier-{number}")}, "spec": spec,
        })
    }

    fn cluster_rule(&mut self, peers: &str, addresses: &Addresses) -> Value {
        let peer = match self.below(3) {
            0 => json!({"namespaces": self.namespace_selector()}),
            1 => json!({"pods": {
                "namespaceSelector": self.namespace_selector(), "podSelector": self.selector()}}),
            _ if peers == "to" => json!({"networks": [self.one(&addresses.prefixes)]}),
            _ => json!({"namespaces": {}}),
        };
        let mut rule = json!({"action": self.one(&["Accept", "Deny", "Pass"]), peers: [peer]});
        match self.below(4) {
            0 => rule["protocols"] = json!([{"tcp": {"destinationPort": {"number": 8080}}}]),
            1 => {
                rule["protocols"] =
                    json!([{"tcp": {"destinationPort": {"range": {"start": 9000, "end": 9999}}}}]);
            }
            2 => rule["protocols"] = json!([{"udp": {"destinationPort": {"number": 5353}}}]),
            _ => {}
        }
        rule
    }

    fn selector(&mut self) -> Value {
        match self.below(10) {
            0..2 => json!({}),
            2..6 => json!({"matchLabels": {"app": self.one(&APPS)}}),
            6..8 => json!({"matchLabels": {"tier": self.one(&TIERS)}}),
            8 => {
                let operator = self.one(&["In", "NotIn"]);
                let values = [self.one(&APPS), self.one(&APPS)];
                let values = if values[0] == values[1] {
                    &values[..1]
                } else {
                    &values[..]
                };
                json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]})
            }
            _ => json!({"matchExpressions": [
                {"key": "tier", "operator": self.one(&["Exists", "DoesNotExist"])}]}),
        }
    }

    fn namespace_selector(&mut self) -> Value {
        match self.below(4) {
            0 => json!({}),
            1 => json!({"matchLabels": {"env": self.one(&["prod", "test"])}}),
            2 => json!({"matchLabels": {"team": self.one(&NAMESPACES).0}}),
            _ => json!({"matchLabels": {"kubernetes.io/metadata.name": self.one(&NAMESPACES).0}}),
        }
    }

    /// A prefix, and perhaps holes in it.
    fn block(&mut self, addresses: &Addresses) -> (String, Vec<String>) {
        let prefix = self.one(&addresses.prefixes).clone();
        let block: ipnet::IpNet = prefix.parse().unwrap();
        let inside: Vec<&String> = addresses
            .prefixes
            .iter()
            .filter(|other| {
                let other: ipnet::IpNet = other.parse().unwrap();
                block != other && block.contains(&other)
            })
            .collect();
        let mut holes = Vec::new();
        if !inside.is_empty() && self.chance(50) {
            holes.push((*self.one(&inside)).clone());
        }
        (prefix, holes)
    }

    fn network_policy(&mut self, number: usize, addresses: &Addresses) -> Value {
        let types = *self.one(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]);
        let mut spec = json!({"podSelector": self.selector(), "policyTypes": types});
        for kind in types {
            let (section, peers) = match *kind {
                "Ingress" => ("ingress", "from"),
                _ => ("egress", "to"),
            };
            let rules = self.below(4);
            if rules == 0 && self.chance(50) {
                continue;
            }
            let rules: Vec<Value> = (0..rules)
                .map(|_| {
                    let mut rule = json!({});
                    if self.chance(80) {
                        let number = 1 + self.below(2);
                        let list: Vec<Value> = (0..number)
                            .map(|_| self.network_policy_peer(addresses))
                            .collect();
                        rule[peers] = json!(list);
                    }
                    if self.chance(60) {
                        let number = 1 + self.below(2);
                        let list: Vec<Value> =
                            (0..number).map(|_| self.network_policy_port()).collect();
                        rule["ports"] = json!(list);
                    }
                    rule
                })
                .collect();
            spec[section] = json!(rules);
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("np-{number}"), "namespace": self.one(&NAMESPACES).0},
            "spec": spec,
        })
    }

    fn network_policy_peer(&mut self, addresses: &Addresses) -> Value {
        match self.below(4) {
            0 => json!({"podSelector": self.selector()}),
            1 => json!({"namespaceSelector": self.namespace_selector()}),
            2 => {
                json!({"namespaceSelector": self.namespace_selector(), "podSelector": self.selector()})
            }
            _ => {
                let (cidr, except) = self.block(addresses);
                if except.is_empty() {
                    json!({"ipBlock": {"cidr": cidr}})
                } else {
                    json!({"ipBlock": {"cidr": cidr, "except": except}})
                }
            }
        }
    }

    fn network_policy_port(&mut self) -> Value {
        match self.below(6) {
            0 => json!({"protocol": "TCP", "port": 8080}),
            1 => json!({"protocol": "TCP", "port": "http"}),
            2 => json!({"protocol": "UDP", "port": 5353}),
            3 => json!({"protocol": "TCP", "port": 8000, "endPort": 8999}),
            4 => json!({"protocol": self.one(&["TCP", "UDP"])}),
            _ => json!({"protocol": "UDP", "port": "dns"}),
        }
    }

    fn node_selector(&mut self) -> Value {
        match self.below(3) {
            0 => json!({}),
            1 => json!({"matchLabels": {"role": self.one(&ROLES)}}),
            _ => json!({"matchExpressions": [
                {"key": "role", "operator": "NotIn", "values": [self.one(&ROLES)]}]}),
        }
    }

    /// A host policy, one that may cut whatever it says.
    fn host(&mut self, number: usize, addresses: &Addresses) -> Value {
        let mut spec = json!({"nodeSelector": self.node_selector()});
        self.cilium_rules(&mut spec, addresses);
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": format!("host-{number}"),
                "annotations": {"heddle.dev/allow-lock-out": "true"}},
            "spec": spec,
        })
    }

    fn cilium(&mut self, number: usize, addresses: &Addresses, namespaced: bool) -> Value {
        let mut spec = json!({"endpointSelector": self.selector()});
        if !namespaced && self.chance(50) {
            let namespace = self.one(&NAMESPACES).0;
            spec["endpointSelector"] =
                json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": namespace}});
        }
        self.cilium_rules(&mut spec, addresses);
        let (kind, name) = if namespaced {
            ("CiliumNetworkPolicy", format!("cnp-{number}"))
        } else {
            ("CiliumClusterwideNetworkPolicy", format!("ccnp-{number}"))
        };
        let mut policy = json!({
            "apiVersion": "cilium.io/v2", "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        if namespaced {
            policy["metadata"]["namespace"] = json!(self.one(&NAMESPACES).0);
        }
        policy
    }

    fn cilium_rules(&mut self, spec: &mut Value, addresses: &Addresses) {
        let sections = ["ingress", "egress", "ingressDeny", "egressDeny"];
        let first = self.below(4);
        for (at, section) in sections.iter().enumerate() {
            if at != first && !self.chance(25) {
                continue;
            }
            let rules = 1 + self.below(2);
            let rules: Vec<Value> = (0..rules)
                .map(|_| self.cilium_rule(section.starts_with("ingress"), addresses))
                .collect();
            spec[section] = json!(rules);
        }
        if self.chance(15) {
            spec["enableDefaultDeny"] =
                json!({"ingress": self.chance(50), "egress": self.chance(50)});
        }
    }

    fn cilium_rule(&mut self, ingress: bool, addresses: &Addresses) -> Value {
        let word = if ingress { "from" } else { "to" };
        let mut rule = json!({});
        match self.below(10) {
            0..4 => {
                let mut selector = self.selector();
                if self.chance(40) {
                    let namespace = self.one(&NAMESPACES).0;
                    selector =
                        json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": namespace}});
                }
                rule[format!("{word}Endpoints")] = json!([selector]);
            }
            4..7 => {
                let entity = self.one(&["world", "cluster", "all", "host", "remote-node"]);
                rule[format!("{word}Entities")] = json!([entity]);
            }
            7 if self.chance(40) => {
                let group = if self.chance(50) {
                    json!({"cidrGroupRef": format!("group-{}", self.below(3))})
                } else {
                    json!({"cidrGroupSelector": {"matchLabels": {"half": self.below(2).to_string()}}})
                };
                rule[format!("{word}CIDRSet")] = json!([group]);
            }
            7 if !ingress && self.chance(50) => {
                rule["toServices"] = json!([match self.below(3) {
                    0 =>
                        json!({"k8sService": {"serviceName": "chosen", "namespace": self.one(&NAMESPACES).0}}),
                    1 => json!({"k8sService": {"serviceName": "outside", "namespace": "red"}}),
                    _ => json!({"k8sServiceSelector": {"selector":
                        {"matchLabels": {"kind": "chosen"}}}}),
                }]);
            }
            7 => rule[format!("{word}CIDR")] = json!([self.one(&addresses.prefixes)]),
            8 => {
                let (cidr, except) = self.block(addresses);
                rule[format!("{word}CIDRSet")] = if except.is_empty() {
                    json!([{"cidr": cidr}])
                } else {
                    json!([{"cidr": cidr, "except": except}])
                };
            }
            9 if self.chance(50) => {
                rule[format!("{word}Nodes")] = json!([self.node_selector()]);
            }
            _ => {}
        }
        match self.below(6) {
            0 => rule["toPorts"] = json!([{"ports": [{"port": "8080", "protocol": "TCP"}]}]),
            // Towards addresses a name means nothing, and a deny of nothing is refused.
            1 if ["toCIDR", "toCIDRSet", "toNodes"]
                .iter()
                .all(|list| rule.get(*list).is_none()) =>
            {
                rule["toPorts"] = json!([{"ports": [{"port": "http"}]}]);
            }
            2 => rule["toPorts"] = json!([{"ports": [{"port": "5353", "protocol": "ANY"}]}]),
            3 => {
                rule["toPorts"] =
                    json!([{"ports": [{"port": "8000", "endPort": 9500, "protocol": "TCP"}]}]);
            }
            4 => {
                rule["icmps"] = json!([{"fields": [
                    {"type": 8, "family": "IPv4"}, {"type": 128, "family": "IPv6"}]}]);
            }
            _ => {}
        }
        rule
    }
}
