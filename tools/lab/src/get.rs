//! `heddle lab get`: objects by kind, name, namespace and labels.

use crate::LabError;
use crate::label;
use crate::paths::Lab;
use heddle_kube::store::{Kind, Object, Scope, Store, StoreError};
use heddle_model::{NamespacedName, Requirement, Selector, closest};

/// The kind that a word on the command line means, with kubectl's short names.
pub fn kind(word: &str) -> Result<Kind, LabError> {
    let lower = word.to_ascii_lowercase();
    let known = match lower.as_str() {
        "po" => Some(Kind::Pod),
        "ns" => Some(Kind::Namespace),
        "no" => Some(Kind::Node),
        "deploy" => Some(Kind::Deployment),
        "netpol" | "networkpolicies" => Some(Kind::NetworkPolicy),
        "cnp" | "ciliumnetworkpolicies" => Some(Kind::CiliumNetworkPolicy),
        "ccnp" | "ciliumclusterwidenetworkpolicies" => Some(Kind::CiliumClusterwideNetworkPolicy),
        "clusternetworkpolicies" => Some(Kind::ClusterNetworkPolicy),
        "svc" => Some(Kind::Service),
        "ciliumid" | "ciliumidentities" => Some(Kind::CiliumIdentity),
        "cep" => Some(Kind::CiliumEndpoint),
        _ => Kind::ALL.into_iter().find(|kind| {
            let name = kind.name().to_ascii_lowercase();
            lower == name || lower.strip_suffix('s') == Some(&name)
        }),
    };
    known.ok_or_else(|| {
        let names: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| kind.name().to_ascii_lowercase())
            .collect();
        LabError::Usage(format!(
            "{word:?} is no kind of a lab; the kinds are {}",
            names.join(", ")
        ))
    })
}

/// The kinds that `pods,cnp` means, each once.
pub fn kinds(words: &str) -> Result<Vec<Kind>, LabError> {
    let mut kinds = Vec::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let kind = kind(word)?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        return Err(LabError::Usage("name a kind: pods, or pods,cnp".into()));
    }
    Ok(kinds)
}

/// A label selector as `-l` takes it: `a=b,c!=d,e,!f,g in (h,i),j notin (k)`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels(Selector);

impl Labels {
    /// Reads a selector.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let wrong = |why: String| LabError::Usage(why);
        let selector = Selector::parse(text).map_err(|error| wrong(error.to_string()))?;
        for Requirement { key, values, .. } in selector.requirements() {
            if !label::is_key(key) || !values.iter().all(|value| label::is_value(value)) {
                return Err(wrong(format!(
                    "{text:?} is not a label selector: no label can have the key {key:?} with these values"
                )));
            }
        }
        Ok(Self(selector))
    }

    /// True when an object's labels fit.
    pub fn fit(&self, object: &Object) -> bool {
        let labels = &object.value["metadata"]["labels"];
        self.0.matches(|key| labels[key].as_str())
    }
}

/// One object.
pub async fn one(
    lab: &Lab,
    store: &dyn Store,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Object, LabError> {
    let namespace = if kind.is_namespaced() { namespace } else { "" };
    let full = NamespacedName::new(namespace, name);
    match store.get(kind, &full).await {
        Ok(object) => Ok(object),
        Err(StoreError::NotFound { .. }) => {
            let word = kind.name().to_ascii_lowercase();
            let others = many(store, kind, Some(namespace), &Labels::default()).await?;
            let others: Vec<&str> = others.iter().map(|one| one.name.name.as_str()).collect();
            Err(LabError::NotFound {
                what: crate::apply::label(kind, &full),
                lab: lab.name().to_owned(),
                help: match closest(name, &others) {
                    Some(near) => {
                        format!("did you mean {near}? `heddle lab get {word} -A` lists all")
                    }
                    None => format!("`heddle lab get {word} -A` lists them"),
                },
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// All objects of a kind that fit; of one namespace, or of all.
pub async fn many(
    store: &dyn Store,
    kind: Kind,
    namespace: Option<&str>,
    labels: &Labels,
) -> Result<Vec<Object>, LabError> {
    let namespace = namespace.filter(|_| kind.is_namespaced());
    let mut scope = Scope::all(kind);
    if let Some(namespace) = namespace {
        scope = scope.in_namespace(namespace);
    }
    let mut found = store.list(&scope).await?;
    found.retain(|object| labels.fit(object));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_kube::store::Version;
    use serde_json::json;

    #[test]
    fn kinds_by_their_usual_names() {
        for (word, expected) in [
            ("pods", Kind::Pod),
            ("Pod", Kind::Pod),
            ("deploy", Kind::Deployment),
            ("networkpolicies", Kind::NetworkPolicy),
            ("cnp", Kind::CiliumNetworkPolicy),
            ("nodes", Kind::Node),
            ("ns", Kind::Namespace),
        ] {
            assert_eq!(kind(word).unwrap(), expected);
        }
        assert_eq!(kind("svc").unwrap(), Kind::Service);
        assert!(kind("configmaps").is_err());
        assert_eq!(
            kinds("pods,cnp,po").unwrap(),
            [Kind::Pod, Kind::CiliumNetworkPolicy]
        );
        assert!(kinds(",").is_err());
        assert!(kinds("pods,nothing").is_err());
    }

    #[test]
    fn selectors() {
        let object = Object {
            kind: Kind::Pod,
            name: NamespacedName::new("n", "p"),
            version: Version::new("1"),
            value: json!({"metadata": {"labels": {"app": "web", "tier": "front"}}}),
        };
        for (text, expected) in [
            ("app=web", true),
            ("app==web,tier", true),
            ("app!=web", false),
            ("app in (api, web),!gone", true),
            ("app notin (api)", true),
            ("gone", false),
            ("", true),
        ] {
            assert_eq!(
                Labels::parse(text).unwrap().fit(&object),
                expected,
                "{text}"
            );
        }
        for wrong in [
            "app in web",
            "=x",
            "a==b==c",
            "a=b c",
            "app in (a b)",
            "a/b/=c",
        ] {
            assert!(Labels::parse(wrong).is_err(), "{wrong}");
        }
    }
}
