//! The kinds that Heddle reads or writes: one row each.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Makes [`Kind`] and everything that is known of a kind from one row per kind: its documentation and name,
/// its `apiVersion`, its plural in paths of the API, whether it lives in a namespace, and what holds of it.
macro_rules! kinds {
    ($(
        $(#[doc = $doc:literal])*
        $kind:ident: $api:literal, $plural:literal, $scope:ident $(, $trait:ident)*;
    )*) => {
        /// The kinds that Heddle reads or writes.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind {
            $($(#[doc = $doc])* $kind,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: [Self; [$(stringify!($kind)),*].len()] = [$(Self::$kind),*];

            const fn row(self) -> Row {
                match self {
                    $(Self::$kind => Row {
                        name: stringify!($kind),
                        api_version: $api,
                        plural: $plural,
                        ..Row::$scope
                    }$(.$trait())*,)*
                }
            }
        }
    };
}

kinds! {
    /// `v1` Namespace.
    Namespace: "v1", "namespaces", CLUSTER, status, of_verdicts;
    /// `v1` Node.
    Node: "v1", "nodes", CLUSTER, status, of_verdicts;
    /// `v1` Pod.
    Pod: "v1", "pods", NAMESPACED, status, of_verdicts;
    /// `apps/v1` Deployment.
    Deployment: "apps/v1", "deployments", NAMESPACED, status;
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy: "networking.k8s.io/v1", "networkpolicies", NAMESPACED, status, policy, of_verdicts;
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy: "cilium.io/v2", "ciliumnetworkpolicies", NAMESPACED, status, policy, of_verdicts;
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy: "cilium.io/v2", "ciliumclusterwidenetworkpolicies", CLUSTER, status, policy, of_verdicts;
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy: "policy.networking.k8s.io/v1alpha2", "clusternetworkpolicies", CLUSTER, status, policy, of_verdicts;
    /// `cilium.io/v2` CiliumCIDRGroup.
    CiliumCIDRGroup: "cilium.io/v2", "ciliumcidrgroups", CLUSTER, of_verdicts;
    /// `v1` Service.
    Service: "v1", "services", NAMESPACED, status, of_verdicts;
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice: "discovery.k8s.io/v1", "endpointslices", NAMESPACED, of_verdicts;
    /// `cilium.io/v2` CiliumIdentity: named by its number, labels in `security-labels`.
    CiliumIdentity: "cilium.io/v2", "ciliumidentities", CLUSTER, of_verdicts;
    /// `cilium.io/v2` CiliumEndpoint: one per pod, data in `status`, which is a field like any other: one
    /// write publishes a pod.
    CiliumEndpoint: "cilium.io/v2", "ciliumendpoints", NAMESPACED, of_verdicts;
    /// `heddle.dev/v1` IdentityClaim: named by the hash of a label set, so that a label set has one number.
    IdentityClaim: "heddle.dev/v1", "identityclaims", CLUSTER;
    /// `heddle.dev/v1` NodePolicyReport: named by its node, which says in it what it has in force.
    NodePolicyReport: "heddle.dev/v1", "nodepolicyreports", CLUSTER;
    /// `coordination.k8s.io/v1` Lease: who leads, and until when.
    Lease: "coordination.k8s.io/v1", "leases", NAMESPACED;
}

/// What is known of a kind.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    api_version: &'static str,
    plural: &'static str,
    namespaced: bool,
    status: bool,
    policy: bool,
    of_verdicts: bool,
}

impl Row {
    const CLUSTER: Self = Self {
        name: "",
        api_version: "",
        plural: "",
        namespaced: false,
        status: false,
        policy: false,
        of_verdicts: false,
    };
    const NAMESPACED: Self = Self {
        namespaced: true,
        ..Self::CLUSTER
    };

    /// Its status is a subresource.
    const fn status(mut self) -> Self {
        self.status = true;
        self
    }

    /// It is a kind of policy.
    const fn policy(mut self) -> Self {
        self.policy = true;
        self
    }

    /// It bears on policies' verdicts.
    const fn of_verdicts(mut self) -> Self {
        self.of_verdicts = true;
        self
    }
}

/// How many kinds bear on policies' verdicts.
const VERDICT_KINDS: usize = {
    let (mut count, mut at) = (0, 0);
    while at < Kind::ALL.len() {
        if Kind::ALL[at].row().of_verdicts {
            count += 1;
        }
        at += 1;
    }
    count
};

impl Kind {
    /// Everything that bears on a policy's verdicts: who there is and where, the policies, and what they refer
    /// to by name. Deployments do not: their pods are there themselves.
    pub const OF_VERDICTS: [Self; VERDICT_KINDS] = {
        let mut kinds = [Self::Namespace; VERDICT_KINDS];
        let (mut count, mut at) = (0, 0);
        while at < Self::ALL.len() {
            if Self::ALL[at].row().of_verdicts {
                kinds[count] = Self::ALL[at];
                count += 1;
            }
            at += 1;
        }
        kinds
    };

    /// The `kind` field.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The `apiVersion` field.
    pub const fn api_version(self) -> &'static str {
        self.row().api_version
    }

    /// Its name in paths of the Kubernetes API, and, before a dot and its group, that of its CRD.
    pub const fn plural(self) -> &'static str {
        self.row().plural
    }

    /// True when objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        self.row().namespaced
    }

    /// True when `status` is a subresource: it is written by [`super::Store::apply_status`] alone, and what
    /// [`super::Store::create`] and [`super::Store::update`] are given of it is ignored.
    pub const fn has_status_subresource(self) -> bool {
        self.row().status
    }

    /// True for the kinds of policy.
    pub const fn is_policy(self) -> bool {
        self.row().policy
    }

    /// The kind with this `kind` field.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("this store keeps no {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_name_and_plural() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
            let same = Kind::ALL
                .iter()
                .filter(|other| other.plural() == kind.plural());
            assert_eq!(same.count(), 1, "{kind}");
            assert_eq!(kind.plural(), kind.plural().to_ascii_lowercase());
        }
        assert_eq!(Kind::OF_VERDICTS.len(), 12);
        assert!(!Kind::OF_VERDICTS.contains(&Kind::Deployment));
    }
}
