//! The workspace as its own tests read it: members and their arrows, the lock file, the source files.

pub mod bans;
pub mod document;
pub mod items;
pub mod lock;
pub mod source;

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Top of the repository.
pub fn root() -> PathBuf {
    // Asked when the test runs: a build cache that two clones share may hold a test that the other compiled.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| ".".into());
    Path::new(&here).join("../..")
}

/// Text of a file, named from the top of the repository.
pub fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    std::fs::read_to_string(root().join(path)).with_context(|| format!("read {}", path.display()))
}

/// A dependency as a manifest writes it.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// Name of the package.
    pub name: String,
    /// True when the version comes from `[workspace.dependencies]`.
    pub from_workspace: bool,
    /// True when a feature must ask for it.
    pub optional: bool,
    /// True for `[dev-dependencies]`.
    pub dev: bool,
    /// Features asked for.
    pub features: Vec<String>,
}

/// A member of the workspace.
#[derive(Clone, Debug)]
pub struct Member {
    /// Folder, from the top of the repository (`core/model`).
    pub folder: String,
    /// Name of the package (`heddle-model`).
    pub name: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// The workspace manifest and its members.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Every member.
    pub members: Vec<Member>,
    /// `[workspace.dependencies]`, as written.
    pub pinned: toml::Table,
}

impl Workspace {
    /// Reads the manifests.
    pub fn read() -> Result<Self> {
        let manifest: toml::Table = read("Cargo.toml")?.parse().context("parse Cargo.toml")?;
        let workspace = manifest
            .get("workspace")
            .and_then(toml::Value::as_table)
            .context("Cargo.toml has no [workspace]")?;
        let members = workspace
            .get("members")
            .and_then(toml::Value::as_array)
            .context("[workspace] has no members")?
            .iter()
            .filter_map(toml::Value::as_str)
            .map(Member::read)
            .collect::<Result<_>>()?;
        let pinned = workspace
            .get("dependencies")
            .and_then(toml::Value::as_table)
            .context("[workspace] has no dependencies")?
            .clone();
        Ok(Self { members, pinned })
    }

    /// The member of this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Every package that a member is built from: its own, not its tests'. Members count as their
    /// manifests say; packages from the registry count with everything the lock file gives them, which
    /// is never too little.
    pub fn closure(&self, name: &str, lock: &lock::Lock) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![name.to_owned()];
        while let Some(name) = waiting.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            match self.member(&name) {
                Some(member) => waiting.extend(
                    member
                        .dependencies
                        .iter()
                        .filter(|dependency| !dependency.dev && !dependency.optional)
                        .map(|dependency| dependency.name.clone()),
                ),
                None => waiting.extend(lock.dependencies(&name)),
            }
        }
        seen.remove(name);
        seen
    }
}

impl Member {
    fn read(folder: &str) -> Result<Self> {
        let path = format!("{folder}/Cargo.toml");
        let manifest: toml::Table = read(&path)?.parse().with_context(|| path.clone())?;
        let name = manifest
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(toml::Value::as_str)
            .with_context(|| format!("{path} has no package name"))?
            .to_owned();
        let mut dependencies = Vec::new();
        let targets = manifest.get("target").and_then(toml::Value::as_table);
        let tables = std::iter::once(&manifest).chain(
            targets
                .into_iter()
                .flat_map(|targets| targets.values())
                .filter_map(toml::Value::as_table),
        );
        for table in tables {
            for (section, dev) in [
                ("dependencies", false),
                ("build-dependencies", false),
                ("dev-dependencies", true),
            ] {
                let Some(entries) = table.get(section).and_then(toml::Value::as_table) else {
                    continue;
                };
                dependencies.extend(
                    entries
                        .iter()
                        .map(|(name, value)| Dependency::of(name, value, dev)),
                );
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            name,
            dependencies,
        })
    }

    /// First part of its folder: the floor of the house it stands on.
    pub fn floor(&self) -> &str {
        self.folder.split('/').next().unwrap_or(&self.folder)
    }
}

impl Dependency {
    fn of(name: &str, value: &toml::Value, dev: bool) -> Self {
        let flag = |key| value.get(key).and_then(toml::Value::as_bool) == Some(true);
        Self {
            name: name.to_owned(),
            from_workspace: flag("workspace"),
            optional: flag("optional"),
            dev,
            features: value
                .get("features")
                .and_then(toml::Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|feature| feature.as_str().map(str::to_owned))
                .collect(),
        }
    }
}

/// Findings, one line each; a test passes when there is none.
#[derive(Default)]
pub struct Findings(BTreeSet<String>);

impl Findings {
    /// Adds a line.
    pub fn add(&mut self, line: impl Into<String>) {
        self.0.insert(line.into());
    }

    /// Panics with all lines when there are any.
    pub fn none_or_panic(self, rule: &str) {
        let lines: Vec<String> = self.0.into_iter().collect();
        assert!(lines.is_empty(), "{rule}:\n  {}", lines.join("\n  "));
    }
}
