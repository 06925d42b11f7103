//! Reads a Service's object: what can be used of it, and a problem for what cannot.

use super::words::{
    AFFINITIES, ALGORITHMS, DISTRIBUTIONS, FAMILY_POLICIES, MODES, RANGE_POLICIES, TOPOLOGY_MODES,
    TRAFFIC_POLICIES, TYPES, Words,
};
use super::{
    Algorithm, ClusterFacts, ClusterIps, DEFAULT_AFFINITY_TIMEOUT, FamilyPolicy, Ingress,
    MAX_ADDRESSES, MAX_AFFINITY_TIMEOUT, MAX_PORTS, MAX_SOURCE_RANGES, Service, ServicePort,
    ServiceType, Sources, Target, TrafficPolicy, WrittenService,
};
use crate::backend::to_port;
use crate::problem::Problems;
use crate::{AddressFault, Family, Fault, Protocol};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

impl WrittenService {
    /// The Service that the object means. What cannot be used is in [`Service::problems`], and left out.
    pub fn read(&self, cluster: &ClusterFacts) -> Service {
        let mut reader = Reader {
            written: self,
            cluster,
            problems: Problems::default(),
        };
        let kind = reader.word("spec.type", &self.kind, &TYPES);
        let cluster_ips = reader.cluster_ips();
        let family_policy =
            reader.word("spec.ipFamilyPolicy", &self.family_policy, &FAMILY_POLICIES);
        let families = reader.families(&cluster_ips, family_policy);
        let cluster_ips = reader.of_families(cluster_ips, &families);
        let external_policy = reader.word(
            "spec.externalTrafficPolicy",
            &self.external_policy,
            &TRAFFIC_POLICIES,
        );
        let distribution = reader.word(
            "spec.trafficDistribution",
            &self.distribution,
            &DISTRIBUTIONS,
        );
        Service {
            name: self.name.clone(),
            uid: self.uid.clone(),
            created: self.created,
            kind,
            ports: reader.ports(kind),
            external_ips: reader.external_ips(&families),
            ingress: reader.ingress(kind, &families),
            sources: reader.sources(kind),
            affinity_timeout: reader.affinity(),
            internal_policy: reader.word(
                "spec.internalTrafficPolicy",
                &self.internal_policy,
                &TRAFFIC_POLICIES,
            ),
            external_policy,
            distribution,
            topology_auto: reader.topology_auto(),
            health_check_port: reader.health_check_port(kind, external_policy),
            algorithm: reader.algorithm(),
            other_proxy: self
                .labels
                .get(Self::PROXY_NAME)
                .filter(|name| cluster.proxy_name.as_ref() != Some(*name))
                .cloned(),
            load_balancer_class: Some(self.load_balancer_class.clone())
                .filter(|class| !class.is_empty()),
            allocate_node_ports: self.allocate_node_ports.unwrap_or(true),
            has_selector: self.has_selector,
            publish_not_ready: self.publish_not_ready,
            cluster_ips,
            families,
            family_policy,
            problems: reader.problems.into_list(),
        }
    }
}

struct Reader<'a> {
    written: &'a WrittenService,
    cluster: &'a ClusterFacts,
    problems: Problems,
}

impl Reader<'_> {
    /// What a word means; an unknown one is a problem, and means what no word does.
    fn word<T: Copy + Default>(&mut self, field: &str, text: &str, words: &Words<T>) -> T {
        if text.is_empty() {
            return T::default();
        }
        words.meaning(text).unwrap_or_else(|| {
            let fault = Fault::UnknownWord { known: words.known };
            self.problems.add(field, text, fault);
            T::default()
        })
    }

    /// The entries of a list that are used.
    fn bounded<'b, T>(&mut self, field: &str, list: &'b [T], most: usize) -> &'b [T] {
        let count = list.len();
        if count > most {
            let fault = Fault::TooMany { count, most };
            self.problems.add(field, "", fault);
        }
        &list[..count.min(most)]
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let fault = match text.parse::<IpAddr>() {
            Ok(address) => match AddressFault::of(address) {
                None => return Some(address),
                Some(fault) => Fault::Unusable(fault),
            },
            Err(_) => Fault::NotAnAddress,
        };
        self.problems.add(field, text, fault);
        None
    }

    /// Leaves out what an earlier entry of a list has; `seen` maps values to the fields that have them.
    fn first_of<T: Ord>(
        &mut self,
        seen: &mut BTreeMap<T, String>,
        value: T,
        field: &str,
        shown: &str,
    ) -> bool {
        if let Some(first) = seen.get(&value) {
            let first = first.clone();
            self.problems.add(field, shown, Fault::Duplicate { first });
            return false;
        }
        seen.insert(value, field.to_owned());
        true
    }

    fn cluster_ips(&mut self) -> ClusterIps {
        let mut found: Vec<IpAddr> = Vec::new();
        let mut seen = BTreeMap::new();
        let texts = self.bounded("spec.clusterIPs", &self.written.cluster_ips, 2);
        for (at, text) in texts.iter().enumerate() {
            if text == "None" {
                return ClusterIps::Headless;
            }
            let field = format!("spec.clusterIPs[{at}]");
            if text.is_empty() {
                continue;
            }
            let Some(address) = self.address(&field, text) else {
                continue;
            };
            if self.first_of(&mut seen, Family::of(address), &field, text) {
                found.push(address);
            }
        }
        ClusterIps::At(found)
    }

    /// The families that `ipFamilies` names, else those of the cluster IPs, else as many of the cluster's as
    /// the policy wants (KEP-563).
    fn families(&mut self, cluster_ips: &ClusterIps, policy: FamilyPolicy) -> Vec<Family> {
        let mut found = Vec::new();
        let texts = self.bounded("spec.ipFamilies", &self.written.families, 2);
        for (at, text) in texts.iter().enumerate() {
            let field = format!("spec.ipFamilies[{at}]");
            match Family::named(text) {
                None => {
                    let known = "IPv4, IPv6";
                    self.problems.add(field, text, Fault::UnknownWord { known });
                }
                Some(family) if found.contains(&family) => {
                    let first = "spec.ipFamilies[0]".to_owned();
                    self.problems.add(field, text, Fault::Duplicate { first });
                }
                Some(family) => found.push(family),
            }
        }
        if let (true, ClusterIps::At(addresses)) = (found.is_empty(), cluster_ips) {
            found = addresses.iter().copied().map(Family::of).collect();
        }
        if found.is_empty() {
            let wanted = if policy == FamilyPolicy::SingleStack {
                1
            } else {
                2
            };
            found = self.cluster.families.iter().copied().take(wanted).collect();
        }
        if policy == FamilyPolicy::SingleStack && found.len() > 1 {
            let fault = Fault::NoEffect("ipFamilyPolicy SingleStack allows one family");
            self.problems
                .add("spec.ipFamilies[1]", found[1].name(), fault);
            found.truncate(1);
        }
        if policy == FamilyPolicy::RequireDualStack && found.len() < 2 {
            let fault = Fault::NoEffect("the Service has one family");
            self.problems
                .add("spec.ipFamilyPolicy", "RequireDualStack", fault);
        }
        found
    }

    /// The cluster IPs of the Service's families.
    fn of_families(&mut self, cluster_ips: ClusterIps, families: &[Family]) -> ClusterIps {
        let ClusterIps::At(addresses) = cluster_ips else {
            return cluster_ips;
        };
        let mut kept = Vec::new();
        for address in addresses {
            if self.is_of("spec.clusterIPs", address, families) {
                kept.push(address);
            }
        }
        kept.shrink_to_fit();
        ClusterIps::At(kept)
    }

    fn is_of(&mut self, field: &str, address: IpAddr, families: &[Family]) -> bool {
        let found = Family::of(address);
        let is_of = families.contains(&found);
        if !is_of {
            let fault = Fault::OtherFamily { found };
            self.problems.add(field, &address.to_string(), fault);
        }
        is_of
    }

    fn ports(&mut self, kind: ServiceType) -> Vec<ServicePort> {
        let mut found = Vec::new();
        let (mut numbers, mut names, mut node_ports) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let written = self.bounded("spec.ports", &self.written.ports, MAX_PORTS);
        for (at, port) in written.iter().enumerate() {
            let field = |name: &str| format!("spec.ports[{at}].{name}");
            let shown = port.port.to_string();
            let Some(number) = to_port(port.port) else {
                self.problems.add(field("port"), &shown, Fault::NotAPort);
                continue;
            };
            let Some(protocol) = Protocol::named(&port.protocol) else {
                let known = "TCP, UDP, SCTP";
                let fault = Fault::UnknownWord { known };
                self.problems.add(field("protocol"), &port.protocol, fault);
                continue;
            };
            let Some(target) = self.target(&field("targetPort"), &port.target, number) else {
                continue;
            };
            if !self.first_of(&mut names, port.name.clone(), &field("name"), &port.name)
                || !self.first_of(&mut numbers, (protocol, number), &field("port"), &shown)
            {
                continue;
            }
            let node_port = self
                .node_port(kind, &field("nodePort"), port.node_port)
                .filter(|number| {
                    let shown = number.to_string();
                    let field = field("nodePort");
                    self.first_of(&mut node_ports, (protocol, *number), &field, &shown)
                });
            found.push(ServicePort {
                name: port.name.as_str().into(),
                protocol,
                number,
                target,
                node_port,
            });
        }
        found.shrink_to_fit();
        found
    }

    /// A number, or a name of at most 15 letters, digits and dashes with a letter among them (RFC 6335).
    fn target(&mut self, field: &str, text: &str, number: u16) -> Option<Target> {
        if text.is_empty() || text == "0" {
            return Some(Target::Number(number));
        }
        if let Ok(number) = text.parse::<i64>() {
            let port = to_port(number).map(Target::Number);
            if port.is_none() {
                self.problems.add(field, text, Fault::NotAPort);
            }
            return port;
        }
        let spelled = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if spelled && text.len() <= 15 && text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Some(Target::Name(text.into()));
        }
        self.problems.add(field, text, Fault::NotAPortName);
        None
    }

    /// A port of the cluster's range, of a Service that has any on nodes.
    fn node_port(&mut self, kind: ServiceType, field: &str, number: i64) -> Option<u16> {
        if number == 0 {
            return None;
        }
        let shown = number.to_string();
        let range = &self.cluster.node_ports;
        let fault = match to_port(number) {
            None => Fault::NotAPort,
            Some(_) if !matches!(kind, ServiceType::NodePort | ServiceType::LoadBalancer) => {
                Fault::NoEffect("the Service is not of type NodePort or LoadBalancer")
            }
            Some(port) if !range.contains(&port) => Fault::OutsideNodePorts {
                first: *range.start(),
                last: *range.end(),
            },
            Some(port) => return Some(port),
        };
        self.problems.add(field, &shown, fault);
        None
    }

    fn external_ips(&mut self, families: &[Family]) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        let texts = self.bounded(
            "spec.externalIPs",
            &self.written.external_ips,
            MAX_ADDRESSES,
        );
        for (at, text) in texts.iter().enumerate() {
            let field = format!("spec.externalIPs[{at}]");
            if let Some(address) = self.address(&field, text)
                && self.is_of(&field, address, families)
                && self.first_of(&mut seen, address, &field, text)
            {
                found.push(address);
            }
        }
        found
    }

    fn ingress(&mut self, kind: ServiceType, families: &[Family]) -> Vec<Ingress> {
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        let field = "status.loadBalancer.ingress";
        if kind != ServiceType::LoadBalancer {
            // What a Service that was a load balancer leaves there is nobody's fault.
            return found;
        }
        let entries = self.bounded(field, &self.written.ingress, MAX_ADDRESSES);
        for (at, entry) in entries.iter().enumerate() {
            let field = format!("{field}[{at}].ip");
            if entry.ip.is_empty() {
                continue;
            }
            let mode_field = format!("status.loadBalancer.ingress[{at}].ipMode");
            let mode = self.word(&mode_field, &entry.mode, &MODES);
            if let Some(address) = self.address(&field, &entry.ip)
                && self.is_of(&field, address, families)
                && self.first_of(&mut seen, address, &field, &entry.ip)
            {
                found.push(Ingress { address, mode });
            }
        }
        found
    }

    /// Ranges of clients. What cannot be read never admits anybody: an unreadable range to be allowed is left
    /// out, and with an unreadable range to be denied nobody is admitted.
    fn sources(&mut self, kind: ServiceType) -> Sources {
        let written = &self.written.source_ranges;
        let annotation = WrittenService::SOURCE_RANGES_POLICY;
        let deny = self.word(
            &format!("metadata.annotations[{annotation}]"),
            self.written.annotation(annotation),
            &RANGE_POLICIES,
        );
        if written.is_empty() {
            return Sources::Everybody;
        }
        let field = "spec.loadBalancerSourceRanges";
        if kind != ServiceType::LoadBalancer {
            let fault = Fault::NoEffect("the Service is not of type LoadBalancer");
            self.problems.add(field, "", fault);
            return Sources::Everybody;
        }
        let mut ranges = Vec::new();
        let mut all_read = written.len() <= MAX_SOURCE_RANGES;
        let texts = self.bounded(field, written, MAX_SOURCE_RANGES);
        for (at, text) in texts.iter().enumerate() {
            // The API server trims them too.
            match text.trim().parse::<IpNet>() {
                Ok(range) => ranges.push(range.trunc()),
                Err(_) => {
                    all_read = false;
                    let fault = if deny {
                        Fault::UnreadableDeny
                    } else {
                        Fault::NotAPrefix
                    };
                    self.problems.add(format!("{field}[{at}]"), text, fault);
                }
            }
        }
        ranges.sort();
        ranges.dedup();
        match (deny, all_read) {
            (false, _) => Sources::Only(ranges),
            (true, true) => Sources::AllBut(ranges),
            (true, false) => Sources::Only(Vec::new()),
        }
    }

    fn affinity(&mut self) -> Option<u32> {
        let written = self.written;
        if !self.word(
            "spec.sessionAffinity",
            &written.session_affinity,
            &AFFINITIES,
        ) {
            return None;
        }
        let Some(seconds) = written.affinity_timeout else {
            return Some(DEFAULT_AFFINITY_TIMEOUT);
        };
        let within = u32::try_from(seconds)
            .ok()
            .filter(|seconds| (1..=MAX_AFFINITY_TIMEOUT).contains(seconds));
        if within.is_none() {
            self.problems.add(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                &seconds.to_string(),
                Fault::OutOfBounds {
                    least: 1,
                    most: MAX_AFFINITY_TIMEOUT,
                    used: DEFAULT_AFFINITY_TIMEOUT,
                },
            );
        }
        within.or(Some(DEFAULT_AFFINITY_TIMEOUT))
    }

    fn topology_auto(&mut self) -> bool {
        let present = WrittenService::TOPOLOGY_MODE
            .into_iter()
            .find(|name| self.written.annotations.contains_key(*name));
        let Some(name) = present else {
            return false;
        };
        let text = self.written.annotation(name);
        self.word(
            &format!("metadata.annotations[{name}]"),
            text,
            &TOPOLOGY_MODES,
        )
    }

    fn algorithm(&mut self) -> Algorithm {
        let name = WrittenService::ALGORITHM;
        let field = format!("metadata.annotations[{name}]");
        self.word(&field, self.written.annotation(name), &ALGORITHMS)
            .unwrap_or(self.cluster.algorithm)
    }

    fn health_check_port(&mut self, kind: ServiceType, policy: TrafficPolicy) -> Option<u16> {
        let number = self.written.health_check_port;
        let field = "spec.healthCheckNodePort";
        if number != 0 && (kind, policy) != (ServiceType::LoadBalancer, TrafficPolicy::Local) {
            let fault =
                Fault::NoEffect("it goes with type LoadBalancer and externalTrafficPolicy Local");
            self.problems.add(field, &number.to_string(), fault);
            return None;
        }
        self.node_port(kind, field, number)
    }
}
