//! Code and documents use the field's terms: words that were given up do not come back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_house::{Findings, read, source};

/// What is not said any more, and what is said instead. Names count as they are spelled; words of the language count
/// in whatever case, with their plural.
const NAMES: &[(&str, &str)] = &[
    ("ASK", "*_TIMEOUT or *_INTERVAL"),
    ("Bearers", "LabelIndex"),
    ("Keeper", "background worker"),
    ("LOOK", "*_INTERVAL"),
    ("Likeness", "ClassKey"),
    ("PATIENCE", "*_TIMEOUT"),
    ("PULSE", "*_INTERVAL"),
    ("SUM", "*_INTERVAL"),
    ("Surroundings", "what it holds, as in PodContext"),
    ("Told", "Reported"),
    ("apart_no_more", "stop_splitting_by_identity"),
    ("feel_pulse", "probe_store"),
    ("let_own_node_pass", "set_allow_localhost"),
    ("parted", "split"),
    ("soil", "mark_dirty"),
];
const WORDS: &[(&str, &str)] = &[
    ("envelope", "outer header, tunnel, encapsulated"),
    ("judge", "evaluate"),
    ("judged", "evaluated"),
    ("small talk", "link-local control traffic"),
];

#[test]
fn words_that_were_given_up_do_not_come_back() {
    let mut findings = Findings::default();
    let files = ["rs", "md", "sh"].map(|extension| source::files(extension).unwrap());
    for path in files.into_iter().flatten() {
        if path.ends_with("house/tests/words.rs") {
            continue;
        }
        let text = read(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let lowered = line.to_lowercase();
            let names = NAMES.iter().filter(|(name, _)| has_word(line, name));
            let words = WORDS.iter().filter(|(word, _)| {
                has_word(&lowered, word) || has_word(&lowered, &format!("{word}s"))
            });
            for (word, instead) in names.chain(words) {
                let place = format!("{}:{}", path.display(), number + 1);
                findings.add(format!("{place}: {word}; rather: {instead}"));
            }
        }
    }
    findings.none_or_panic("words");
}

/// Whether a line has a word that is no part of a longer one; an underscore separates words of a name.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric();
    line.match_indices(word).any(|(at, found)| {
        let before = line[..at].chars().next_back();
        let after = line[at + found.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[test]
fn a_word_is_found_as_a_whole() {
    assert!(has_word("an envelope, opened", "envelope"));
    assert!(has_word("is_judged()", "judged"));
    assert!(!has_word("soiled", "soil") && !has_word("misjudged", "judged"));
    assert!(has_word("const LOOK: u8", "LOOK"));
}
