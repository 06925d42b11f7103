//! What may be secret is taken out of what a dump holds: by its place in objects, and by its looks in texts.

use super::Stripped;
use serde_json::Value;
use std::collections::BTreeMap;

/// What stands where something was taken out.
pub(crate) const STRIPPED: &str = "(stripped)";
/// The annotation that repeats the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Words at the end of a name whose value is a secret, in lower case, `-` and `_` left out.
const SECRET_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "authorization",
    "credential",
    "credentials",
    "setcookie",
];
/// Words before a secret of an HTTP authorization.
const SCHEMES: [&str; 2] = ["Bearer ", "Basic "];

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
        let annotations = object.pointer_mut("/metadata/annotations");
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            if annotations.remove(LAST_APPLIED).is_some() {
                self.count("last-applied annotations");
            }
            for (key, value) in annotations {
                if is_secret_name(key) {
                    self.replace(value, "annotations that name a secret");
                } else {
                    self.texts(value);
                }
            }
        }
        // Their keys tell enough.
        for field in ["data", "stringData", "binaryData"] {
            let values = object.get_mut(field).and_then(Value::as_object_mut);
            for (_, value) in values.into_iter().flatten() {
                self.replace(value, "data of Secrets and ConfigMaps");
            }
        }
        for field in ["spec", "specs", "template"] {
            if let Some(value) = object.get_mut(field) {
                self.spec(value);
            }
        }
        if let Some(status) = object.get_mut("status") {
            self.texts(status);
        }
    }

    /// What is inside a `spec`: what containers run and with what, and values of HTTP headers.
    fn spec(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.spec(item)),
            Value::Object(fields) => {
                for (key, field) in fields {
                    match key.as_str() {
                        "containers" | "initContainers" | "ephemeralContainers" => {
                            for container in items(field, "") {
                                self.container(container);
                            }
                        }
                        "annotations" => self.object_annotations(field),
                        "headers" | "headerMatches" | "httpHeaders" => self.headers(field),
                        _ => self.spec(field),
                    }
                }
            }
            _ => {}
        }
    }

    /// Annotations of a pod template.
    fn object_annotations(&mut self, annotations: &mut Value) {
        let mut object = serde_json::json!({"metadata": {"annotations": annotations.take()}});
        self.object(&mut object);
        *annotations = object["metadata"]["annotations"].take();
    }

    fn container(&mut self, container: &mut Value) {
        for variable in items(container, "/env") {
            if let Some(value) = variable.get_mut("value") {
                self.replace(value, "values of environment variables");
            }
        }
        for field in ["command", "args"] {
            if let Some(value) = container.get_mut(field) {
                self.replace(value, "commands and arguments of containers");
            }
        }
        for field in [
            "readinessProbe",
            "livenessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if let Some(value) = container.get_mut(field) {
                self.handler(value);
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
                _ => self.handler(field),
            }
        }
    }

    /// Header matches of a policy: `Name: value`, or `{"name", "value"}`.
    fn headers(&mut self, headers: &mut Value) {
        for header in items(headers, "") {
            match header {
                Value::String(_) => self.texts(header),
                _ if header["name"].as_str().is_some_and(|name| {
                    is_secret_name(name) || name.eq_ignore_ascii_case("cookie")
                }) =>
                {
                    if let Some(value) = header.get_mut("value") {
                        self.replace(value, "values of HTTP headers");
                    }
                }
                _ => {}
            }
        }
    }

    /// Settings: values under names of secrets, and the looks of every other text.
    pub(crate) fn settings(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.settings(item)),
            Value::Object(fields) => {
                for (key, field) in fields {
                    if is_secret_name(key) && !field.is_object() {
                        self.replace(field, "settings that name a secret");
                    } else {
                        self.settings(field);
                    }
                }
            }
            Value::String(_) => self.texts(value),
            _ => {}
        }
    }

    /// Every text inside a value, by its looks.
    pub(crate) fn texts(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.texts(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.texts(field)),
            _ => {}
        }
    }

    /// A flow: headers, and the query and user information of URLs.
    pub(crate) fn flow(&mut self, line: &mut Value) {
        let Some(l7) = line.pointer_mut("/flow/l7") else {
            return;
        };
        for value in items(l7, "/http/headers").filter_map(|header| header.get_mut("value")) {
            self.replace(value, "values of HTTP headers");
        }
        if let Some(url) = l7.pointer_mut("/http/url")
            && let Some((path, _)) = url.as_str().and_then(|url| url.split_once('?'))
        {
            *url = Value::from(format!("{path}?{STRIPPED}"));
            self.count("queries of URLs");
        }
        self.texts(l7);
    }

    /// A text, by its looks: `password=...` and the like, HTTP authorization, user information in URLs, private keys.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let (mut in_key, mut has_begun) = (false, false);
        for line in text.split_inclusive('\n') {
            let begins = key_marks(line, "-----BEGIN ");
            let ends = key_marks(line, "-----END ");
            let (begin, end) = (begins.clone().next(), ends.last());
            // The beginning of this one was cut off, and how far back it went nobody knows.
            if end.is_some_and(|end| begin.is_none_or(|begin| end < begin)) && !has_begun {
                out.clear();
                self.strip_key(&mut out);
            } else if let Some(begin) = begin.filter(|_| !in_key) {
                self.line(&line[..begin], &mut out);
                self.strip_key(&mut out);
            } else if !in_key {
                self.line(line, &mut out);
            }
            has_begun |= begin.is_some();
            in_key = match (begins.last(), end) {
                (Some(begin), Some(end)) => begin > end,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => in_key,
            };
        }
        out
    }

    fn strip_key(&mut self, out: &mut String) {
        out.push_str(STRIPPED);
        out.push('\n');
        self.count("private keys");
    }

    fn line(&mut self, line: &str, out: &mut String) {
        let mut rest = line;
        while let Some((before, secret)) = next_secret(rest) {
            let (kept, from) = rest.split_at(before);
            out.push_str(kept);
            // A second pass finds nothing new.
            if &from[..secret] == STRIPPED {
                out.push_str(STRIPPED);
            } else {
                out.push_str(STRIPPED);
                self.count("secrets by their looks in logs, events and messages");
            }
            rest = &from[secret..];
        }
        out.push_str(rest);
    }
}

/// Where a line has marks of a private key (RFC 7468; a PGP key's label goes on).
fn key_marks<'a>(line: &'a str, mark: &'a str) -> impl Iterator<Item = usize> + Clone + use<'a> {
    let marks = line.match_indices(mark);
    marks.filter_map(move |(at, _)| {
        let label = line[at + mark.len()..].split("-----").next()?;
        label.contains("PRIVATE KEY").then_some(at)
    })
}

/// The items of the list at this place, if there is one.
fn items<'a>(value: &'a mut Value, place: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = value.pointer_mut(place).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// Whether the value under this name is a secret.
fn is_secret_name(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
        .collect();
    SECRET_NAMES.iter().any(|word| plain.ends_with(word))
}

/// Where the first secret of a line begins, and its length. Looks no further than that: a line may hold very many.
fn next_secret(line: &str) -> Option<(usize, usize)> {
    line.char_indices().find_map(|(at, character)| {
        let here = &line[at..];
        match character {
            '=' => assigned(line, at),
            ':' => {
                assigned(line, at).or_else(|| user(here).map(|(from, length)| (at + from, length)))
            }
            'B' => {
                let scheme = SCHEMES.iter().find(|scheme| here.starts_with(**scheme))?;
                let at = at + scheme.len();
                let length = token_length(&line[at..]);
                // Shorter words are language.
                (length >= 8).then_some((at, length))
            }
            _ => None,
        }
    })
}

/// The user information of a URL, from its `://` on.
fn user(text: &str) -> Option<(usize, usize)> {
    let begin = "://";
    let host = text.strip_prefix(begin)?;
    let host = host.split(['/', ' ', '"', '\'', '?']).next()?;
    let end = host.rfind('@')?;
    (end > 0).then_some((begin.len(), end))
}

/// The value behind an `=` or `:` at this place, if the name before it is a secret's.
fn assigned(line: &str, at: usize) -> Option<(usize, usize)> {
    // Quotes may be escaped, in JSON inside a text.
    let name = line[..at].trim_end_matches(['"', '\'', ' ', '\\']);
    let start = name
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        .map_or(0, |it| {
            it + name[it..].chars().next().map_or(1, char::len_utf8)
        });
    let name = &name[start..];
    if !is_secret_name(name) {
        return None;
    }
    let value = line[at + 1..].trim_start_matches(['"', '\'', ' ', '\\']);
    let begin = line.len() - value.len();
    let quoted = line[at + 1..begin]
        .chars()
        .rev()
        .find(|c| matches!(c, '"' | '\''));
    let whole = is_secret_name(name) && name.to_ascii_lowercase().ends_with("authorization");
    let length = match quoted {
        Some(quote) => value.find(quote).map_or_else(
            || value.trim_end().len(),
            |end| value[..end].trim_end_matches('\\').len(),
        ),
        // The scheme and what follows it.
        None if whole => value.trim_end().len(),
        None => token_length(value),
    };
    (length > 0).then_some((begin, length))
}

/// Bytes up to what ends a word.
fn token_length(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}' | ']'))
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_found_in_texts_by_their_looks_and_nothing_else_is_touched() {
        for (text, expected) in [
            ("password=hunter2 user=joe", "password=(stripped) user=joe"),
            ("DB_PASSWORD: 'two words' x", "DB_PASSWORD: '(stripped)' x"),
            (
                r#"{"api-key":"abc","n":1}"#,
                r#"{"api-key":"(stripped)","n":1}"#,
            ),
            (
                r#"{\"password\":\"hunter2\",\"n\":1} token=\"abc\" x"#,
                r#"{\"password\":\"(stripped)\",\"n\":1} token=\"(stripped)\" x"#,
            ),
            (
                "Authorization: Bearer abc.def-123\nnext",
                "Authorization: (stripped)\nnext",
            ),
            (
                "got Bearer abcdefgh12, retry",
                "got Bearer (stripped), retry",
            ),
            ("https://joe:pw@host:1/x?y", "https://(stripped)@host:1/x?y"),
            (
                "token = abc; token=def",
                "token = (stripped); token=(stripped)",
            ),
            (
                "QUFB\nQkJC==\n-----END PRIVATE KEY-----\nb",
                "(stripped)\nb",
            ),
            (
                "| DEK-Info: AES\n| QUFB\n| -----END RSA PRIVATE KEY-----\nb",
                "(stripped)\nb",
            ),
            (
                "a\n-----END CERTIFICATE----------BEGIN PRIVATE KEY-----\nQUFB\n-----END PRIVATE KEY-----\nb",
                "a\n-----END CERTIFICATE-----(stripped)\nb",
            ),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nQUFB\n-----END EC PRIVATE KEY----------BEGIN PRIVATE KEY-----\nQkJC\n-----END PRIVATE KEY-----\nb",
                "a\n(stripped)\nb",
            ),
            (
                "-----BEGIN PGP PRIVATE KEY BLOCK-----\nQUFB\n-----END PGP PRIVATE KEY BLOCK-----\nb",
                "(stripped)\nb",
            ),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
                "a\n(stripped)\nb",
            ),
            (
                "pods of app=secret-store, cookie=9, tokens left",
                "pods of app=secret-store, cookie=9, tokens left",
            ),
            (
                "k8s:app=web 10.0.0.1:80 -> [fd00::1]:80",
                "k8s:app=web 10.0.0.1:80 -> [fd00::1]:80",
            ),
            (
                "Basic rules of the Bearer kind",
                "Basic rules of the Bearer kind",
            ),
            ("ü: password=ü", "ü: password=(stripped)"),
            ("password=", "password="),
        ] {
            let mut stripper = Stripper::default();
            let once = stripper.text(text);
            assert_eq!(once, expected);
            assert_eq!(Stripper::default().text(&once), expected, "twice");
            assert_eq!(stripper.counts.is_empty(), text == expected, "{text}");
        }
    }

    #[test]
    fn an_object_keeps_what_networking_is_about() {
        let mut pod = json!({
            "kind": "Pod",
            "metadata": {
                "name": "web",
                "labels": {"token": "a-label-is-no-secret"},
                "annotations": {LAST_APPLIED: "{}", "example.com/api-token": "abc", "note": "password=x", "heddle.dev/policy-audit": "true"},
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{
                    "name": "c", "image": "i", "command": ["sh"], "args": ["-c", "curl -H 'X: y'"],
                    "env": [{"name": "A", "value": "b"}, {"name": "R", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Host", "value": "h"}]}},
                    "livenessProbe": {"exec": {"command": ["cat"]}},
                    "ports": [{"containerPort": 80}],
                }],
            },
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"message": "exec: token=abc failed"}]},
        });
        Stripper::default().object(&mut pod);
        assert_eq!(
            pod,
            json!({
                "kind": "Pod",
                "metadata": {
                    "name": "web",
                    "labels": {"token": "a-label-is-no-secret"},
                    "annotations": {"example.com/api-token": STRIPPED, "note": "password=(stripped)", "heddle.dev/policy-audit": "true"},
                },
                "spec": {
                    "nodeName": "node-1",
                    "containers": [{
                        "name": "c", "image": "i", "command": [STRIPPED], "args": [STRIPPED],
                        "env": [{"name": "A", "value": STRIPPED}, {"name": "R", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                        "readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Host", "value": STRIPPED}]}},
                        "livenessProbe": {"exec": {"command": [STRIPPED]}},
                        "ports": [{"containerPort": 80}],
                    }],
                },
                "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"message": "exec: token=(stripped) failed"}]},
            })
        );
    }

    #[test]
    fn templates_policies_secrets_settings_and_flows_are_stripped_too() {
        let mut deployment = json!({"spec": {"selector": {"matchLabels": {"secret": "a"}}, "template": {
            "metadata": {"annotations": {LAST_APPLIED: "{}"}, "labels": {"secret": "a"}},
            "spec": {"initContainers": [{"env": [{"name": "A", "value": "b"}]}]},
        }}});
        Stripper::default().object(&mut deployment);
        assert_eq!(
            deployment,
            json!({"spec": {"selector": {"matchLabels": {"secret": "a"}}, "template": {
                "metadata": {"annotations": {}, "labels": {"secret": "a"}},
                "spec": {"initContainers": [{"env": [{"name": "A", "value": STRIPPED}]}]},
            }}})
        );

        let rules = |token: &str| {
            json!({"spec": {"ingress": [{"toPorts": [{"rules": {"http": [{
                "method": "GET", "path": "/", "headers": ["X-A: b", format!("X-Token: {token}")],
                "headerMatches": [{"name": "X-Api-Key", "value": token}, {"name": "Accept", "value": "x"}],
            }]}}]}]}})
        };
        let mut policy = rules("abc");
        Stripper::default().object(&mut policy);
        assert_eq!(policy, rules(STRIPPED));

        let mut secret = json!({"kind": "Secret", "data": {"k": "dg=="}, "stringData": {"l": "v"}});
        Stripper::default().object(&mut secret);
        assert_eq!(secret["data"]["k"], STRIPPED);
        assert_eq!(secret["stringData"]["l"], STRIPPED);

        let mut settings =
            json!({"cni": {"plugins": [{"type": "x", "authToken": "t"}]}, "fabric": "vxlan"});
        Stripper::default().settings(&mut settings);
        assert_eq!(
            settings,
            json!({"cni": {"plugins": [{"type": "x", "authToken": STRIPPED}]}, "fabric": "vxlan"})
        );

        let mut flow = json!({"flow": {"verdict": "FORWARDED", "l7": {"http": {
            "url": "http://u:p@h/x?token=1", "headers": [{"key": "Cookie", "value": "c"}]}}}});
        let mut stripper = Stripper::default();
        stripper.flow(&mut flow);
        assert_eq!(
            flow["flow"]["l7"]["http"]["url"],
            "http://(stripped)@h/x?(stripped)"
        );
        assert_eq!(flow["flow"]["l7"]["http"]["headers"][0]["value"], STRIPPED);
        assert_eq!(stripper.into_counts().len(), 3);
    }
}
