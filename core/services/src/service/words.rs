//! The words that a Service's fields know, as they are spelled.

use super::{Algorithm, Distribution, FamilyPolicy, IngressMode, ServiceType, TrafficPolicy};

/// Words of a field, with what they mean; what is not there means the type's default.
pub(super) struct Words<T: 'static> {
    /// The words as a list, for who wrote another one.
    pub(super) known: &'static str,
    meanings: &'static [(&'static str, T)],
}

impl<T: Copy> Words<T> {
    const fn new(known: &'static str, meanings: &'static [(&'static str, T)]) -> Self {
        Self { known, meanings }
    }

    /// What a word means.
    pub(super) fn meaning(&self, text: &str) -> Option<T> {
        let mut meanings = self.meanings.iter();
        meanings
            .find(|(word, _)| *word == text)
            .map(|(_, meaning)| *meaning)
    }
}

pub(super) const TYPES: Words<ServiceType> = Words::new(
    "ClusterIP, NodePort, LoadBalancer, ExternalName",
    &[
        ("ClusterIP", ServiceType::ClusterIp),
        ("NodePort", ServiceType::NodePort),
        ("LoadBalancer", ServiceType::LoadBalancer),
        ("ExternalName", ServiceType::ExternalName),
    ],
);
pub(super) const FAMILY_POLICIES: Words<FamilyPolicy> = Words::new(
    "SingleStack, PreferDualStack, RequireDualStack",
    &[
        ("SingleStack", FamilyPolicy::SingleStack),
        ("PreferDualStack", FamilyPolicy::PreferDualStack),
        ("RequireDualStack", FamilyPolicy::RequireDualStack),
    ],
);
pub(super) const TRAFFIC_POLICIES: Words<TrafficPolicy> = Words::new(
    "Cluster, Local",
    &[
        ("Cluster", TrafficPolicy::Cluster),
        ("Local", TrafficPolicy::Local),
    ],
);
pub(super) const DISTRIBUTIONS: Words<Option<Distribution>> = Words::new(
    "PreferSameZone, PreferClose, PreferSameNode",
    &[
        ("PreferSameZone", Some(Distribution::SameZone)),
        ("PreferClose", Some(Distribution::SameZone)),
        ("PreferSameNode", Some(Distribution::SameNode)),
    ],
);
pub(super) const MODES: Words<IngressMode> = Words::new(
    "VIP, Proxy",
    &[("VIP", IngressMode::Vip), ("Proxy", IngressMode::Proxy)],
);
pub(super) const AFFINITIES: Words<bool> =
    Words::new("None, ClientIP", &[("None", false), ("ClientIP", true)]);
pub(super) const RANGE_POLICIES: Words<bool> =
    Words::new("allow, deny", &[("allow", false), ("deny", true)]);
pub(super) const ALGORITHMS: Words<Option<Algorithm>> = Words::new(
    "random, maglev",
    &[
        ("random", Some(Algorithm::Random)),
        ("maglev", Some(Algorithm::Maglev)),
    ],
);
pub(super) const TOPOLOGY_MODES: Words<bool> = Words::new(
    "Auto, Disabled",
    &[
        ("Auto", true),
        ("auto", true),
        ("Disabled", false),
        ("disabled", false),
    ],
);
