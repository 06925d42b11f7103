//! A question: a method, and parameters of the type that the method has.

use crate::error::{ApiError, error_codes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The parameters of a method, which has one type of answer.
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
                .help("server and caller may be of different versions")
        })
    }
}

/// An answer that says no more than that it is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {}

/// A line of an answer as it travels: one of the three.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Line {
    /// An answer, or one of many; it may be null.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "even_null"
    )]
    pub(crate) result: Option<Value>,
    /// No answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ApiError>,
    /// The end of many.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) end: bool,
}

fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Appends a value and the end of its line.
pub(crate) fn push_line(buffer: &mut Vec<u8>, value: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(&mut *buffer, value)?;
    buffer.push(b'\n');
    Ok(())
}
