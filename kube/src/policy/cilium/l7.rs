//! What a `toPorts` entry says beyond ports: L7 rules, TLS, server names, listeners (reference 1.2). The
//! grammar is checked in full; nothing of it is enforced yet.

use super::super::{
    fields::Field,
    names,
    problems::{Problems, quoted},
};
use regex_automata::{nfa::thompson, util::syntax};
use std::{cell::Cell, collections::BTreeSet};

/// Bytes of a regular expression at most.
const MOST_PATTERN: usize = 4_096;
/// Bytes of a compiled regular expression at most.
const MOST_COMPILED: usize = 1 << 18;
/// Regular expressions of one object at most; more cost seconds before anything is decided.
pub(super) const MOST_EXPRESSIONS: usize = 1_000;
/// Groups inside groups of a regular expression at most.
const MOST_NESTED: u32 = 50;
/// Bytes of a header's line at most: what proxies take.
const MOST_HEADER: usize = 8_192;
/// Bytes of a Kafka topic at most (reference 1.2).
const MOST_TOPIC: usize = 255;

/// The ports beside the rules, as far as the rules depend on them.
pub(super) struct PortsBeside {
    /// How many there are.
    pub(super) count: usize,
    /// The first one whose protocol is not TCP, as it was written.
    pub(super) not_tcp: Option<String>,
    /// One of them is 0: any port.
    pub(super) any_port: bool,
    /// One of them is a range.
    pub(super) range: bool,
}

/// Checks every such field of a `toPorts` entry; the paths of those present go to `unsupported`, and
/// `expressions` counts down how many regular expressions the object may still have.
pub(super) fn check(
    entry: &Field<'_>,
    ingress: bool,
    ports: &PortsBeside,
    expressions: &Cell<usize>,
    unsupported: &mut Vec<String>,
    problems: &mut Problems,
) {
    let mut present = |field: &Field<'_>| unsupported.push(field.path.clone());
    let terminates = entry.get("terminatingTLS").is_some();
    for name in ["terminatingTLS", "originatingTLS"] {
        if let Some(context) = entry.get(name) {
            present(&context);
            tls_context(&context, problems);
        }
    }
    let rules = entry.get("rules").filter(|rules| {
        // An empty object restricts nothing: it is as good as missing.
        rules
            .value
            .as_object()
            .is_none_or(|object| !object.is_empty())
    });
    if let Some(names) = entry.get("serverNames") {
        present(&names);
        server_names(&names, rules.is_some() && !terminates, problems);
    }
    if let Some(found) = entry.get("listener") {
        present(&found);
        listener(&found, ingress, rules.is_some(), problems);
    }
    if let Some(rules) = rules {
        present(&rules);
        l7_rules(&rules, ingress, ports, expressions, problems);
    }
}

fn tls_context(field: &Field<'_>, problems: &mut Problems) {
    let known = ["secret", "trustedCA", "certificate", "privateKey"];
    if !field.object(&known, &[], problems) {
        return;
    }
    match field.get("secret") {
        Some(found) => secret(&found, problems),
        None => field.missing(
            "secret",
            "write secret: {namespace: NS, name: NAME}",
            problems,
        ),
    }
    for name in &known[1..] {
        if let Some(text) = field.get(name) {
            text.text(problems);
        }
    }
}

fn secret(field: &Field<'_>, problems: &mut Problems) {
    if !field.object(&["namespace", "name"], &[], problems) {
        return;
    }
    if let Some(namespace) = field.get("namespace") {
        namespace.text(problems);
    }
    let name = field.get("name").map(|name| name.text(problems));
    if matches!(name, None | Some(Some(""))) {
        field.missing("name", "write the Secret's name", problems);
    }
}

fn server_names(field: &Field<'_>, without_termination: bool, problems: &mut Problems) {
    if without_termination {
        problems.error(
            "policy/invalid-server-names",
            field.path.clone(),
            "server names are not allowed with L7 rules without TLS termination",
            "write terminatingTLS too, or remove one of them",
        );
    }
    let listed = field.items(problems);
    if listed.is_empty() && field.value.is_array() {
        problems.error(
            "policy/invalid-server-names",
            field.path.clone(),
            "the list is empty",
            "name at least one server, or remove serverNames",
        );
    }
    let mut seen = BTreeSet::new();
    for name in &listed {
        names::check_pattern(name, problems);
        if let Some(text) = name.value.as_str()
            && !seen.insert(text)
        {
            problems.error(
                "policy/invalid-server-names",
                name.path.clone(),
                format!("{} stands twice", quoted(text)),
                "remove one",
            );
        }
    }
}

fn listener(field: &Field<'_>, ingress: bool, with_rules: bool, problems: &mut Problems) {
    let mut refuse = |path: String, message: &str, help: &str| {
        problems.error("policy/invalid-listener", path, message, help);
    };
    if ingress {
        refuse(
            field.path.clone(),
            "a listener is not allowed on ingress",
            "move it to an egress rule",
        );
    }
    if with_rules {
        refuse(
            field.path.clone(),
            "a listener is not allowed with L7 rules",
            "remove one of them",
        );
    }
    if !field.object(&["envoyConfig", "name", "priority"], &[], problems) {
        return;
    }
    match field.get("envoyConfig") {
        Some(config) => {
            if config.object(&["kind", "name"], &[], problems) {
                if let Some(kind) = config.get("kind") {
                    let kinds = ["CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"];
                    kind.one_of(
                        &kinds,
                        "policy/invalid-listener",
                        "a kind of configuration",
                        problems,
                    );
                }
                required_text(&config, "name", "name the configuration", problems);
            }
        }
        None => field.missing("envoyConfig", "write envoyConfig: {name: NAME}", problems),
    }
    required_text(field, "name", "name the listener", problems);
    if let Some(priority) = field.get("priority")
        && let Some(value) = priority.integer(problems)
        && !(1..=100).contains(&value)
    {
        problems.error(
            "policy/invalid-listener",
            priority.path.clone(),
            format!("{value} is not a listener's priority"),
            "priorities go from 1 (first) to 100",
        );
    }
}

fn required_text(field: &Field<'_>, name: &str, help: &str, problems: &mut Problems) {
    match field.get(name) {
        Some(found) => {
            if found.text(problems) == Some("") {
                field.missing(name, help, problems);
            }
        }
        None => field.missing(name, help, problems),
    }
}

fn l7_rules(
    field: &Field<'_>,
    ingress: bool,
    ports: &PortsBeside,
    expressions: &Cell<usize>,
    problems: &mut Problems,
) {
    if !field.object(&["http", "dns", "kafka", "l7proto", "l7"], &[], problems) {
        return;
    }
    let mut refuse = |message: String, help: &str| {
        problems.error("policy/invalid-l7-rules", field.path.clone(), message, help);
    };
    let dns = field.get("dns");
    let kinds: Vec<&str> = ["http", "dns", "kafka", "l7proto"]
        .into_iter()
        .filter(|name| field.get(name).is_some())
        .collect();
    if kinds.len() > 1 {
        refuse(
            format!(
                "multiple L7 protocol rule types in one entry: {}",
                kinds.join(", ")
            ),
            "write one toPorts entry for each",
        );
    }
    if dns.is_some() && ingress {
        refuse(
            "DNS rules are not allowed on ingress".into(),
            "write them in an egress rule",
        );
    }
    if dns.is_some() && ports.count == 0 {
        refuse(
            "port 53 must be specified for DNS rules".into(),
            "write ports: [{port: \"53\", protocol: ANY}]",
        );
    }
    if dns.is_some() && ports.range {
        refuse(
            "DNS rules do not support port ranges".into(),
            "write the ports one by one",
        );
    }
    if let (None, Some(protocol)) = (&dns, &ports.not_tcp) {
        refuse(
            format!("L7 rules can only apply to TCP (not {protocol}) except for DNS rules"),
            "write protocol: TCP",
        );
    }
    if ports.any_port {
        refuse(
            "L7 rules can not be used when a port is 0".into(),
            "write the port that is spoken on",
        );
    }
    if field.get("l7").is_some() && field.get("l7proto").is_none() {
        refuse(
            "l7 may only be given with l7proto".into(),
            "write l7proto: NAME",
        );
    }
    let each = |name: &str, problems: &mut Problems, check: fn(&Field<'_>, &mut Problems)| {
        for item in field.list(name, problems).unwrap_or_default() {
            check(&item, problems);
        }
    };
    for item in field.list("http", problems).unwrap_or_default() {
        http(&item, expressions, problems);
    }
    each("dns", problems, names::check_match);
    each("kafka", problems, kafka);
    each("l7", problems, pairs);
    if let Some(name) = field.get("l7proto") {
        name.text(problems);
    }
}

fn pairs(field: &Field<'_>, problems: &mut Problems) {
    let Some(object) = field.value.as_object() else {
        field.wrong_type("an object", problems);
        return;
    };
    for (key, value) in object {
        let at = Field {
            value,
            path: format!("{}[{}]", field.path, quoted(key)),
        };
        at.text(problems);
    }
}

fn http(field: &Field<'_>, expressions: &Cell<usize>, problems: &mut Problems) {
    let known = ["path", "method", "host", "headers", "headerMatches"];
    if !field.object(&known, &[], problems) {
        return;
    }
    for name in ["path", "method", "host"] {
        if let Some(pattern) = field.get(name) {
            regular_expression(&pattern, expressions, problems);
        }
    }
    for line in field.list("headers", problems).unwrap_or_default() {
        if let Some(text) = line.text(problems) {
            let name = text.split_once(' ').map_or(text, |(name, _)| name);
            header_name(&line, name.trim_end_matches(':'), problems);
            header_text(&line, text, problems);
        }
    }
    for found in field.list("headerMatches", problems).unwrap_or_default() {
        header_match(&found, problems);
    }
}

fn header_match(field: &Field<'_>, problems: &mut Problems) {
    if !field.object(&["mismatch", "name", "secret", "value"], &[], problems) {
        return;
    }
    match field.get("name") {
        Some(name) => {
            if let Some(text) = name.text(problems) {
                header_name(&name, text, problems);
            }
        }
        None => field.missing("name", "name the header", problems),
    }
    if let Some(action) = field.get("mismatch") {
        let actions = ["LOG", "ADD", "DELETE", "REPLACE"];
        action.one_of(
            &actions,
            "policy/invalid-header",
            "what to do on a mismatch",
            problems,
        );
    }
    if let Some(found) = field.get("secret") {
        secret(&found, problems);
    }
    if let Some(value) = field.get("value")
        && let Some(text) = value.text(problems)
    {
        header_text(&value, text, problems);
    }
}

/// A token of RFC 9110, 5.6.2; names of pseudo headers begin with a colon.
fn header_name(field: &Field<'_>, name: &str, problems: &mut Problems) {
    let token = name.strip_prefix(':').unwrap_or(name);
    let fits = !token.is_empty()
        && token
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
    if !fits {
        problems.error(
            "policy/invalid-header",
            field.path.clone(),
            format!("{} is not a header's name", quoted(name)),
            "write the name, then a space, then the value: \"X-Token secret\"",
        );
    }
}

fn header_text(field: &Field<'_>, text: &str, problems: &mut Problems) {
    if text.len() > MOST_HEADER || text.chars().any(|c| c.is_control() && c != '\t') {
        problems.error(
            "policy/invalid-header",
            field.path.clone(),
            format!("{} cannot be a header", quoted(text)),
            format!("a header is one line of at most {MOST_HEADER} bytes"),
        );
    }
}

/// Compiles a regular expression as it would be compiled for use, within bounds.
fn regular_expression(field: &Field<'_>, expressions: &Cell<usize>, problems: &mut Problems) {
    let Some(text) = field.text(problems) else {
        return;
    };
    let Some(left) = expressions.get().checked_sub(1) else {
        problems.error(
            "policy/too-many-expressions",
            field.path.clone(),
            format!("the policy has more than {MOST_EXPRESSIONS} regular expressions"),
            "join some with `|`, or write several policies",
        );
        return;
    };
    expressions.set(left);
    let reason = if text.len() > MOST_PATTERN {
        format!("it has {} bytes, the max is {MOST_PATTERN}", text.len())
    } else {
        let compiled = thompson::Compiler::new()
            .syntax(
                syntax::Config::new()
                    .unicode(false)
                    .utf8(false)
                    .nest_limit(MOST_NESTED),
            )
            .configure(
                thompson::Config::new()
                    .utf8(false)
                    .nfa_size_limit(Some(MOST_COMPILED)),
            )
            .build(text);
        match compiled {
            Ok(_) => return,
            Err(error) if error.size_limit().is_some() => {
                format!("compiled it has more than {MOST_COMPILED} bytes")
            }
            Err(error) => {
                // The innermost error says what is wrong with the text; the others only that it is wrong.
                let mut inner: &dyn std::error::Error = &error;
                while let Some(source) = inner.source() {
                    inner = source;
                }
                let text = inner.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.strip_prefix("error: ").unwrap_or(last).to_owned()
            }
        }
    };
    problems.error(
        "policy/invalid-regex",
        field.path.clone(),
        format!("{} is not a usable regular expression: {reason}", quoted(text)),
        "write an extended regular expression that matches the whole value, for example /api/v[0-9]+/.*",
    );
}

/// API keys by name (Kafka protocol guide, keys 0 to 33).
const API_KEYS: &[&str] = &[
    "produce",
    "fetch",
    "offsets",
    "metadata",
    "leaderandisr",
    "stopreplica",
    "updatemetadata",
    "controlledshutdown",
    "offsetcommit",
    "offsetfetch",
    "findcoordinator",
    "joingroup",
    "heartbeat",
    "leavegroup",
    "syncgroup",
    "describegroups",
    "listgroups",
    "saslhandshake",
    "apiversions",
    "createtopics",
    "deletetopics",
    "deleterecords",
    "initproducerid",
    "offsetforleaderepoch",
    "addpartitionstotxn",
    "addoffsetstotxn",
    "endtxn",
    "writetxnmarkers",
    "txnoffsetcommit",
    "describeacls",
    "createacls",
    "deleteacls",
    "describeconfigs",
    "alterconfigs",
];

fn kafka(field: &Field<'_>, problems: &mut Problems) {
    let known = ["role", "apiKey", "apiVersion", "clientID", "topic"];
    if !field.object(&known, &[], problems) {
        return;
    }
    let mut text = |name: &str| {
        let found = field.get(name)?;
        let text = found.text(problems)?;
        (!text.is_empty()).then_some((found, text))
    };
    let (role, key, version, topic) = (
        text("role"),
        text("apiKey"),
        text("apiVersion"),
        text("topic"),
    );
    text("clientID");
    let mut refuse = |path: &str, message: String, help: String| {
        problems.error("policy/invalid-kafka", path.to_owned(), message, help);
    };
    if let (Some((role, _)), Some(_)) = (&role, &key) {
        refuse(
            &role.path,
            "role and apiKey cannot be given together".into(),
            "remove one of them".into(),
        );
    }
    if let Some((at, role)) = &role
        && !["produce", "consume"].contains(&role.to_ascii_lowercase().as_str())
    {
        refuse(
            &at.path,
            format!("{} is not a role", quoted(role)),
            "roles: produce, consume".into(),
        );
    }
    if let Some((at, key)) = &key
        && !API_KEYS.contains(&key.to_ascii_lowercase().as_str())
    {
        refuse(
            &at.path,
            format!("{} is not an API key", quoted(key)),
            format!("API keys: {}", API_KEYS.join(", ")),
        );
    }
    if let Some((at, version)) = &version
        && !version.parse::<i16>().is_ok_and(|version| version >= 0)
    {
        refuse(
            &at.path,
            format!("{} is not an API version", quoted(version)),
            "a version is a number from 0 to 32767 in quotes".into(),
        );
    }
    if let Some((at, topic)) = &topic {
        let fits = topic.len() <= MOST_TOPIC
            && topic
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !fits {
            refuse(
                &at.path,
                format!("{} is not a topic", quoted(topic)),
                format!("a topic has at most {MOST_TOPIC} letters, digits, `.`, `_` and `-`"),
            );
        }
    }
}
