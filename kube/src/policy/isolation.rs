//! What a policy that is refused would have isolated, as far as that can be told: whom, and in which directions.

use super::{policy_id, policy_kind, problems::Problems, read};
use heddle_policy::{Policy, PolicyKind, PolicySpec, Tier};
use serde_json::{Map, Value, json};

/// The lists of rules of all kinds.
const SECTIONS: [&str; 4] = ["ingress", "ingressDeny", "egress", "egressDeny"];

/// A policy that isolates whom `object` selects in the directions that it is about, and allows nothing. A selector
/// that cannot be read stands for its namespace. None where the object isolates nobody: host policies, whose
/// subject is a node, cluster-wide ones with a selector that cannot be read, those of other tiers.
pub fn isolation_of(object: &Value) -> Option<Policy> {
    let kind = policy_kind(object)?;
    if kind == PolicyKind::ClusterNetworkPolicy {
        return None;
    }
    let given = object.get("spec").map(|spec| (spec, None));
    let listed = object.get("specs").and_then(Value::as_array);
    let listed = listed.into_iter().flatten().zip(0_u32..);
    let specs: Vec<PolicySpec> = given
        .into_iter()
        .chain(listed.map(|(spec, position)| (spec, Some(position))))
        .filter_map(|(spec, position)| {
            let mut read = isolation_of_spec(object, kind, spec)?;
            read.position = position;
            Some(read)
        })
        .collect();
    (!specs.is_empty()).then_some(Policy {
        id: policy_id(object)?,
        tier: Tier::Normal,
        priority: 0,
        specs,
    })
}

fn isolation_of_spec(object: &Value, kind: PolicyKind, spec: &Value) -> Option<PolicySpec> {
    if spec.get("nodeSelector").is_some() {
        return None;
    }
    let selector = match kind {
        PolicyKind::NetworkPolicy => "podSelector",
        _ => "endpointSelector",
    };
    let mut bare: Map<String, Value> = ["policyTypes", "enableDefaultDeny"]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), spec.get(field)?.clone())))
        .collect();
    for section in SECTIONS {
        let is_given = spec
            .get(section)
            .is_some_and(|rules| !rules.is_null() && *rules != json!([]));
        if is_given {
            // Whatever the rules say: that there are some isolates.
            bare.insert(section.into(), json!([{}]));
        }
    }
    let with = |selected: Value| {
        let mut bare = bare.clone();
        bare.insert(selector.into(), selected);
        let object = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"],
            "metadata": {"name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"]},
            "spec": bare,
        });
        let mut problems = Problems::default();
        let spec = read(&object, &mut problems)?.specs.into_iter().next()?;
        let is_read = problems
            .into_vec()
            .iter()
            .all(|problem| !problem.field.contains(selector));
        Some((spec, is_read))
    };
    let named = spec.get(selector).cloned().unwrap_or_else(|| json!({}));
    let read = match with(named) {
        Some((spec, true)) => Some(spec),
        _ if kind.cluster_wide() => None,
        _ => with(json!({})).map(|(spec, _)| spec),
    };
    let mut spec = read?;
    spec.rules.clear();
    (spec.isolates.ingress || spec.isolates.egress).then_some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_model::LabelSet;

    fn pod(namespace: &str, app: &str) -> LabelSet {
        let labels = [
            format!("k8s:app={app}"),
            format!("k8s:io.kubernetes.pod.namespace={namespace}"),
        ];
        LabelSet::from_strings(labels.iter().map(String::as_str)).unwrap()
    }

    fn cilium(spec: Value) -> Value {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
        })
    }

    #[test]
    fn a_refused_policy_isolates_whom_it_selects_where_it_has_rules() {
        let l7 = cilium(json!({
            "endpointSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}]}],
        }));
        assert!(super::super::parse_policy(&l7).is_err());
        let policy = isolation_of(&l7).unwrap();
        let [spec] = &policy.specs[..] else { panic!() };
        assert!(spec.isolates.ingress && !spec.isolates.egress && spec.rules.is_empty());
        assert!(spec.subject.matches(&pod("shop", "web")));
        assert!(!spec.subject.matches(&pod("shop", "db")));
        assert!(!spec.subject.matches(&pod("other", "web")));
    }

    #[test]
    fn a_selector_that_cannot_be_read_stands_for_its_namespace() {
        let mut broken = cilium(json!({
            "endpointSelector": {"matchExpressions": [{"key": "app", "operator": "Near"}]},
            "egress": [{}],
        }));
        let policy = isolation_of(&broken).unwrap();
        let [spec] = &policy.specs[..] else { panic!() };
        assert!(!spec.isolates.ingress && spec.isolates.egress);
        assert!(spec.subject.matches(&pod("shop", "any")));
        assert!(!spec.subject.matches(&pod("other", "any")));
        // Where it has none, everybody would be meant: nobody is.
        broken["kind"] = json!("CiliumClusterwideNetworkPolicy");
        broken["metadata"] = json!({"name": "p"});
        assert_eq!(isolation_of(&broken), None);
    }

    #[test]
    fn kubernetes_policies_isolate_by_their_types() {
        let policy = |spec: Value| {
            isolation_of(&json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "p", "namespace": "shop"}, "spec": spec,
            }))
            .unwrap()
            .specs[0]
                .isolates
        };
        let bad = json!([{"to": [{"ipBlock": {"cidr": "no"}}]}]);
        let both = policy(json!({"podSelector": {}, "egress": bad}));
        assert!(both.ingress && both.egress);
        let one = policy(json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": bad}));
        assert!(!one.ingress && one.egress);
    }

    #[test]
    fn nobody_is_isolated_by_a_host_policy() {
        let host = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": "p"}, "spec": {"nodeSelector": {}, "ingress": [{"mode": 1}]},
        });
        assert_eq!(isolation_of(&host), None);
    }
}
