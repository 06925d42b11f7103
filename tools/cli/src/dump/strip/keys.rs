//! Where private keys in PEM are in a text, whole or cut off.

use super::looks::base64_length;
use std::ops::Range;

/// The shortest line of base64 that is no word of the language, where a mark stands in prose.
const LEAST_AFTER_PROSE: usize = 16;
/// The shortest last word of a line that is a line of a key behind a log's prefix, which differs from line to line.
const LEAST_BEHIND_PREFIX: usize = 40;

/// The marks of one line.
struct Marks {
    first_begin: Option<usize>,
    last_begin: Option<usize>,
    end: Option<usize>,
}

impl Marks {
    fn of(line: &str) -> Self {
        let begins = key_marks(line, "-----BEGIN ");
        Self {
            first_begin: begins.clone().next(),
            last_begin: begins.last(),
            end: key_marks(line, "-----END ").last(),
        }
    }

    /// Whether a key goes on behind the line.
    fn is_open(&self) -> bool {
        self.last_begin > self.end
    }

    /// Whether the line ends a key that began before it.
    fn is_end_only(&self) -> bool {
        let begin = self.first_begin;
        self.end
            .is_some_and(|end| begin.is_none_or(|begin| end < begin))
    }
}

/// Where a line has marks of a private key (RFC 7468; a PGP key's label goes on).
fn key_marks<'a>(line: &'a str, mark: &'a str) -> impl Iterator<Item = usize> + Clone {
    let marks = line.match_indices(mark);
    marks.filter_map(move |(at, _)| {
        let label = line[at + mark.len()..].split("-----").next()?;
        label.contains("PRIVATE KEY").then_some(at)
    })
}

/// The parts of a text that are private keys, in their order.
pub(super) fn regions(text: &str) -> Vec<Range<usize>> {
    let (mut found, mut at, mut floor) = (Vec::new(), 0, 0);
    while at < text.len() {
        let end = line_end(text, at);
        let line = &text[at..end];
        let marks = Marks::of(line);
        let start = match (marks.first_begin, marks.end) {
            (None, None) => {
                at = end;
                continue;
            }
            (_, Some(mark)) if marks.is_end_only() => backward(text, floor..at, &line[..mark]),
            (begin, _) => at + begin.unwrap_or_default(),
        };
        at = match marks.last_begin {
            Some(begin) if marks.is_open() => {
                let is_prose = is_prose(&line[begin..]);
                forward(text, end, &line[..begin], is_prose)
            }
            _ => end,
        };
        floor = at;
        found.push(start..at);
    }
    found
}

/// The end of the line that a place is in, its newline included.
pub(super) fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

/// Whether other text than base64 follows a mark on its line.
fn is_prose(mark: &str) -> bool {
    let rest = mark.splitn(3, "-----").nth(2).unwrap_or_default();
    let rest = bare(rest);
    !rest.is_empty() && base64_length(rest) < rest.len()
}

/// The end of a key whose first line ended here. A key whose end is missing ends with its last line of base64.
fn forward(text: &str, from: usize, prefix: &str, is_prose: bool) -> usize {
    let (mut at, mut last, mut has_base64) = (from, from, false);
    while at < text.len() {
        let end = line_end(text, at);
        let line = &text[at..end];
        let marks = Marks::of(line);
        if marks.end.is_some() && !marks.is_open() {
            return end;
        }
        let body = body(line, prefix);
        let is_base64 = is_key_base64(body, is_prose);
        let is_mark = marks.last_begin.is_some();
        if is_mark || is_base64 || is_header(body) && !has_base64 && !is_prose {
            last = end;
        } else if !body.is_empty() {
            return last;
        }
        has_base64 |= is_base64;
        at = end;
    }
    last
}

/// The start of a key whose last line is behind this part of the text.
fn backward(text: &str, part: Range<usize>, prefix: &str) -> usize {
    let (mut at, mut first, mut has_base64) = (part.end, part.end, false);
    while at > part.start {
        let start = text[part.start..at - 1].rfind('\n');
        let start = start.map_or(part.start, |newline| part.start + newline + 1);
        let body = body(&text[start..at], prefix);
        let is_base64 = is_key_base64(body, false);
        // Headers stand before the base64.
        if is_base64 || has_base64 && is_header(body) {
            first = start;
        } else if !body.is_empty() {
            return first;
        }
        has_base64 |= is_base64;
        at = start;
    }
    first
}

/// A line without the prefix of the mark's line, and without what source code and quotations put around it.
fn body<'a>(line: &'a str, prefix: &str) -> &'a str {
    bare(line.strip_prefix(prefix).unwrap_or(line))
}

fn bare(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || "|>#*\"',;\\".contains(c))
}

fn is_key_base64(body: &str, is_prose: bool) -> bool {
    let length = base64_length(body);
    let least = if is_prose { LEAST_AFTER_PROSE } else { 1 };
    if length == body.len() {
        return length >= least;
    }
    let word = body.split_whitespace().next_back().unwrap_or_default();
    word.len() >= LEAST_BEHIND_PREFIX && base64_length(word) == word.len()
}

/// A header of RFC 1421 or of a PGP armor.
fn is_header(body: &str) -> bool {
    body.split_once(": ").is_some_and(|(name, _)| {
        let mut bytes = name.bytes();
        !name.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}
