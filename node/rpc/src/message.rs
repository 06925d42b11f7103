//! A question: a method, and parameters of the type that the method has.

use crate::error::{ApiError, error_codes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The parameters of a method, which has one type of answer.
///
/// Who answers with several lines, as `observe` does, gives each of them in this type.
pub trait Call: Serialize + DeserializeOwned {
    /// `cni.add`, `status`, ...
    const METHOD: &'static str;
    /// What it answers.
    type Answer: Serialize + DeserializeOwned;
}

/// A question as it travels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`Call::METHOD`].
    pub method: String,
    /// What the method needs; missing where that is nothing.
    #[serde(default)]
    pub params: Value,
}

impl Request {
    /// The parameters of a call.
    ///
    /// # Errors
    /// When they are not the method's.
    pub fn read<C: Call>(self) -> Result<C, ApiError> {
        let params = match self.params {
            Value::Null => Value::Object(Map::new()),
            params => params,
        };
        serde_json::from_value(params).map_err(|error| {
            ApiError::new(error_codes::INVALID, format!("parameters: {error}"))
                .object(self.method)
                .help("agent and caller may be of different versions")
        })
    }
}

/// A line of an answer as it travels.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Line {
    /// An answer, or one of many.
    Result(Value),
    /// No answer.
    Error(ApiError),
    /// The end of many.
    End(bool),
}

/// Appends a value and the end of its line.
pub(crate) fn push_line(buffer: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *buffer, value)?;
    buffer.push(b'\n');
    Ok(())
}
