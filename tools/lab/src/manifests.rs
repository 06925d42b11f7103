//! Manifests that are to be applied, checked before anything is changed.

use crate::LabError;
use crate::config::CniChain;
use crate::pod::capabilities::PORT_MAPPINGS;
use crate::pod::spec::{self, is_dns_label, is_dns_subdomain};
use heddle_kube::cluster;
use heddle_kube::manifest::{self, Manifest};
use heddle_kube::policy::{Severity, parse_cidr_group};
use heddle_kube::schema::{Strictness, near_kind};
use heddle_kube::store::Kind;
use heddle_model::NamespacedName;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Kinds that people apply, in the order in which they are: what others lean on first, and policy
/// before the pods that it is about.
pub const APPLIED: [Kind; 11] = [
    Kind::Namespace,
    Kind::Node,
    Kind::CiliumCIDRGroup,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::NetworkPolicy,
    Kind::CiliumNetworkPolicy,
    Kind::CiliumClusterwideNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::Deployment,
    Kind::Pod,
];

/// Code of the error about a kind that labs do not have.
const UNKNOWN_KIND: &str = "lab/unknown-kind";
/// Codes of what is wrong with an object by its form; the rest is looked at here, with what a lab can do.
const FORM: [&str; 5] = [
    "manifest/unknown-field",
    "manifest/wrong-type",
    "manifest/invalid-label",
    "manifest/duplicate",
    "manifest/duplicate-address",
];

/// What may be applied.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Manifests {
    /// The objects, in the order in which they are applied.
    pub objects: Vec<Checked>,
    /// Traps of policies, and what the manifests say that the lab does not do.
    pub warnings: Vec<String>,
}

/// An object that may be applied.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: NamespacedName,
    /// The object, with its namespace filled in.
    pub value: Value,
    /// Where it stands.
    pub manifest: (String, usize),
    /// What it says that the lab does not do, and other warnings.
    pub warnings: Vec<String>,
}

/// Reads and checks files, folders and `-` for a lab with these plugins; every problem of every object is
/// reported.
pub fn read(
    paths: &[PathBuf],
    namespace: &str,
    plugins: &CniChain,
    strictness: Strictness,
) -> Result<Manifests, Vec<LabError>> {
    let manifests = manifest::read(paths).map_err(|error| vec![error.into()])?;
    let mut checked = Vec::new();
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    // What `policy check` says of the same manifests: slips are errors, traps are warnings.
    for found in cluster::check(&manifests, strictness).found {
        let problem = found.problem;
        let Some(manifest) = found.manifest.map(|at| &manifests[at]) else {
            continue;
        };
        let is_about_form = FORM.contains(&problem.code);
        if problem.severity == Severity::Warning && problem.code != "manifest/ignored-kind" {
            warnings.push(format!(
                "{}: {}: {}; {}",
                found.object, problem.field, problem.message, problem.help
            ));
        } else if problem.severity == Severity::Error && is_about_form {
            let object = found.object;
            let wrong = Wrong { manifest, object };
            problems.push(wrong.at(problem.code, &problem.field, problem.message, &problem.help));
        }
    }
    for manifest in &manifests {
        match check(manifest, namespace, plugins) {
            Ok(object) => checked.push(object),
            // A kind of a newer version is left out.
            Err(found) if strictness == Strictness::Lenient && is_unknown_kind(&found) => {
                warnings.extend(found.iter().map(|it| format!("{it}; it is left out")));
            }
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    checked.sort_by_key(|object: &Checked| {
        APPLIED
            .iter()
            .position(|kind| *kind == object.kind)
            .unwrap_or(usize::MAX)
    });
    let own = checked
        .iter_mut()
        .flat_map(|it| std::mem::take(&mut it.warnings));
    warnings.extend(own);
    Ok(Manifests {
        objects: checked,
        warnings,
    })
}

fn is_unknown_kind(problems: &[LabError]) -> bool {
    matches!(problems, [LabError::BadObject { code, .. }] if code == UNKNOWN_KIND)
}

/// Reads the names of objects only, for deletion: their content need not be right.
pub fn read_names(
    paths: &[PathBuf],
    namespace: &str,
) -> Result<Vec<(Kind, NamespacedName)>, Vec<LabError>> {
    let manifests = manifest::read(paths).map_err(|error| vec![error.into()])?;
    let mut names = Vec::new();
    let mut problems = Vec::new();
    for manifest in &manifests {
        match identify(manifest, namespace) {
            Ok((kind, name)) => names.push((kind, name)),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(names)
    } else {
        Err(problems)
    }
}

struct Wrong<'a> {
    manifest: &'a Manifest,
    object: String,
}

impl Wrong<'_> {
    fn at(&self, code: &str, field: &str, reason: impl Into<String>, help: &str) -> LabError {
        LabError::BadObject {
            code: code.to_owned(),
            file: self.manifest.file.clone(),
            document: self.manifest.document,
            object: self.object.clone(),
            field: field.to_owned(),
            reason: reason.into(),
            help: help.to_owned(),
        }
    }
}

fn identify(manifest: &Manifest, namespace: &str) -> Result<(Kind, NamespacedName), LabError> {
    let value = &manifest.value;
    let written = value["kind"].as_str().unwrap_or_default();
    let name = value["metadata"]["name"].as_str().unwrap_or_default();
    let wrong = Wrong {
        manifest,
        object: format!("{written} {name}"),
    };
    let kind = Kind::from_name(written)
        .filter(|kind| APPLIED.contains(kind))
        .ok_or_else(|| {
            let known: Vec<&str> = APPLIED.iter().map(|kind| kind.name()).collect();
            let version = value["apiVersion"].as_str().unwrap_or_default();
            let help = match near_kind(version, written) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the kinds are {}", known.join(", ")),
            };
            let reason = format!("a lab has no {written:?}");
            wrong.at(UNKNOWN_KIND, "kind", reason, &help)
        })?;
    if value["apiVersion"] != kind.api_version() {
        return Err(wrong.at(
            "lab/wrong-version",
            "apiVersion",
            format!("{} is not the version of {kind}", value["apiVersion"]),
            &format!("write apiVersion: {}", kind.api_version()),
        ));
    }
    let fits = if kind == Kind::Namespace {
        is_dns_label(name)
    } else {
        is_dns_subdomain(name)
    };
    if !fits {
        return Err(wrong.at(
            "lab/bad-object-name",
            "metadata.name",
            format!("{name:?} cannot be the name of a {kind}"),
            "use a-z, 0-9 and -, a letter or digit first and last",
        ));
    }
    if !kind.is_namespaced() {
        return Ok((kind, NamespacedName::new("", name)));
    }
    let own = match &value["metadata"]["namespace"] {
        Value::Null => namespace,
        Value::String(own) => own,
        _ => "",
    };
    if !is_dns_label(own) {
        return Err(wrong.at(
            "lab/bad-object-name",
            "metadata.namespace",
            format!("{} cannot be a namespace", value["metadata"]["namespace"]),
            "use a-z, 0-9 and -",
        ));
    }
    Ok((kind, NamespacedName::new(own, name)))
}

fn check(
    manifest: &Manifest,
    namespace: &str,
    plugins: &CniChain,
) -> Result<Checked, Vec<LabError>> {
    let (kind, name) = identify(manifest, namespace).map_err(|error| vec![error])?;
    let wrong = Wrong {
        manifest,
        object: format!("{kind} {name}"),
    };
    let mut value = manifest.value.clone();
    if kind.is_namespaced() {
        value["metadata"]["namespace"] = json!(name.namespace);
    }
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    check_texts(&value, "annotations", &wrong, &mut errors);
    match kind {
        Kind::Namespace => {
            let label = &mut value["metadata"]["labels"];
            if !label.is_object() {
                *label = json!({});
            }
            // Kubernetes sets it on every namespace; policies select by it.
            label["kubernetes.io/metadata.name"] = json!(name.name);
        }
        Kind::Pod => check_pod(&value, "", &wrong, plugins, &mut errors, &mut warnings),
        Kind::Deployment => check_deployment(&value, &wrong, plugins, &mut errors, &mut warnings),
        Kind::CiliumCIDRGroup => {
            for problem in parse_cidr_group(&value).err().into_iter().flatten() {
                errors.push(wrong.at(problem.code, &problem.field, problem.message, &problem.help));
            }
        }
        Kind::Service => warnings.push(format!(
            "{}: only policies that name it look at it; a lab does not balance load yet",
            wrong.object
        )),
        _ if kind.is_policy() => check_policy(&value, &wrong, &mut errors),
        _ => {}
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Checked {
        kind,
        name,
        value,
        manifest: (manifest.file.clone(), manifest.document),
        warnings,
    })
}

fn check_texts(value: &Value, key: &str, wrong: &Wrong<'_>, errors: &mut Vec<LabError>) {
    let found = &value["metadata"][key];
    let field = format!("metadata.{key}");
    match found {
        Value::Null => {}
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|(_, value)| !value.is_string()) {
                errors.push(wrong.at(
                    "lab/invalid",
                    &format!("{field}.{name}"),
                    format!("{value} is not a string"),
                    "quote it",
                ));
            }
        }
        _ => errors.push(wrong.at("lab/invalid", &field, "it is not a mapping", "")),
    }
}

fn check_pod(
    pod: &Value,
    at: &str,
    wrong: &Wrong<'_>,
    plugins: &CniChain,
    errors: &mut Vec<LabError>,
    warnings: &mut Vec<String>,
) {
    let host_network = pod["spec"]["hostNetwork"] == true;
    for problem in spec::parse(pod, at).1 {
        // On the node's own network a port is the node's already.
        if problem.code == spec::HOST_PORT && (host_network || plugins.can(PORT_MAPPINGS)) {
            continue;
        }
        if problem.warning {
            warnings.push(format!(
                "{}: {}: {}; {}",
                wrong.object, problem.field, problem.reason, problem.help
            ));
        } else {
            errors.push(wrong.at(problem.code, &problem.field, problem.reason, &problem.help));
        }
    }
}

fn check_deployment(
    value: &Value,
    wrong: &Wrong<'_>,
    plugins: &CniChain,
    errors: &mut Vec<LabError>,
    warnings: &mut Vec<String>,
) {
    let spec = &value["spec"];
    if !spec["replicas"].is_null() && spec["replicas"].as_u64().is_none() {
        let reason = format!("{} is not a number from 0", spec["replicas"]);
        errors.push(wrong.at("lab/invalid", "spec.replicas", reason, ""));
    }
    let template = &spec["template"];
    check_pod(template, "spec.template.", wrong, plugins, errors, warnings);
    let labels = &spec["template"]["metadata"]["labels"];
    let selector = spec["selector"]["matchLabels"].as_object();
    if selector.is_none_or(|selector| selector.is_empty()) {
        errors.push(wrong.at(
            "lab/invalid",
            "spec.selector.matchLabels",
            "a Deployment needs a selector",
            "repeat the labels of the template",
        ));
    }
    for (key, wanted) in selector.into_iter().flatten() {
        if labels[key] != *wanted {
            errors.push(wrong.at(
                "lab/invalid",
                &format!("spec.template.metadata.labels.{key}"),
                format!(
                    "the selector wants {wanted}, the template has {}",
                    labels[key]
                ),
                "give selector and template the same labels",
            ));
        }
    }
}

fn check_policy(value: &Value, wrong: &Wrong<'_>, errors: &mut Vec<LabError>) {
    for problem in heddle_kube::policy::parse(value).problems {
        // Warnings are among those of the check of all manifests.
        if problem.severity == Severity::Error {
            errors.push(wrong.at(problem.code, &problem.field, problem.message, &problem.help));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(yaml: &str) -> Result<Vec<Checked>, Vec<LabError>> {
        read_all(yaml, Strictness::Strict).map(|read| read.objects)
    }

    fn read_all(yaml: &str, strictness: Strictness) -> Result<Manifests, Vec<LabError>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.yaml");
        std::fs::write(&path, yaml).unwrap();
        read(&[path], "default", &CniChain::default(), strictness)
    }

    #[test]
    fn namespaces_come_first_and_get_their_name_label() {
        let objects = read_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {containers: [{name: c, image: heddle/idle}]}\n\
             ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
        )
        .unwrap();
        assert_eq!(objects[0].kind, Kind::Namespace);
        assert_eq!(
            objects[0].value["metadata"]["labels"]["kubernetes.io/metadata.name"],
            "shop"
        );
        assert_eq!(objects[1].name, NamespacedName::new("shop", "p"));
    }

    #[test]
    fn a_wrong_object_is_named_by_file_document_and_field() {
        for (yaml, document, field) in [
            (
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\n",
                1,
                "kind",
            ),
            (
                "apiVersion: v2\nkind: Pod\nmetadata: {name: p}\n",
                1,
                "apiVersion",
            ),
            (
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: N_1}\n",
                2,
                "metadata.name",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: 1}}\nspec: {containers: [{name: c, image: heddle/idle}]}\n",
                1,
                "metadata.labels.a",
            ),
            (
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: heddle/idle}]}}}\n",
                1,
                "spec.template.metadata.labels.a",
            ),
        ] {
            let problems = read_text(yaml).unwrap_err();
            let LabError::BadObject {
                document: found,
                field: at,
                file,
                ..
            } = &problems[0]
            else {
                panic!("{problems:?}");
            };
            assert_eq!((*found, at.as_str()), (document, field), "{yaml}");
            assert!(file.ends_with("m.yaml"));
        }
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: heddle/idle}]}\n";

    fn codes(problems: &[LabError]) -> Vec<String> {
        problems.iter().map(LabError::code).collect()
    }

    #[test]
    fn slips_are_refused_before_anything_is_changed() {
        for (yaml, code) in [
            (POD.replace("containers", "contaners"), "manifest/unknown-field"),
            (POD.replace("name: p", "name: p, lables: {a: b}"), "manifest/unknown-field"),
            (POD.replace("name: p", "name: p, labels: {x/y/z: \"1\"}"), "manifest/invalid-label"),
            (format!("{POD}---\n{POD}"), "manifest/duplicate"),
            (
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: n, labels: {kubernetes.io/metadata.name: evil}}\n".to_owned(),
                "manifest/invalid-label",
            ),
            (
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolcy\nmetadata: {name: n}\nspec: {}\n".to_owned(),
                "lab/unknown-kind",
            ),
        ] {
            let problems = read_text(&yaml).unwrap_err();
            assert_eq!(codes(&problems)[0], code, "{yaml}");
        }
    }

    #[test]
    fn lenient_lets_newer_fields_and_kinds_pass_with_warnings() {
        let yaml = format!(
            "{}---\napiVersion: v9\nkind: Gadget\nmetadata: {{name: g}}\n",
            POD.replace("spec: {", "spec: {newField: 1, ")
        );
        assert_eq!(codes(&read_text(&yaml).unwrap_err()).len(), 2);
        let read = read_all(&yaml, Strictness::Lenient).unwrap();
        assert_eq!(read.objects.len(), 1);
        assert_eq!(read.warnings.len(), 2, "{:?}", read.warnings);
        assert!(read.warnings[0].contains("newField"), "{:?}", read.warnings);
    }

    #[test]
    fn traps_are_told_as_policy_check_tells_them() {
        let yaml = format!(
            "{POD}---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: n}}\nspec: {{podSelector: {{matchLabels: {{app: nobody}}}}, policyTypes: [Ingress]}}\n"
        );
        let warnings = read_all(&yaml, Strictness::Strict).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("no pod of the manifests is one of them"),
            "{warnings:?}"
        );
    }
}
