//! A change of manifests: what is added, replaced and removed.

use super::super::{check, cluster, usage};
use crate::failure::Failure;
use heddle_kube::{manifest::Manifest, pod};
use std::collections::BTreeMap;

/// Kind, namespace (empty for objects without one) and name.
type Key = (String, String, String);

/// Kinds whose objects have no namespace.
const WITHOUT_NAMESPACE: [&str; 5] = [
    "Namespace",
    "Node",
    "CiliumClusterwideNetworkPolicy",
    "CiliumCIDRGroup",
    "ClusterNetworkPolicy",
];

fn key(manifest: &Manifest) -> Key {
    let kind = cluster::kind(manifest);
    let name = pod::name(&manifest.value);
    let namespace = if WITHOUT_NAMESPACE.contains(&kind) {
        String::new()
    } else {
        name.namespace
    };
    (kind.to_owned(), namespace, name.name)
}

/// The manifests after the change.
pub(super) fn apply(
    current: &[Manifest],
    change: Vec<Manifest>,
    remove: &[String],
) -> Result<Vec<Manifest>, Failure> {
    let mut after: Vec<Option<Manifest>> = current.iter().cloned().map(Some).collect();
    let mut places: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
    for (at, manifest) in current.iter().enumerate() {
        places.entry(key(manifest)).or_default().push(at);
    }
    for given in remove {
        let wanted = parse(given)?;
        let Some(found) = places.remove(&wanted) else {
            return Err(usage(
                "policy/unknown-object",
                format!("there is no {given:?} in the current manifests to remove"),
                "write KIND/NAMESPACE/NAME, or KIND/NAME for an object without a namespace",
            ));
        };
        for at in found {
            after[at] = None;
        }
    }
    let mut new: BTreeMap<Key, String> = BTreeMap::new();
    for manifest in change {
        let name = key(&manifest);
        if let Some(first) = new.insert(name.clone(), manifest.file.clone()) {
            return Err(Failure::new(
                "manifest/duplicate",
                format!(
                    "the change holds {} twice: in {first} and in {}",
                    check::object(&manifest),
                    manifest.file
                ),
            )
            .object(check::object(&manifest))
            .help("leave one of them out"));
        }
        for at in places.remove(&name).unwrap_or_default() {
            after[at] = None;
        }
        after.push(Some(manifest));
    }
    Ok(after.into_iter().flatten().collect())
}

/// Reads `KIND/NAMESPACE/NAME` or `KIND/NAME`.
fn parse(given: &str) -> Result<Key, Failure> {
    let parts: Vec<&str> = given.split('/').collect();
    match parts.as_slice() {
        [kind, namespace, name] => Ok(((*kind).into(), (*namespace).into(), (*name).into())),
        [kind, name] if WITHOUT_NAMESPACE.contains(kind) => {
            Ok(((*kind).into(), String::new(), (*name).into()))
        }
        [kind, name] => Ok(((*kind).into(), "default".into(), (*name).into())),
        _ => Err(usage(
            "usage/object",
            format!("{given:?} does not name an object"),
            "write KIND/NAMESPACE/NAME, or KIND/NAME for an object without a namespace",
        )),
    }
}
