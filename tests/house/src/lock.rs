//! Cargo.lock: which packages there are, in which versions, and what each asks for.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Dependencies that the lock file names for features that nobody here turns on: `cargo tree -i log` does not show them.
const OFF: &[(&str, &str)] = &[("jiff-core", "log")];

/// The lock file.
#[derive(Deserialize)]
pub struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Lock {
    /// Reads it.
    pub fn read() -> Result<Self> {
        toml::from_str(&crate::read("Cargo.lock")?).context("parse Cargo.lock")
    }

    /// Names of the packages that any version of `name` asks for.
    pub fn dependencies(&self, name: &str) -> BTreeSet<String> {
        self.package
            .iter()
            .filter(|package| package.name == name)
            .flat_map(|package| &package.dependencies)
            .filter_map(|line| line.split(' ').next())
            .filter(|dependency| !OFF.contains(&(name, *dependency)))
            .map(str::to_owned)
            .collect()
    }

    /// Every package with its versions.
    pub fn versions(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut versions = BTreeMap::<_, BTreeSet<_>>::new();
        for package in &self.package {
            versions
                .entry(package.name.as_str())
                .or_default()
                .insert(package.version.as_str());
        }
        versions
    }

    /// Packages that come from elsewhere than a registry or this repository.
    pub fn unknown_sources(&self) -> Vec<&str> {
        self.package
            .iter()
            .filter(|package| {
                package
                    .source
                    .as_ref()
                    .is_some_and(|source| !source.starts_with("registry+"))
            })
            .map(|package| package.name.as_str())
            .collect()
    }
}
