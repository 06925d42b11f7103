//! Traps in policies that are right by their form: `heddle policy check` warns of them.
//!
//! A warning is given only where the manifests prove it. Manifests rarely hold a whole cluster, so what they do
//! not speak of is taken to be there.

mod addresses;
mod cover;
mod dns;
mod order;
mod place;
mod population;
mod ports;
mod selects;
mod shadow;

use super::cluster::Cluster;
use heddle_kube::policy::{Problem, Severity};
use heddle_policy::{Policy, PolicyKind, PolicySpec, Rule};
use population::Population;
use serde_json::Value;

/// A policy with the object that it was written as.
pub(super) struct Written<'a> {
    /// Position among the manifests.
    pub(super) manifest: usize,
    /// The object.
    pub(super) object: &'a Value,
    /// What was read from it.
    pub(super) policy: Policy,
}

/// What every lint looks at.
struct Scene<'a> {
    policies: &'a [Written<'a>],
    cluster: &'a Cluster,
    population: Population<'a>,
}

/// A warning and the position of its manifest.
pub(super) type Found = Vec<(usize, Problem)>;

/// Every warning, by manifest and field.
pub(super) fn lint(policies: &[Written<'_>], cluster: &Cluster) -> Found {
    let scene = Scene {
        policies,
        cluster,
        population: Population::of(cluster),
    };
    let mut found = Vec::new();
    for lint in [
        selects::lint,
        ports::lint,
        shadow::lint,
        dns::lint,
        addresses::lint,
        order::lint,
    ] {
        lint(&scene, &mut found);
    }
    found
}

impl<'a> Scene<'a> {
    /// Every part of every policy.
    fn specs(&self) -> impl Iterator<Item = (&'a Written<'a>, &'a PolicySpec)> {
        self.policies
            .iter()
            .flat_map(|written| written.policy.specs.iter().map(move |spec| (written, spec)))
    }

    /// Every rule of every policy.
    fn rules(&self) -> impl Iterator<Item = (&'a Written<'a>, &'a PolicySpec, &'a Rule)> {
        self.specs()
            .flat_map(|(written, spec)| spec.rules.iter().map(move |rule| (written, spec, rule)))
    }
}

impl Written<'_> {
    fn kind(&self) -> PolicyKind {
        self.policy.id.kind
    }

    fn warn(
        &self,
        found: &mut Found,
        code: &'static str,
        field: String,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let problem = Problem {
            severity: Severity::Warning,
            code,
            field,
            message: message.into(),
            help: help.into(),
        };
        found.push((self.manifest, problem));
    }
}
