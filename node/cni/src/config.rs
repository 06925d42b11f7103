//! The network configuration that the runtime writes to stdin.

use crate::error::{CniError, codes};
use crate::version::Version;
use heddle_model::closest;
use heddle_model::setting::{Configuration, Setting, SettingError, Values, read};
use heddle_rpc::cni::ValidAttachment;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// The agent's socket when the configuration names none.
pub const DEFAULT_AGENT_SOCKET: &str = "/run/heddle/agent.sock";
/// When a changed configuration takes effect.
const AT_ADD: &str = "at the next pod";

/// The plugin's own settings in a network configuration; the specification has more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginSettings {
    /// The agent's socket.
    #[serde(default = "default_agent_socket")]
    pub agent_socket: PathBuf,
    /// How long the agent gets to answer. The kubelet's own patience with a sandbox is minutes.
    #[serde(default = "default_deadline_seconds")]
    pub deadline_seconds: u64,
}

fn default_agent_socket() -> PathBuf {
    DEFAULT_AGENT_SOCKET.into()
}
const fn default_deadline_seconds() -> u64 {
    60
}

impl Configuration for PluginSettings {
    const SETTINGS: &'static [Setting] = &[
        Setting::new("agentSocket", Values::PATH).changed(AT_ADD),
        Setting::number("deadlineSeconds", 1, 3_600, "seconds")
            .metric("`heddle_cni_request_duration_seconds`")
            .changed(AT_ADD),
    ];

    fn required() -> Map<String, Value> {
        Map::new()
    }

    fn validate(&self) -> Result<(), SettingError> {
        Ok(())
    }
}

impl PluginSettings {
    /// Its keys among those of a network configuration; null is leaving out. What is nearly one of them is a slip;
    /// other keys are others'.
    fn of(fields: &Map<String, Value>) -> Result<Self, SettingError> {
        let names: Vec<&str> = Self::SETTINGS.iter().map(|setting| setting.name).collect();
        let own = |key: &str| names.contains(&key) || closest(key, &names).is_some();
        let own = fields
            .iter()
            .filter(|(key, value)| own(key) && !value.is_null())
            .map(|(key, value)| (key.clone(), value.clone()));
        read(Value::Object(own.collect()))
    }
}

/// The parts of a network configuration that the plugin uses. Other keys belong to the runtime or to
/// other plugins of the chain and are left alone.
#[derive(Clone, PartialEq, Debug)]
pub struct NetworkConfig {
    /// Version that the answer must have.
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// The agent's socket.
    pub agent_socket: PathBuf,
    /// How long the agent gets.
    pub deadline: Duration,
    /// Name servers to hand on, as they stand in the configuration.
    pub dns: Value,
    /// Result of the plugins before this one, or of the ADD that a CHECK is about.
    pub previous: Option<Value>,
    /// What the runtime still knows; `None` when the configuration does not say.
    pub valid_attachments: Option<Vec<ValidAttachment>>,
}

impl NetworkConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Code 6 when it is not JSON, 1 for an unknown version, 7 for a wrong field.
    pub fn parse(input: &[u8]) -> Result<Self, CniError> {
        let value: Value = serde_json::from_slice(input).map_err(|error| {
            CniError::new(
                codes::DECODE,
                format!("the network configuration on stdin is not JSON: {error}"),
            )
        })?;
        let Value::Object(fields) = &value else {
            return Err(CniError::new(
                codes::DECODE,
                "the network configuration on stdin is not a JSON object",
            ));
        };
        let text = |field: &str| match fields.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(invalid(field, &format!("must be a string, is {other}"))),
        };
        // The specification's default for a missing version is one that nobody speaks any more.
        let version = Version::parse(text("cniVersion")?.unwrap_or("0.1.0"))?;
        let name = text("name")?.ok_or_else(|| invalid("name", "is missing"))?;
        if !is_network_name(name) {
            return Err(invalid(
                "name",
                &format!(
                    "{name:?} must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'"
                ),
            ));
        }
        let settings = PluginSettings::of(fields).map_err(|error| {
            let reason = format!("{}; {}", error.reason(), error.help());
            invalid(error.setting(), &reason)
        })?;
        let previous = match fields.get("prevResult") {
            None | Some(Value::Null) => None,
            Some(previous) if previous.is_object() => Some(previous.clone()),
            Some(other) => {
                return Err(invalid(
                    "prevResult",
                    &format!("must be an object, is {other}"),
                ));
            }
        };
        let valid_attachments = match fields.get("cni.dev/valid-attachments") {
            None | Some(Value::Null) => None,
            Some(list) => Some(
                Vec::<ValidAttachment>::deserialize(list)
                    .map_err(|error| invalid("cni.dev/valid-attachments", &error.to_string()))?,
            ),
        };
        Ok(Self {
            version,
            name: name.to_owned(),
            agent_socket: settings.agent_socket,
            deadline: Duration::from_secs(settings.deadline_seconds),
            dns: fields
                .get("dns")
                .filter(|dns| dns.is_object())
                .cloned()
                .unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            previous,
            valid_attachments,
        })
    }
}

fn is_network_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn invalid(field: &str, reason: &str) -> CniError {
    CniError::new(
        codes::INVALID_CONFIG,
        format!("network configuration: field {field}: {reason}"),
    )
}
