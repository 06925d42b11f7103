//! DNS names and patterns as policies write them (reference 1.5).

use super::{
    fields::Field,
    problems::{Problems, quoted},
};

/// Bytes of a name or pattern at most.
const MOST_BYTES: usize = 255;

/// Checks a `matchName`: `^([-a-zA-Z0-9_]+[.]?)+$`, at most 255 bytes.
pub(super) fn check_name(field: &Field<'_>, problems: &mut Problems) {
    check(field, false, problems);
}

/// Checks a `matchPattern` or a server name: a name in which `*` may stand anywhere.
pub(super) fn check_pattern(field: &Field<'_>, problems: &mut Problems) {
    check(field, true, problems);
}

fn check(field: &Field<'_>, pattern: bool, problems: &mut Problems) {
    let Some(text) = field.text(problems) else {
        return;
    };
    let help = if text.len() > MOST_BYTES {
        "a DNS name has at most 255 characters".to_owned()
    } else if text.contains("://") || text.contains('/') {
        "write the host's name alone, without scheme and path".to_owned()
    } else if !pattern && text.contains('*') {
        "write it as matchPattern".to_owned()
    } else if text.is_empty() || text.starts_with('.') || text.contains("..") {
        "write labels with one `.` between them, for example example.com".to_owned()
    } else if is_name(text, pattern) {
        return;
    } else if pattern {
        "a pattern has letters, digits, `-`, `_`, `.` and `*`".to_owned()
    } else {
        "a name has letters, digits, `-`, `_` and `.`".to_owned()
    };
    problems.error(
        "policy/invalid-name-match",
        field.path.clone(),
        format!(
            "{} is not a DNS {}",
            quoted(text),
            if pattern { "pattern" } else { "name" }
        ),
        help,
    );
}

/// The grammar itself; a final dot is allowed.
fn is_name(text: &str, pattern: bool) -> bool {
    let body = text.strip_suffix('.').unwrap_or(text);
    text.len() <= MOST_BYTES
        && body.split('.').all(|label| {
            !label.is_empty()
                && label.chars().all(|c| {
                    c.is_ascii_alphanumeric() || matches!(c, '-' | '_') || (pattern && c == '*')
                })
        })
}

/// Checks one `{matchName | matchPattern}`: exactly one of the two.
pub(super) fn check_match(field: &Field<'_>, problems: &mut Problems) {
    if !field.object(&["matchName", "matchPattern"], &[], problems) {
        return;
    }
    match (field.get("matchName"), field.get("matchPattern")) {
        (Some(name), None) => check_name(&name, problems),
        (None, Some(pattern)) => check_pattern(&pattern, problems),
        (Some(name), Some(pattern)) => {
            check_name(&name, problems);
            check_pattern(&pattern, problems);
            problems.error(
                "policy/invalid-name-match",
                field.path.clone(),
                "only one of matchName and matchPattern may be given",
                "write them as two entries",
            );
        }
        (None, None) => problems.error(
            "policy/invalid-name-match",
            field.path.clone(),
            "one of matchName and matchPattern must be given",
            "write matchName: HOST, or matchPattern: \"*\" for every name",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_have_a_grammar() {
        for (text, name, pattern) in [
            ("cilium.io", true, true),
            ("cilium.io.", true, true),
            ("_foobar._tcp.cilium.io", true, true),
            ("a", true, true),
            ("*", false, true),
            ("*.cilium.io", false, true),
            ("**.cilium.io", false, true),
            ("sub*.ci**.io", false, true),
            ("", false, false),
            (".", false, false),
            (".io", false, false),
            ("a..b", false, false),
            ("a b", false, false),
            ("http://a", false, false),
            ("bücher.example", false, false),
            ("a.io..", false, false),
        ] {
            assert_eq!(is_name(text, false), name, "{text:?} as a name");
            assert_eq!(is_name(text, true), pattern, "{text:?} as a pattern");
        }
        assert!(is_name(&"a".repeat(255), false));
        assert!(!is_name(&"a".repeat(256), false));
    }
}
