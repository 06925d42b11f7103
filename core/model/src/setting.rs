//! Settings of configuration files: what each may be, and what is said of one that is wrong.
//!
//! A configuration is a plain serde structure, whose fields' documentation says what they do, and beside it a table with
//! one [`Setting`] for each field. The table is what [`read`] checks a file against, and what docs/settings.md is
//! made of.

use crate::near::closest;
use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// When a changed setting takes effect, for all that are read once.
const AT_RESTART: &str = "at restart";
/// Characters of a wrong value that an error repeats at most.
const MAX_SHOWN: usize = 200;

/// Whether a range cannot be one of pod addresses: wider than /8 (IPv4) or /16 (IPv6). The private ranges are no wider
/// (RFC 1918) or are given out by the /48 (RFC 4193), and all other addresses of the range, up to the whole world, would
/// be taken for those of pods that nobody knows.
pub const fn is_too_wide(range: &IpNet) -> bool {
    match range {
        IpNet::V4(range) => range.prefix_len() < 8,
        IpNet::V6(range) => range.prefix_len() < 16,
    }
}

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// A whole number, both ends included.
    Whole {
        /// The smallest.
        least: u64,
        /// The largest.
        most: u64,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// What a function accepts.
    Checked {
        /// What that is, behind the words "must be".
        rule: &'static str,
        /// The function.
        accepts: fn(&Value) -> bool,
    },
}

impl Values {
    /// An absolute path.
    pub const PATH: Self = Self::Checked {
        rule: "an absolute path",
        accepts: |value| value.as_str().is_some_and(|path| path.starts_with('/')),
    };
    /// Text that is not empty.
    pub const TEXT: Self = Self::Checked {
        rule: "text that is not empty, in quotes where it looks like a number",
        accepts: |value| value.as_str().is_some_and(|text| !text.is_empty()),
    };
    /// An address to listen on.
    pub const LISTEN_ADDRESS: Self = Self::Checked {
        rule: "an IP address and a port, as in 127.0.0.1:9962",
        accepts: |value| {
            let text = value.as_str().unwrap_or_default();
            text.parse::<std::net::SocketAddr>().is_ok()
        },
    };
    /// Address families.
    pub const FAMILIES: Self = Self::Checked {
        rule: "a list of 4, 6 or both",
        accepts: |value| {
            value.as_array().is_some_and(|families| {
                !families.is_empty() && families.iter().all(|family| *family == 4 || *family == 6)
            })
        },
    };
    /// Ranges of pod addresses.
    pub const RANGES: Self = Self::Checked {
        rule: "a list of address ranges no wider than /8 (IPv4) or /16 (IPv6), as in [10.244.0.0/16, \"fd10:244::/48\"]",
        accepts: |value| {
            let is_range = |range: &Value| {
                let text = range.as_str().unwrap_or_default();
                text.parse::<IpNet>()
                    .is_ok_and(|range| !is_too_wide(&range))
            };
            value
                .as_array()
                .is_some_and(|ranges| ranges.iter().all(is_range))
        },
    };
    /// A list of anything.
    pub const LIST: Self = Self::Checked {
        rule: "a list",
        accepts: Value::is_array,
    };
    /// Keys and values.
    pub const MAP: Self = Self::Checked {
        rule: "a map",
        accepts: Value::is_object,
    };

    fn accepts(&self, value: &Value) -> bool {
        match self {
            Self::Whole { least, most } => value
                .as_u64()
                .is_some_and(|number| (*least..=*most).contains(&number)),
            Self::Bool => value.is_boolean(),
            Self::OneOf(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::Checked { accepts, .. } => accepts(value),
        }
    }

    /// What they are, behind the words "must be".
    pub fn rule(&self) -> String {
        match self {
            Self::Whole { least, most } => format!("{least} to {most}"),
            Self::Bool => "true or false".to_owned(),
            Self::OneOf(words) => words.join(" or "),
            Self::Checked { rule, .. } => (*rule).to_owned(),
        }
    }
}

/// A setting: what is not in the type and documentation of its field.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key in the file.
    pub name: &'static str,
    /// What it may be.
    pub values: Values,
    /// Of what its number is, if it is one: `seconds`, `rows`.
    pub unit: &'static str,
    /// The metric that shows it reaching its limit; empty where there is nothing to reach.
    pub metric: &'static str,
    /// When a change takes effect.
    pub changed: &'static str,
}

impl Setting {
    /// A setting that is read when its program starts.
    pub const fn new(name: &'static str, values: Values) -> Self {
        Self {
            name,
            values,
            unit: "",
            metric: "",
            changed: AT_RESTART,
        }
    }

    /// A number of something.
    pub const fn number(name: &'static str, least: u64, most: u64, unit: &'static str) -> Self {
        let mut setting = Self::new(name, Values::Whole { least, most });
        setting.unit = unit;
        setting
    }

    /// With the metric that shows it reaching its limit.
    #[must_use]
    pub const fn metric(mut self, metric: &'static str) -> Self {
        self.metric = metric;
        self
    }

    /// With when a change takes effect.
    #[must_use]
    pub const fn changed(mut self, changed: &'static str) -> Self {
        self.changed = changed;
        self
    }
}

/// A setting that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingError {
    /// There is no such setting.
    #[error("{name}: there is no such setting")]
    Unknown {
        /// What was written.
        name: String,
        /// The setting that is probably meant.
        near: Option<&'static str>,
    },
    /// A setting without a default is missing.
    #[error("{name}: is missing, must be {rule}")]
    Missing {
        /// The setting.
        name: &'static str,
        /// What it may be.
        rule: String,
    },
    /// The value is not one of those it may be.
    #[error("{name}: is {value}, must be {rule}")]
    Wrong {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        rule: String,
        /// What to do.
        help: String,
    },
    /// What a setting says makes no sense, by itself or beside others.
    #[error("{name}: {reason}")]
    Refused {
        /// The setting.
        name: &'static str,
        /// Why, and what would.
        reason: String,
    },
    /// The text is no configuration at all, or a part of a setting is wrong.
    #[error("{0}")]
    Malformed(String),
}

impl SettingError {
    /// The setting; empty when it cannot be told.
    pub fn setting(&self) -> &str {
        match self {
            Self::Unknown { name, .. } => name,
            Self::Missing { name, .. } | Self::Wrong { name, .. } | Self::Refused { name, .. } => {
                name
            }
            Self::Malformed(_) => "",
        }
    }

    /// What is wrong with it.
    pub fn reason(&self) -> String {
        let text = self.to_string();
        let reason = text.strip_prefix(&format!("{}: ", self.setting()));
        reason.unwrap_or(&text).to_owned()
    }

    /// What to do.
    pub fn help(&self) -> String {
        match self {
            Self::Unknown {
                near: Some(near), ..
            } => format!("did you mean `{near}`?"),
            Self::Wrong { help, .. } => help.clone(),
            Self::Refused { name, .. } => format!("docs/settings.md says what {name} does"),
            Self::Unknown { near: None, .. } | Self::Missing { .. } | Self::Malformed(_) => {
                "docs/settings.md lists the settings; keys are camelCase".to_owned()
            }
        }
    }
}

/// A configuration file.
pub trait Configuration: Serialize + DeserializeOwned {
    /// One row for each field.
    const SETTINGS: &'static [Setting];

    /// The settings that have no default, each with a value that it may be.
    fn required() -> Map<String, Value>;

    /// What no setting by itself says.
    ///
    /// # Errors
    /// [`SettingError`] names the setting.
    fn validate(&self) -> Result<(), SettingError>;
}

/// The settings that have defaults, with these.
pub fn defaults<C: Configuration>() -> Map<String, Value> {
    let required = C::required();
    let config = serde_json::from_value::<C>(Value::Object(required.clone()));
    let Ok(Ok(Value::Object(mut all))) = config.map(serde_json::to_value) else {
        return Map::new();
    };
    all.retain(|name, _| !required.contains_key(name));
    all
}

/// Reads a configuration; an empty file is one without settings.
///
/// # Errors
/// [`SettingError`] names the setting, what it is and what it must be.
pub fn read<C: Configuration>(value: Value) -> Result<C, SettingError> {
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => {
            return Err(SettingError::Malformed(format!(
                "is {}, must be settings: `name: value` lines",
                shown(&other)
            )));
        }
    };
    let defaults = defaults::<C>();
    for name in fields.keys() {
        if !C::SETTINGS.iter().any(|setting| setting.name == name) {
            let names: Vec<&str> = C::SETTINGS.iter().map(|setting| setting.name).collect();
            return Err(SettingError::Unknown {
                name: name.clone(),
                near: closest(name, &names),
            });
        }
    }
    for setting in C::SETTINGS {
        let default = defaults.get(setting.name);
        match fields.get(setting.name) {
            None if default.is_none() => {
                return Err(SettingError::Missing {
                    name: setting.name,
                    rule: setting.values.rule(),
                });
            }
            Some(value) if Some(value) != default && !setting.values.accepts(value) => {
                return Err(refused(setting, value, default));
            }
            _ => {}
        }
    }
    let config = serde_json::from_value::<C>(Value::Object(fields.clone()));
    let config = config.map_err(|error| {
        part_refused::<C>(&fields).unwrap_or_else(|| SettingError::Malformed(error.to_string()))
    })?;
    config.validate()?;
    Ok(config)
}

/// The setting of which a part is wrong: the first that is no configuration beside those without defaults.
fn part_refused<C: Configuration>(fields: &Map<String, Value>) -> Option<SettingError> {
    C::SETTINGS.iter().find_map(|setting| {
        let mut alone = C::required();
        let value = fields.get(setting.name)?;
        alone.insert(setting.name.to_owned(), value.clone());
        let error = serde_json::from_value::<C>(Value::Object(alone)).err()?;
        Some(SettingError::Refused {
            name: setting.name,
            reason: format!("is {}: {error}", shown(value)),
        })
    })
}

/// A value as an error repeats it: what a person wrote, and not the whole of a long list.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn refused(setting: &Setting, value: &Value, default: Option<&Value>) -> SettingError {
    let unit = match setting.unit {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    let near = match (&setting.values, value) {
        (Values::OneOf(words), Value::String(word)) => closest(word, words),
        _ => None,
    };
    let help = match (near, default) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, None) => "docs/settings.md says what it does".to_owned(),
        (None, Some(Value::Null)) => "leave it out, or see docs/settings.md".to_owned(),
        (None, Some(default)) => format!("leave it out for {default}, or see docs/settings.md"),
    };
    SettingError::Wrong {
        name: setting.name,
        value: shown(value),
        rule: setting.values.rule() + &unit,
        help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(serde::Serialize, serde::Deserialize, Debug)]
    struct Engine {
        name: String,
        #[serde(default = "eight")]
        rows: u32,
        #[serde(default)]
        mode: Option<String>,
        #[serde(default)]
        lines: Vec<u8>,
    }

    fn eight() -> u32 {
        8
    }

    impl Configuration for Engine {
        const SETTINGS: &'static [Setting] = &[
            Setting::new("name", Values::TEXT),
            Setting::number("rows", 2, 64, "rows"),
            Setting::new("mode", Values::OneOf(&["always", "never"])),
            Setting::new("lines", Values::LIST),
        ];
        fn required() -> Map<String, Value> {
            Map::from_iter([("name".to_owned(), json!("a"))])
        }
        fn validate(&self) -> Result<(), SettingError> {
            Ok(())
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value_what_it_must_be_and_what_to_do() {
        for (file, message, help) in [
            (
                json!({"name": "x", "rosw": 3}),
                "rosw: there is no such setting",
                "did you mean `rows`?",
            ),
            (
                json!({"name": "x", "speed": 3}),
                "speed: there is no such setting",
                "docs/settings.md lists",
            ),
            (
                json!({"name": "x", "rows": 1}),
                "rows: is 1, must be 2 to 64 (rows)",
                "leave it out for 8",
            ),
            (
                json!({"name": "x", "rows": "8"}),
                "rows: is \"8\", must be 2 to 64 (rows)",
                "leave it out for 8",
            ),
            (
                json!({"name": "x", "rows": null}),
                "rows: is null, must be 2 to 64 (rows)",
                "leave it out for 8",
            ),
            (
                json!({"name": "x", "rows": -1}),
                "rows: is -1, must be 2 to 64 (rows)",
                "leave it out for 8",
            ),
            (
                json!({"name": "x", "mode": "allways"}),
                "mode: is \"allways\", must be always or never",
                "did you mean `always`?",
            ),
            (
                json!({"name": "x", "mode": true}),
                "mode: is true, must be always or never",
                "leave it out",
            ),
            (
                json!({"name": "x", "lines": [1, 300]}),
                "lines: is [1,300]: invalid value: integer `300`",
                "docs/settings.md",
            ),
            (
                json!({"name": ""}),
                "name: is \"\", must be text",
                "docs/settings.md",
            ),
            (
                Value::Null,
                "name: is missing, must be text",
                "docs/settings.md",
            ),
            (json!([1]), "is [1], must be settings", "docs/settings.md"),
        ] {
            let error = read::<Engine>(file.clone()).unwrap_err();
            assert!(error.to_string().starts_with(message), "{file}: {error}");
            assert!(error.help().starts_with(help), "{file}: {}", error.help());
        }
    }

    #[test]
    fn what_is_left_out_has_its_default_and_null_is_leaving_out_where_that_is_the_default() {
        let config: Engine = read(json!({"name": "x", "mode": null})).unwrap();
        assert_eq!(
            (config.rows, config.mode.as_deref(), config.name.as_str()),
            (8, None, "x")
        );
        assert_eq!(
            Value::Object(defaults::<Engine>()),
            json!({"rows": 8, "mode": null, "lines": []})
        );
    }

    #[test]
    fn every_kind_of_value_knows_its_own() {
        for (values, good, bad) in [
            (Values::PATH, json!("/run"), json!("run")),
            (
                Values::LISTEN_ADDRESS,
                json!("[::1]:80"),
                json!("localhost:80"),
            ),
            (Values::FAMILIES, json!([6]), json!([5])),
            (
                Values::RANGES,
                json!(["10.0.0.0/8"]),
                json!(["10.0.0.0/40"]),
            ),
            (Values::LIST, json!([]), json!({})),
            (Values::MAP, json!({}), json!([])),
            (Values::Bool, json!(false), json!("no")),
        ] {
            assert!(values.accepts(&good), "{good}: {}", values.rule());
            assert!(!values.accepts(&bad), "{bad}: {}", values.rule());
        }
    }

    #[test]
    fn a_range_of_pods_does_not_take_in_the_world() {
        for (range, wide) in [
            ("0.0.0.0/0", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/7", true),
            ("10.0.0.0/8", false),
            ("::/0", true),
            ("fc00::/7", true),
            ("fd00::/15", true),
            ("fd10::/16", false),
        ] {
            assert_eq!(is_too_wide(&range.parse().unwrap()), wide, "{range}");
            let listed = json!(["10.244.0.0/16", range]);
            assert_eq!(Values::RANGES.accepts(&listed), !wide, "{range}");
        }
        let rule = Values::RANGES.rule();
        assert!(rule.contains("/8 (IPv4) or /16 (IPv6)"), "{rule}");
    }
}
