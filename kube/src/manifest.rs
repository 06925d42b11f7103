//! Manifests: YAML or JSON files, folders of them, or text, as JSON values with where they stand.

use serde_json::Value;
use serde_saphyr::{MessageFormatter, UserMessageFormatter};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Folders inside folders at most; deeper is a loop of links, not a set of manifests.
const MOST_FOLDERS: usize = 32;

/// Values of one document at most, those that aliases repeat counted each time: the objects of a large cluster in
/// one list fit, a bomb of aliases does not.
const MOST_VALUES: usize = 2_000_000;

/// One object as it was written.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// The file, or `-` for standard input.
    pub file: String,
    /// Which document of the file, from 1; empty documents do not count.
    pub document: usize,
    /// The object.
    pub value: Value,
}

/// Manifests that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A folder, but no manifest in it.
    #[error("{path} holds no .yaml, .yml or .json file")]
    Empty {
        /// Its path.
        path: String,
    },
    /// A file without an object.
    #[error("{file} is empty: it holds no object")]
    NoObject {
        /// The file, or `-`.
        file: String,
    },
    /// Folders nest too deep.
    #[error("{path} lies more than {MOST_FOLDERS} folders deep")]
    TooDeep {
        /// Its path.
        path: String,
    },
    /// Not YAML or JSON.
    #[error("{file}, document {document}{}: {reason}", .line.map(|l| format!(" (line {l})")).unwrap_or_default())]
    Syntax {
        /// The file.
        file: String,
        /// Which document of the file, from 1.
        document: usize,
        /// Line in the file, from 1, where it is known.
        line: Option<usize>,
        /// What the parser says.
        reason: String,
    },
    /// A document that is not an object.
    #[error("{file}, document {document}: not an object with apiVersion and kind")]
    NotAnObject {
        /// The file.
        file: String,
        /// Which document of the file, from 1.
        document: usize,
    },
}

impl ManifestError {
    /// A stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "manifest/unreadable",
            Self::Empty { .. } | Self::TooDeep { .. } => "manifest/no-manifests",
            Self::NoObject { .. } => "manifest/empty",
            Self::Syntax { .. } => "manifest/syntax",
            Self::NotAnObject { .. } => "manifest/not-an-object",
        }
    }

    /// What to try.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "check the path and its permissions; `-` reads standard input"
            }
            Self::Empty { .. } | Self::TooDeep { .. } => "name a file, or a folder of manifests",
            Self::NoObject { .. } => "was it written, and is it the right file?",
            Self::Syntax { .. } => {
                "check quotes, colons and indentation at that line; documents are separated by `---`"
            }
            Self::NotAnObject { .. } => {
                "each document is a mapping that starts with apiVersion and kind"
            }
        }
    }
}

/// Reads files, folders (recursively, in the order of names) and `-` (standard input), in this order.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>, ManifestError> {
    let mut found = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let text = io::read_to_string(io::stdin())
                .map_err(|source| unreadable(Path::new("standard input"), source))?;
            found.extend(not_empty("-", &text)?);
            continue;
        }
        let about = fs::metadata(path).map_err(|source| unreadable(path, source))?;
        if !about.is_dir() {
            found.extend(read_file(path)?);
            continue;
        }
        let mut files = Vec::new();
        collect(path, 0, &mut files)?;
        if files.is_empty() {
            return Err(ManifestError::Empty {
                path: path.display().to_string(),
            });
        }
        // Among others an empty file is nothing to stumble over.
        let before = found.len();
        let mut documents = 0;
        for file in files {
            let text = text_of(&file)?;
            documents += usize::from(!is_blank(&text));
            found.extend(parse(&file.display().to_string(), &text)?);
        }
        if documents == 0 && found.len() == before {
            return Err(ManifestError::NoObject {
                file: path.display().to_string(),
            });
        }
    }
    Ok(found)
}

fn unreadable(path: &Path, source: io::Error) -> ManifestError {
    ManifestError::Unreadable {
        path: path.display().to_string(),
        source,
    }
}

fn text_of(path: &Path) -> Result<String, ManifestError> {
    fs::read_to_string(path).map_err(|source| unreadable(path, source))
}

fn read_file(path: &Path) -> Result<Vec<Manifest>, ManifestError> {
    not_empty(&path.display().to_string(), &text_of(path)?)
}

/// The documents of a text that was named: one without any is a slip.
fn not_empty(file: &str, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    if is_blank(text) {
        return Err(ManifestError::NoObject {
            file: file.to_owned(),
        });
    }
    parse(file, text)
}

/// True for a text of comments, blank lines and document markers alone.
fn is_blank(text: &str) -> bool {
    documents(text)
        .iter()
        .all(|(_, part)| is_blank_document(part))
}

fn is_blank_document(part: &str) -> bool {
    part.lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), ManifestError> {
    if depth > MOST_FOLDERS {
        return Err(ManifestError::TooDeep {
            path: folder.display().to_string(),
        });
    }
    let mut names = fs::read_dir(folder)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|source| unreadable(folder, source))?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let path = entry.path();
        let about = fs::metadata(&path).map_err(|source| unreadable(&path, source))?;
        if about.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|e| extension == *e))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Reads the documents of one text; the items of a `List` become manifests of their own.
pub fn parse(file: &str, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let mut found = Vec::new();
    let mut document = 0;
    for (start, part) in documents(text) {
        if is_blank_document(&part) {
            continue;
        }
        document += 1;
        let value = parse_document(&part).map_err(|(line, reason)| ManifestError::Syntax {
            file: file.to_owned(),
            document,
            line: line.map(|line| start + line),
            reason,
        })?;
        let values = match value {
            Value::Null => Vec::new(),
            Value::Object(mut object)
                if object
                    .get("kind")
                    .and_then(Value::as_str)
                    .is_some_and(|kind| kind.ends_with("List"))
                    && object.get("items").is_some_and(Value::is_array) =>
            {
                match object.remove("items") {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                }
            }
            other => vec![other],
        };
        for value in values {
            if !value.get("kind").is_some_and(Value::is_string) {
                return Err(ManifestError::NotAnObject {
                    file: file.to_owned(),
                    document,
                });
            }
            found.push(Manifest {
                file: file.to_owned(),
                document,
                value,
            });
        }
    }
    Ok(found)
}

/// The documents of a text and the number of lines before each. `---` at the start of a line always
/// begins a document, in block scalars too; parting the text first keeps the parser's limits per object.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut found = vec![(0, String::new())];
    for (number, line) in text.lines().enumerate() {
        let begins = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']));
        match begins {
            Some(rest) => found.push((number, rest.to_owned())),
            None => {
                if let Some((_, part)) = found.last_mut() {
                    // The end marker is no content.
                    if line.trim_end() != "..." {
                        part.push_str(line);
                    }
                }
            }
        }
        if let Some((_, part)) = found.last_mut() {
            part.push('\n');
        }
    }
    found
}

/// Reads one document; an error has its line, if it is known, and the reason.
pub(crate) fn parse_document(text: &str) -> Result<Value, (Option<usize>, String)> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    // YAML 1.2: `name: n` is a name. YAML 1.1 took y, n, yes, no, on and off for booleans.
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_nodes: MOST_VALUES, max_events: 4 * MOST_VALUES },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error
            .location()
            .and_then(|location| usize::try_from(location.line()).ok())
            .filter(|line| *line > 0);
        let reason = match &error {
            // In the parser's own words a bound sounds like its failure.
            serde_saphyr::Error::Budget { .. }
            | serde_saphyr::Error::AliasReplayLimitExceeded { .. } => format!(
                "the document holds more than is read, {MOST_VALUES} values, those that aliases repeat counted each time"
            ),
            // The message alone: the place is said beside it, and how the parser is set up is no reader's business.
            _ => UserMessageFormatter.format_message(&error).into_owned(),
        };
        (line, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_counted_without_the_empty_ones() {
        let text = "# a comment\n---\nkind: A\n---\n\n---\nkind: B\nport: 80\nname: \"80\"\n...\n";
        let found = parse("f.yaml", text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].document, found[1].document), (1, 2));
        assert_eq!(found[1].value["port"], serde_json::json!(80));
        assert_eq!(found[1].value["name"], serde_json::json!("80"));
    }

    #[test]
    fn lists_are_their_items() {
        let text = r#"{"kind":"List","apiVersion":"v1","items":[{"kind":"A"},{"kind":"B"}]}"#;
        assert_eq!(parse("f.json", text).unwrap().len(), 2);
    }

    /// YAML 1.2's core schema, which Kubernetes' tools hold with for these words, too: only `true` and
    /// `false` are booleans.
    #[test]
    fn words_that_yaml_1_1_took_for_booleans_are_strings() {
        let words = [
            "y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off",
            "Off", "OFF",
        ];
        for word in words {
            let text = format!(
                "kind: Pod\nmetadata: {{name: {word}, labels: {{a: {word}, {word}: b}}}}\nlist:\n- {word}\n"
            );
            let value = &parse("f.yaml", &text).unwrap()[0].value;
            let expected = serde_json::json!({
                "kind": "Pod", "metadata": {"name": word, "labels": {"a": word, word: "b"}},
                "list": [word],
            });
            assert_eq!(value, &expected, "{text}");
        }
        for (word, meant) in [
            ("true", true),
            ("True", true),
            ("TRUE", true),
            ("false", false),
        ] {
            let text = format!("kind: Pod\nhostNetwork: {word}\nquoted: '{word}'\n");
            let value = &parse("f.yaml", &text).unwrap()[0].value;
            assert_eq!(value["hostNetwork"], meant, "{text}");
            assert_eq!(value["quoted"], word, "{text}");
        }
    }

    #[test]
    fn a_syntax_error_says_where() {
        let error = parse("f.yaml", "kind: A\n---\nkind: B\nspec: {a: [1\nx: y\n").unwrap_err();
        match &error {
            ManifestError::Syntax { document, line, .. } => {
                assert_eq!(*document, 2);
                assert!(line.is_some_and(|line| line >= 4), "{error}");
            }
            other => panic!("{other}"),
        }
        assert!(matches!(
            parse("f.yaml", "- a\n- b\n"),
            Err(ManifestError::NotAnObject { document: 1, .. })
        ));
    }

    #[test]
    fn a_syntax_error_names_its_place_once() {
        for text in [
            "kind: A\nspec: {a: [1\nx: y\n",
            "kind: Pod\n---\nkind: [\n",
            "kind: A\n\tb: c\n",
            "kind: A\nkind: B\n",
            "kind: A\nb: *nobody\n",
            "kind: 'A\n",
        ] {
            let said = parse("f.yaml", text).unwrap_err().to_string();
            assert_eq!(said.matches("f.yaml").count(), 1, "{said}");
            assert_eq!(said.matches("(line ").count(), 1, "{said}");
            for word in ["option", "Options", "budget", "serde", "visitor", "policy"] {
                assert!(!said.contains(word), "{said}");
            }
        }
    }

    #[test]
    fn an_empty_file_is_an_error_that_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty.yaml");
        for text in ["", "\n\n", "# nothing\n---\n"] {
            fs::write(&file, text).unwrap();
            for path in [file.clone(), folder.path().to_owned()] {
                let error = read(&[path]).unwrap_err();
                assert_eq!(error.code(), "manifest/empty", "{error}");
                assert!(error.to_string().contains("is empty"), "{error}");
            }
        }
        // Among others in a folder it is nothing to stumble over.
        fs::write(folder.path().join("a.yaml"), "kind: A").unwrap();
        assert_eq!(read(&[folder.path().to_owned()]).unwrap().len(), 1);
    }

    #[test]
    fn folders_are_read_in_order_and_recursively() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("b.yaml"), "kind: B").unwrap();
        fs::write(folder.path().join("a.yml"), "kind: A").unwrap();
        fs::write(folder.path().join("notes.txt"), "not: [yaml").unwrap();
        fs::write(folder.path().join("sub/c.json"), r#"{"kind":"C"}"#).unwrap();
        let kinds: Vec<String> = read(&[folder.path().to_owned()])
            .unwrap()
            .iter()
            .map(|manifest| manifest.value["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        assert!(read(&[folder.path().join("missing")]).is_err());
    }
}
