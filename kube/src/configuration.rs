//! Configuration files: YAML with the settings of one program.

use crate::manifest::parse_document;
use heddle_model::setting::{Configuration, SettingError, read};
use std::path::{Path, PathBuf};

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("configuration {path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A setting is wrong.
    #[error("configuration {path}: {source}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting, and what is wrong with it.
        source: SettingError,
    },
}

impl ConfigurationError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "config/unreadable",
            Self::Malformed { .. } | Self::Setting { .. } => "config/invalid",
        }
    }

    /// The setting that is wrong; empty when it is none.
    pub fn field(&self) -> &str {
        match self {
            Self::Setting { source, .. } => source.setting(),
            Self::Unreadable { .. } | Self::Malformed { .. } => "",
        }
    }

    /// What to do.
    pub fn help(&self) -> String {
        match self {
            Self::Unreadable { .. } => "give the path of a file that can be read".to_owned(),
            Self::Malformed { .. } => "a configuration is YAML, `name: value` lines".to_owned(),
            Self::Setting { source, .. } => source.help(),
        }
    }
}

/// Reads and checks a configuration file.
///
/// # Errors
/// [`ConfigurationError`] names the file, and the setting where there is one.
pub fn load<C: Configuration>(path: &Path) -> Result<C, ConfigurationError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigurationError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let value = parse_document(&text).map_err(|(line, reason)| {
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        ConfigurationError::Malformed {
            path: path.to_owned(),
            reason: format!("{line}{reason}"),
        }
    })?;
    read(value).map_err(|source| ConfigurationError::Setting {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use heddle_model::setting::{Setting, Values};
    use serde::{Deserialize, Serialize};
    use serde_json::{Map, Value};

    #[derive(Serialize, Deserialize, Debug)]
    struct Named {
        #[serde(default)]
        name: Option<String>,
    }

    impl Configuration for Named {
        const SETTINGS: &'static [Setting] = &[Setting::new("name", Values::TEXT)];
        fn required() -> Map<String, Value> {
            Map::new()
        }
        fn validate(&self) -> Result<(), SettingError> {
            Ok(())
        }
    }

    #[test]
    fn a_file_is_read_as_manifests_are_and_what_is_wrong_is_said_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            load::<Named>(&file)
        };
        // YAML 1.2: a name, and not a boolean.
        assert_eq!(read("name: n").unwrap().name.as_deref(), Some("n"));
        for empty in ["", "# nothing\n", "{}", "---\n"] {
            assert_eq!(read(empty).unwrap().name, None, "{empty:?}");
        }
        for (text, code, field, part) in [
            (
                "nmae: n",
                "config/invalid",
                "nmae",
                "nmae: there is no such setting",
            ),
            ("name: [", "config/invalid", "", "c.yaml: line "),
            (
                "name: 7",
                "config/invalid",
                "name",
                "name: is 7, must be text",
            ),
            ("name: a\nname: b", "config/invalid", "", "name"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!((error.code(), error.field()), (code, field), "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.help().is_empty());
        }
        let error = load::<Named>(&folder.path().join("none")).unwrap_err();
        assert_eq!(error.code(), "config/unreadable");
    }
}
