//! Commands in README, CONTRIBUTING and docs/ are ones that exist; those that need no root are run.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test ends where it cannot go on.

use heddle_house::document::{self, Command, Fence};
use heddle_house::{Findings, read, root, source};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};

/// The heddle command: built by whoever runs the suite (HEDDLE), else here.
fn heddle() -> PathBuf {
    if let Some(path) = std::env::var_os("HEDDLE") {
        return path.into();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Process::new(cargo)
        .args(["build", "-p", "heddle", "--message-format", "json"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo build -p heddle failed");
    let messages = String::from_utf8(output.stdout).unwrap();
    let marker = "\"executable\":\"";
    let path = messages
        .lines()
        .filter_map(|line| line.split_once(marker))
        .filter_map(|(_, rest)| rest.split('"').next())
        .find(|path| path.ends_with("/heddle"));
    path.map(PathBuf::from)
        .expect("cargo names no heddle executable")
}

fn run(program: &Path, arguments: &[String]) -> Output {
    Process::new(program)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn ask_help(heddle: &Path, verbs: &[String]) -> Result<String, String> {
    let mut asked = verbs.to_vec();
    asked.push("--help".to_owned());
    let output = run(heddle, &asked);
    if !output.status.success() {
        return Err(format!("`heddle {}` fails", asked.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn make_targets() -> BTreeSet<String> {
    read("Makefile")
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(_, rest)| !rest.starts_with('='))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .collect()
}

/// Checks `heddle VERB... --flag`: verbs as far as `--help` lists commands, flags as the last help has them.
fn check_words(heddle: &Path, command: &Command) -> Result<(), String> {
    let own: Vec<&String> = command.words[1..]
        .iter()
        .take_while(|word| *word != "--")
        .collect();
    let mut verbs: Vec<String> = Vec::new();
    let mut help = ask_help(heddle, &verbs)?;
    for word in &own {
        let Some((_, commands)) = help.split_once("Commands:") else {
            break;
        };
        let listed = commands
            .lines()
            .any(|line| line.split_whitespace().next() == Some(word.as_str()));
        if !listed {
            return Err(format!("`heddle {}` has no {word}", verbs.join(" ")));
        }
        verbs.push((*word).clone());
        help = ask_help(heddle, &verbs)?;
    }
    for flag in own.iter().filter(|word| word.starts_with('-')) {
        let name = flag.split('=').next().unwrap_or(flag);
        let known = help
            .split(|c: char| c.is_whitespace() || c == ',' || c == '[' || c == ']')
            .any(|word| word.split(['=', '<']).next() == Some(name));
        if !known {
            return Err(format!("`heddle {}` has no {name}", verbs.join(" ")));
        }
    }
    Ok(())
}

fn check(heddle: &Path, command: &Command) -> Result<(), String> {
    match command.words[0].as_str() {
        "make" => {
            let targets = make_targets();
            match command.words[1..]
                .iter()
                .find(|word| !word.contains('=') && !targets.contains(*word))
            {
                Some(word) => Err(format!("the Makefile has no {word}")),
                None => Ok(()),
            }
        }
        "heddle" => {
            check_words(heddle, command)?;
            let Fence::Runs(wanted) = command.fence else {
                return Ok(());
            };
            let output = run(heddle, &command.words[1..]);
            match output.status.code() {
                Some(code) if code == wanted => Ok(()),
                code => Err(format!(
                    "ends with {code:?}, not {wanted}: {}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                )),
            }
        }
        other => Err(format!(
            "no test knows how to run {other}; use a console block"
        )),
    }
}

#[test]
fn commands_in_documents_work() {
    let heddle = heddle();
    let mut findings = Findings::default();
    let mut checked = 0;
    for file in source::files("md").unwrap() {
        for command in document::commands(&file).unwrap() {
            checked += 1;
            if let Err(why) = check(&heddle, &command) {
                findings.add(format!(
                    "{}:{}: {}: {why}",
                    file.display(),
                    command.line,
                    command.words.join(" ")
                ));
            }
        }
    }
    assert!(checked > 20, "only {checked} commands were found");
    println!("{checked} commands checked");
    findings.none_or_panic("commands in documents");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut findings = Findings::default();
    for file in source::files("md").unwrap() {
        let text = read(&file).unwrap();
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.starts_with("http") {
                continue;
            }
            let beside = root().join(&file).parent().unwrap().join(path);
            if !beside.exists() {
                findings.add(format!("{}: {target}", file.display()));
            }
        }
    }
    findings.none_or_panic("links");
}

#[test]
fn make_help_lists_every_target() {
    let makefile = read("Makefile").unwrap();
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY:"))
        .unwrap();
    let named: BTreeSet<String> = phony.split_whitespace().map(str::to_owned).collect();
    assert_eq!(named, make_targets());
    for target in named {
        let described = makefile
            .lines()
            .any(|line| line.starts_with(&format!("{target}:")) && line.contains("## "));
        assert!(described, "make {target} has no description");
    }
}

#[test]
fn every_declared_package_is_documented() {
    let lists = read("scripts/packages.sh").unwrap();
    let guide = read("CONTRIBUTING.md").unwrap();
    let mut findings = Findings::default();
    let mut seen = 0;
    for line in lists.lines() {
        let Some((name, packages)) = line.split_once("_packages=(") else {
            continue;
        };
        if name == "given" {
            continue;
        }
        for package in packages.trim_end_matches(')').split_whitespace() {
            seen += 1;
            if !guide.contains(package) {
                findings.add(format!("CONTRIBUTING.md does not name {package}"));
            }
        }
    }
    assert!(seen > 10, "only {seen} packages were read");
    findings.none_or_panic("packages");
}
