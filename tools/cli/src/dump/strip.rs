//! What may be secret is taken out of what a dump holds: by its place in objects, and by its looks in texts.

mod keys;
mod lines;
mod looks;
mod quotes;

use super::Stripped;
use looks::{is_name_of_one_secret, is_secret_name, packed_length, user_length};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(crate) use looks::STRIPPED;

/// The annotation that repeats the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields of a specification that hold labels or select by them: their keys are names that people gave.
const LABELS: [&str; 3] = ["labels", "matchLabels", "matchExpressions"];
/// Fields of a container that are handlers of its life.
const HANDLERS: [&str; 4] = [
    "readinessProbe",
    "livenessProbe",
    "startupProbe",
    "lifecycle",
];

/// Takes secrets out, and counts what it took.
#[derive(Debug, Default)]
pub(crate) struct Stripper {
    counts: BTreeMap<&'static str, u64>,
}

impl Stripper {
    /// What was taken out.
    pub(crate) fn into_counts(self) -> Vec<Stripped> {
        let counts = self.counts.into_iter();
        counts
            .map(|(what, count)| Stripped {
                what: what.to_owned(),
                count,
            })
            .collect()
    }

    /// Adds what another took.
    pub(crate) fn add(&mut self, other: Self) {
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn replace(&mut self, value: &mut Value, what: &'static str) {
        let with = match value {
            Value::Null => return,
            Value::Array(_) => Value::from(vec![STRIPPED]),
            _ => Value::from(STRIPPED),
        };
        if *value != with {
            *value = with;
            self.count(what);
        }
    }

    /// An object of the store.
    pub(crate) fn object(&mut self, object: &mut Value) {
        if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
            self.annotations(annotations);
        }
        if let Some(fields) = object.as_object_mut() {
            self.data(fields);
        }
        for field in ["spec", "specs", "template"] {
            if let Some(value) = object.get_mut(field) {
                self.settings(value);
            }
        }
        if let Some(status) = object.get_mut("status") {
            self.texts(status);
        }
    }

    /// Annotations of an object, or of a pod template.
    fn annotations(&mut self, annotations: &mut Value) {
        let Some(annotations) = annotations.as_object_mut() else {
            return;
        };
        if annotations.remove(LAST_APPLIED).is_some() {
            self.count("last-applied annotations");
        }
        for (key, value) in annotations {
            if is_secret_name(key) {
                self.replace(value, "annotations that name a secret");
            } else if is_copy(key, value) {
                self.replace(value, "annotations that repeat an object");
            } else {
                self.texts(value);
            }
        }
    }

    /// Values of a Secret or a ConfigMap, whose keys tell enough.
    fn data(&mut self, fields: &mut Map<String, Value>) {
        for field in ["data", "stringData", "binaryData"] {
            let values = fields.get_mut(field).and_then(Value::as_object_mut);
            for (_, value) in values.into_iter().flatten() {
                self.replace(value, "data of Secrets and ConfigMaps");
            }
        }
    }

    /// Settings, and what is inside a `spec`: what containers run and with what, values of HTTP headers, values under
    /// names of secrets, and the looks of every other text but labels.
    pub(crate) fn settings(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.settings(item)),
            Value::Object(fields) => {
                // Another object inside.
                if fields.get("kind").is_some_and(Value::is_string) {
                    self.data(fields);
                }
                self.named_value(fields);
                for (key, field) in fields {
                    self.setting(key, field);
                }
            }
            Value::String(_) => self.texts(value),
            _ => {}
        }
    }

    fn setting(&mut self, key: &str, field: &mut Value) {
        match key {
            "containers" | "initContainers" | "ephemeralContainers" if field.is_array() => {
                for container in items(field, "") {
                    self.container(container);
                }
            }
            "annotations" if field.is_object() => self.annotations(field),
            "headers" | "headerMatches" | "httpHeaders" if field.is_array() => self.headers(field),
            // A tag is no value of what stands before its colon.
            "image" if field.is_string() => {}
            _ if LABELS.contains(&key) || key.to_ascii_lowercase().ends_with("selector") => {}
            _ if is_secret(key, field) => self.replace(field, "settings that name a secret"),
            _ => self.settings(field),
        }
    }

    /// A pair of a name and its value, as lists of variables and parameters have them.
    fn named_value(&mut self, fields: &mut Map<String, Value>) {
        let name = fields.get("name").and_then(Value::as_str);
        if let Some(name) = name.map(str::to_owned)
            && let Some(value) = fields.get_mut("value")
            && is_secret(&name, value)
        {
            self.replace(value, "settings that name a secret");
        }
    }

    fn container(&mut self, container: &mut Value) {
        let Value::Object(fields) = container else {
            return self.settings(container);
        };
        for (key, field) in fields {
            match key.as_str() {
                "env" => {
                    for value in items(field, "").filter_map(|it| it.get_mut("value")) {
                        self.replace(value, "values of environment variables");
                    }
                    self.settings(field);
                }
                "command" | "args" => {
                    self.replace(field, "commands and arguments of containers");
                }
                key if HANDLERS.contains(&key) => self.handler(field),
                key => self.setting(key, field),
            }
        }
    }

    /// A probe, or handlers of a lifecycle.
    fn handler(&mut self, value: &mut Value) {
        let Some(fields) = value.as_object_mut() else {
            return;
        };
        for (key, field) in fields {
            match key.as_str() {
                "command" => self.replace(field, "commands and arguments of containers"),
                "httpHeaders" => {
                    for value in items(field, "").filter_map(|header| header.get_mut("value")) {
                        self.replace(value, "values of HTTP headers");
                    }
                }
                "path" => self.url(field),
                "host" => self.host(field),
                _ => self.handler(field),
            }
        }
    }

    /// A URL, or its path: the query, and what looks like a secret elsewhere in it.
    fn url(&mut self, url: &mut Value) {
        let cut = url.as_str().and_then(|url| url.split_once('?'));
        if let Some((path, query)) = cut
            && query != STRIPPED
        {
            *url = Value::from(format!("{path}?{STRIPPED}"));
            self.count("queries of URLs");
        }
        // A URL whose scheme its place tells.
        let user = url.as_str().and_then(|url| url.strip_prefix("//"));
        let user = user.and_then(user_length);
        self.user(url, user.map(|length| (2, length)));
        self.texts(url);
    }

    /// The host of a URL, with who asks it.
    fn host(&mut self, host: &mut Value) {
        let user = host.as_str().and_then(user_length);
        self.user(host, user.map(|length| (0, length)));
        self.texts(host);
    }

    fn user(&mut self, value: &mut Value, user: Option<(usize, usize)>) {
        if let (Value::String(text), Some((from, length))) = (value, user)
            && text[from..from + length] != *STRIPPED
        {
            text.replace_range(from..from + length, STRIPPED);
            self.count("user information of URLs");
        }
    }

    /// Header matches of a policy: `Name: value`, or `{"name", "value"}`.
    fn headers(&mut self, headers: &mut Value) {
        for header in items(headers, "") {
            match header.get("name").and_then(Value::as_str) {
                Some(name) if is_secret_name(name) => {
                    if let Some(value) = header.get_mut("value") {
                        self.replace(value, "values of HTTP headers");
                    }
                }
                _ => self.settings(header),
            }
        }
    }

    /// Every text inside a value but labels, by its looks; a text that is JSON by its names as well.
    pub(crate) fn texts(&mut self, value: &mut Value) {
        match value {
            Value::String(text) if packed_length(text.trim_start()).is_some() => {
                self.replace(value, "texts that are packed");
            }
            Value::String(text) => {
                if let Some(stripped) = self.json(text).or_else(|| self.changed(text)) {
                    *text = stripped;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.texts(item)),
            Value::Object(fields) => {
                for (key, field) in fields {
                    if !LABELS.contains(&key.as_str()) {
                        self.texts(field);
                    }
                }
            }
            _ => {}
        }
    }

    /// A text that is JSON, where something had to be taken out by its names.
    fn json(&mut self, text: &str) -> Option<String> {
        if !text.trim_start().starts_with(['{', '[']) {
            return None;
        }
        let mut value: Value = serde_json::from_str(text).ok()?;
        let before = self.total();
        self.settings(&mut value);
        (self.total() > before).then(|| value.to_string())
    }

    fn changed(&mut self, text: &str) -> Option<String> {
        let stripped = self.text(text);
        (stripped != text).then_some(stripped)
    }

    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// A flow: headers, and the query and user information of URLs.
    pub(crate) fn flow(&mut self, line: &mut Value) {
        let Some(l7) = line.pointer_mut("/flow/l7") else {
            return;
        };
        for value in items(l7, "/http/headers").filter_map(|header| header.get_mut("value")) {
            self.replace(value, "values of HTTP headers");
        }
        if let Some(url) = l7.pointer_mut("/http/url") {
            self.url(url);
        }
        self.texts(l7);
    }
}

/// The items of the list at this place, if there is one.
fn items<'a>(value: &'a mut Value, place: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = value.pointer_mut(place).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// Whether an annotation repeats an object. An original that can be read is treated as the object in it is.
fn is_copy(key: &str, value: &Value) -> bool {
    let is_text = |value: &Value| {
        let text = value.as_str().unwrap_or_default().trim_start();
        text.starts_with(['{', '['])
    };
    match key.rsplit_once('/') {
        Some((_, "applied" | "last-applied")) => true,
        Some((_, "original")) => !is_text(value),
        _ => false,
    }
}

/// Whether what stands under this name is a secret: texts, and numbers where the name says so. An object under it names or
/// describes one.
fn is_secret(name: &str, value: &Value) -> bool {
    match value {
        Value::String(_) => is_secret_name(name),
        Value::Number(_) => is_name_of_one_secret(name),
        Value::Array(items) => {
            let mut items = items.iter();
            is_secret_name(name) && items.any(|item| item.is_string() || item.is_number())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
