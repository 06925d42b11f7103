//! Peers of a rule: endpoints, entities, CIDR sets, services.

use super::{
    super::{
        fields::{Field, closest},
        ports::{cidr, holes},
        problems::{Problems, quoted},
        selectors::{
            Labels, in_any_namespace, in_namespace, is_present, is_reserved, required_cidr,
            requirements, selector,
        },
    },
    Scope,
};
use heddle_model::{Entity, LabelSet, NamespacedName, Requirement};
use heddle_policy::{CidrBlock, CidrGroupRef, EndpointSelector, Peer, ServiceRef};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A block as Cilium means it: outside the cluster (reference I1).
pub(super) const fn outside(block: IpNet, except: Vec<IpNet>) -> Peer {
    Peer::Cidr(CidrBlock {
        block,
        except,
        in_cluster: false,
    })
}

/// Reads an entity (reference 1.3).
pub(super) fn entity(field: &Field<'_>, problems: &mut Problems) -> Option<Peer> {
    let text = field.text(problems)?;
    match text {
        // One family of the world: the addresses outside the cluster of that family.
        "world-ipv4" => return Some(outside(Ipv4Net::default().into(), Vec::new())),
        "world-ipv6" => return Some(outside(Ipv6Net::default().into(), Vec::new())),
        _ => {}
    }
    let parsed: Option<Entity> = text.parse().ok();
    if parsed.is_none() {
        let known: Vec<&str> = Entity::ALL.iter().map(|entity| entity.name()).collect();
        problems.error(
            "policy/unknown-entity",
            field.path.clone(),
            format!("unknown entity {}", quoted(text)),
            match closest(text, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("entities: {}", known.join(", ")),
            },
        );
    }
    parsed.map(Peer::Entity)
}

impl Scope<'_> {
    pub(super) fn endpoint(&self, field: &Field<'_>, problems: &mut Problems) -> Option<Peer> {
        let mut found = requirements(field, Labels::Endpoint, problems);
        if found.iter().any(|r| required_cidr(r).is_some()) {
            return labelled_addresses(field, &found, problems);
        }
        let placed = found.iter().any(|r| {
            is_reserved(r)
                || r.key == LabelSet::NAMESPACE
                || r.key.starts_with(LabelSet::NAMESPACE_LABELS)
        });
        if !placed {
            found.push(if self.clusterwide() {
                in_any_namespace()
            } else {
                in_namespace(&self.id.namespace)
            });
        }
        let selector = selector(field, found, problems)?;
        Some(Peer::Endpoints(EndpointSelector::new(selector)))
    }

    pub(super) fn cidr_set(&self, field: &Field<'_>, problems: &mut Problems) -> Option<Peer> {
        let known = ["cidr", "cidrGroupRef", "cidrGroupSelector", "except"];
        if !field.object(&known, &[], problems) {
            return None;
        }
        let chosen = [
            field.get("cidr"),
            field.get("cidrGroupRef"),
            field.get("cidrGroupSelector"),
        ];
        let except = field.list("except", problems).unwrap_or_default();
        match chosen {
            [Some(written), None, None] => {
                let block = cidr(&written, true, problems);
                let holes = holes(&except, block, false, problems);
                Some(outside(block?, holes))
            }
            [None, Some(reference), None] => {
                let holes = holes(&except, None, false, problems);
                let name = object_name(&reference, problems)?;
                Some(Peer::CidrGroup {
                    by: CidrGroupRef::Name(name),
                    except: holes,
                })
            }
            [None, None, Some(wanted)] => {
                let holes = holes(&except, None, false, problems);
                let found = requirements(&wanted, Labels::Object, problems);
                Some(Peer::CidrGroup {
                    by: CidrGroupRef::Labels(selector(&wanted, found, problems)?),
                    except: holes,
                })
            }
            _ => {
                problems.error(
                    "policy/invalid-cidr-set",
                    field.path.clone(),
                    "exactly one of cidr, cidrGroupRef and cidrGroupSelector must be given",
                    "write one of them per entry",
                );
                None
            }
        }
    }

    /// `{k8sService | k8sServiceSelector}`: exactly one of the two.
    pub(super) fn service(&self, field: &Field<'_>, problems: &mut Problems) -> Option<Peer> {
        if !field.object(&["k8sService", "k8sServiceSelector"], &[], problems) {
            return None;
        }
        match (field.get("k8sService"), field.get("k8sServiceSelector")) {
            (Some(named), None) => {
                if !named.object(&["serviceName", "namespace"], &[], problems) {
                    return None;
                }
                let name = match named.get("serviceName") {
                    Some(name) => object_name(&name, problems),
                    None => {
                        named.missing("serviceName", "name the Service", problems);
                        None
                    }
                };
                let namespace = self.service_namespace(&named, problems);
                Some(Peer::Services(ServiceRef::Name(NamespacedName::new(
                    namespace?, name?,
                ))))
            }
            (None, Some(wanted)) => {
                if !wanted.object(&["selector", "namespace"], &[], problems) {
                    return None;
                }
                let namespace = match wanted.get("namespace") {
                    Some(namespace) => Some(object_name(&namespace, problems)?),
                    None => None,
                };
                let Some(labels) = wanted.get("selector") else {
                    wanted.missing("selector", "write selector: {matchLabels: {...}}", problems);
                    return None;
                };
                let found = requirements(&labels, Labels::Object, problems);
                Some(Peer::Services(ServiceRef::Labels {
                    selector: selector(&labels, found, problems)?,
                    namespace,
                }))
            }
            _ => {
                problems.error(
                    "policy/invalid-service",
                    field.path.clone(),
                    "exactly one of k8sService and k8sServiceSelector must be given",
                    "write one of them per entry",
                );
                None
            }
        }
    }

    /// The namespace of a service that is named: a policy's own when it has one and none is written.
    fn service_namespace(&self, named: &Field<'_>, problems: &mut Problems) -> Option<String> {
        match named.get("namespace") {
            Some(namespace) => object_name(&namespace, problems),
            None if self.clusterwide() => {
                named.missing(
                    "namespace",
                    "name the Service's namespace; a cluster-wide policy has none of its own",
                    problems,
                );
                None
            }
            None => Some(self.id.namespace.clone()),
        }
    }
}

/// The name of another object.
fn object_name(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(problems)?;
    if !super::super::fields::is_subdomain(text) {
        problems.error(
            "policy/invalid-name",
            field.path.clone(),
            format!("{} is not a name", quoted(text)),
            "a name has at most 253 small letters, digits, `-` and `.`",
        );
        return None;
    }
    Some(text.to_owned())
}

/// A selector on `cidr:` labels: the addresses outside the cluster in all of its prefixes.
fn labelled_addresses(
    field: &Field<'_>,
    found: &[Requirement],
    problems: &mut Problems,
) -> Option<Peer> {
    let mut block: Option<IpNet> = None;
    for requirement in found {
        let prefix = required_cidr(requirement);
        // Addresses outside the cluster bear the world's label too, and no other.
        let fits = prefix.is_some() || requirement.key == "reserved:world";
        if !fits || !is_present(requirement) {
            problems.error(
                "policy/invalid-selector",
                field.path.clone(),
                format!("a selector on cidr labels cannot ask for {requirement}, too"),
                "write the addresses in fromCIDRSet or toCIDRSet, with except where it needs holes",
            );
            return None;
        }
        block = match (block, prefix) {
            (None, prefix) => prefix,
            (Some(block), None) => Some(block),
            (Some(block), Some(prefix)) if block.contains(&prefix) => Some(prefix),
            (Some(block), Some(prefix)) if prefix.contains(&block) => Some(block),
            (Some(block), Some(prefix)) => {
                problems.error(
                    "policy/invalid-selector",
                    field.path.clone(),
                    format!("no address lies in both {block} and {prefix}"),
                    "write them as two selectors",
                );
                return None;
            }
        };
    }
    block.map(|block| outside(block, Vec::new()))
}
