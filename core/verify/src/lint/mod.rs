//! Traps in policies that are right by their form.
//!
//! A warning is given only where the objects prove it. Manifests rarely hold a whole cluster, so what they do
//! not speak of is taken to be there.

mod addresses;
mod cover;
mod dns;
mod order;
mod population;
mod ports;
mod selects;
mod shadow;

use crate::Cluster;
use heddle_policy::{Policy, PolicySpec, Rule, Section};
use population::Population;
use serde::Serialize;
use std::fmt;

/// Where in a policy a trap stands. The form that the policy was written in knows the field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The policy's priority.
    Priority,
    /// What a part isolates in egress: all its egress rules.
    Egress {
        /// Position of the part.
        spec: usize,
    },
    /// Whom a part is about.
    Subject {
        /// Position of the part.
        spec: usize,
    },
    /// A rule.
    Rule {
        /// Position of the part.
        spec: usize,
        /// Position of the rule in the part.
        rule: usize,
    },
    /// A term of a rule's peers.
    Peer {
        /// Position of the part.
        spec: usize,
        /// Position of the rule in the part.
        rule: usize,
        /// Position of the term.
        term: usize,
    },
    /// A term of a rule's ports.
    Port {
        /// Position of the part.
        spec: usize,
        /// Position of the rule in the part.
        rule: usize,
        /// Position of the term.
        term: usize,
    },
}

/// A trap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Warning {
    /// Position of the policy among those that were looked at.
    pub policy: usize,
    /// Where in it.
    pub place: Place,
    /// Stable code: `policy/selects-nothing`.
    pub code: &'static str,
    /// What may not mean what its writer thinks, and why.
    pub message: String,
    /// What to try.
    pub help: String,
}

/// A policy and its position.
struct Written<'a> {
    at: usize,
    policy: &'a Policy,
}

/// A part of a policy and where it is.
#[derive(Clone, Copy)]
struct Part<'a> {
    written: &'a Written<'a>,
    /// Position among the policy's parts.
    at: usize,
    spec: &'a PolicySpec,
}

/// A rule and where it is.
#[derive(Clone, Copy)]
struct Line<'a> {
    part: Part<'a>,
    /// Position among the part's rules.
    at: usize,
    rule: &'a Rule,
}

/// What every lint looks at.
struct Scene<'a> {
    policies: Vec<Written<'a>>,
    cluster: &'a Cluster,
    population: Population<'a>,
}

type Found = Vec<Warning>;

/// Every trap of these policies.
pub fn lint(policies: &[Policy], cluster: &Cluster) -> Vec<Warning> {
    let policies = policies.iter().enumerate();
    let scene = Scene {
        policies: policies
            .map(|(at, policy)| Written { at, policy })
            .collect(),
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

impl Scene<'_> {
    /// Every part of every policy.
    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.policies.iter().flat_map(|written| {
            let specs = written.policy.specs.iter().enumerate();
            specs.map(move |(at, spec)| Part { written, at, spec })
        })
    }

    /// Every rule of every policy.
    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.parts().flat_map(|part| {
            let rules = part.spec.rules.iter().enumerate();
            rules.map(move |(at, rule)| Line { part, at, rule })
        })
    }
}

impl Written<'_> {
    fn warn(
        &self,
        found: &mut Found,
        code: &'static str,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        found.push(Warning {
            policy: self.at,
            place,
            code,
            message: message.into(),
            help: help.into(),
        });
    }
}

impl Part<'_> {
    fn subject(&self) -> Place {
        Place::Subject { spec: self.at }
    }
}

impl Line<'_> {
    fn place(&self) -> Place {
        Place::Rule {
            spec: self.part.at,
            rule: self.at,
        }
    }

    fn peer(&self, term: usize) -> Place {
        Place::Peer {
            spec: self.part.at,
            rule: self.at,
            term,
        }
    }

    fn port(&self, term: usize) -> Place {
        Place::Port {
            spec: self.part.at,
            rule: self.at,
            term,
        }
    }
}

/// A rule as its policy counts it: `spec.ingress[0]`, `specs[1].egressDeny[2]`.
struct RuleName {
    position: Option<u32>,
    section: Section,
    index: u32,
}

impl RuleName {
    const fn of(line: &Line<'_>) -> Self {
        Self {
            position: line.part.spec.position,
            section: line.rule.section,
            index: line.rule.index,
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "specs[{position}]")?,
            None => f.write_str("spec")?,
        }
        write!(f, ".{}[{}]", self.section.name(), self.index)
    }
}
