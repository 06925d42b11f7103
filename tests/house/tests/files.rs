//! Every file says at its top what it holds, stays short, and accounts for its `unsafe`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_house::{Findings, read, source};

/// Hard stop; most files stay under half of it.
const LONGEST: usize = 800;

/// Names under which anything could be hidden.
const VAGUE_NAMES: &[&str] = &["util", "utils", "misc", "helpers", "common"];

#[test]
fn files_are_short_and_say_what_they_hold() {
    let mut findings = Findings::default();
    let files = source::files("rs").unwrap();
    assert!(files.len() > 20, "only {} files were found", files.len());
    for path in files {
        let text = read(&path).unwrap();
        let shown = path.display();
        let lines = text.lines().count();
        if lines > LONGEST {
            findings.add(format!("{shown}: {lines} lines, at most {LONGEST}"));
        }
        match text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//!"))
        {
            None => findings.add(format!("{shown}: does not start with a //! line")),
            Some(line) if line.trim().len() < 10 || line.trim().starts_with('(') => {
                findings.add(format!("{shown}: its //! line says nothing"));
            }
            Some(_) => {}
        }
        for part in path.with_extension("").iter() {
            if VAGUE_NAMES.contains(&part.to_string_lossy().as_ref()) {
                findings.add(format!(
                    "{shown}: '{}' names no content",
                    part.to_string_lossy()
                ));
            }
        }
    }
    findings.none_or_panic("files");
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut findings = Findings::default();
    for path in source::files("rs").unwrap() {
        let text = read(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = ["unsafe {", "unsafe impl"]
                .iter()
                .any(|start| code.contains(start));
            let quoted = code.contains("\"unsafe");
            if !opens || quoted {
                continue;
            }
            let above = &lines[number.saturating_sub(8)..=number];
            if !above.iter().any(|line| line.contains("SAFETY:")) {
                findings.add(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    findings.none_or_panic("unsafe without a SAFETY line");
}
