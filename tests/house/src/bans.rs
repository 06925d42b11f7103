//! `[bans]` of deny.toml: what cargo-deny enforces where it is installed, tests enforce everywhere.

use anyhow::{Context, Result};

/// The crates that deny.toml names.
pub struct Bans {
    /// Never to be used.
    pub denied: Vec<String>,
    /// Duplicates that are lived with, `name` or `name@version`.
    pub skipped: Vec<String>,
}

impl Bans {
    /// Reads deny.toml.
    pub fn read() -> Result<Self> {
        let file: toml::Table = crate::read("deny.toml")?
            .parse()
            .context("parse deny.toml")?;
        let names = |key: &str| -> Result<Vec<String>> {
            file.get("bans")
                .and_then(|bans| bans.get(key))
                .and_then(toml::Value::as_array)
                .with_context(|| format!("deny.toml has no bans.{key}"))?
                .iter()
                .map(|entry| {
                    let name = entry.get("crate").and_then(toml::Value::as_str);
                    Ok(name
                        .with_context(|| format!("bans.{key}: no crate in {entry:?}"))?
                        .to_owned())
                })
                .collect()
        };
        Ok(Self {
            denied: names("deny")?,
            skipped: names("skip")?,
        })
    }
}
