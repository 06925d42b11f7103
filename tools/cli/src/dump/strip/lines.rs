//! Texts, line by line, and what goes on over several lines.

use super::Stripper;
use super::keys::{line_end, regions};
use super::looks::{Named, STRIPPED, View, ends_in_base64, is_base64, next_secret};
use super::quotes::{QUOTES, bracket, quote_at};

/// Lines that belong to a name on a line before them, as YAML and printed JSON have them.
struct Block {
    kind: Kind,
    /// Lines that are indented further belong to it.
    indent: usize,
    /// Whether the mark of what was taken out has been written.
    is_written: bool,
}

/// What a block is the value of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A name with nothing behind it: items of a list may stand as far left as the name.
    Items,
    /// A name and a mark of YAML, or a bracket.
    Enclosed,
    /// A name and the first words of a text.
    Plain,
    /// A flag: the next line, wherever it begins.
    Flag,
}

impl Block {
    /// The block that this line begins. `is_crossed` tells that its value ended on a later line.
    fn after(view: &View<'_>, is_crossed: bool) -> Option<Self> {
        let line = view.line();
        let item = item(line);
        let indent = line.len() - item.len();
        let (kind, is_written) = if is_lone_flag(item) {
            (Kind::Flag, false)
        } else if is_crossed {
            return None;
        } else {
            setting(view, item)?
        };
        Some(Self {
            kind,
            indent,
            is_written,
        })
    }

    fn holds(&self, line: &str) -> bool {
        let text = line.trim_start();
        if self.kind == Kind::Flag {
            return !self.is_written && !text.is_empty() && !item(line).starts_with("--");
        }
        if text.is_empty() {
            return self.kind != Kind::Plain;
        }
        let indent = line.len() - text.len();
        let is_item = text.starts_with("- ") || text.trim_end() == "-";
        indent > self.indent || self.kind == Kind::Items && is_item && indent == self.indent
    }
}

/// What goes on behind a line that is a name and its value, and whether some of the value was on that line.
fn setting(view: &View<'_>, item: &str) -> Option<(Kind, bool)> {
    let key = item.trim_start_matches(QUOTES);
    let length = key.find(|c: char| !(c.is_ascii_alphanumeric() || "-_".contains(c)))?;
    let value = key[length..].trim_start_matches(QUOTES);
    let value = value.strip_prefix(':')?;
    let start = view.line().len() - key.len();
    let named = Named::at(view, start, start + length)?;
    if matches!(named, Named::Short { is_login: true, .. }) {
        return None;
    }
    let is_plain = value.starts_with([' ', '\t']) && named == Named::Secret;
    let value = value.trim();
    match value.as_bytes().first() {
        None => Some((Kind::Items, false)),
        Some(_) if is_indicator(value) => Some((Kind::Enclosed, false)),
        Some(b'[' | b'{') => {
            let is_open = bracket(value).is_none();
            is_open.then_some((Kind::Enclosed, value.len() > 1))
        }
        Some(_) => {
            let is_open = is_plain && quote_at(value).is_none();
            is_open.then_some((Kind::Plain, true))
        }
    }
}

/// What stands on a line behind its indentation and the dashes of lists.
fn item(line: &str) -> &str {
    let mut item = line.trim_start();
    while let Some(rest) = item.strip_prefix("- ") {
        item = rest.trim_start();
    }
    item
}

/// Whether a line is a flag for a secret and nothing else, as lists of arguments have it.
fn is_lone_flag(item: &str) -> bool {
    let flag = item.trim_matches(|c: char| c.is_whitespace() || "[\"',".contains(c));
    let name = flag.strip_prefix("--");
    name.is_some_and(|name| {
        let mut bytes = name.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && Named::of(name).is_some_and(Named::is_one)
    })
}

/// Whether a value is the beginning of a YAML block, which may have a tag and a comment.
pub(super) fn is_indicator(value: &str) -> bool {
    let mut words = value.split_whitespace();
    let word = words.find(|word| !word.starts_with(['!', '&']));
    let is_indicator = word.is_some_and(|word| {
        let rest = word.strip_prefix(['|', '>']);
        rest.is_some_and(|rest| rest.bytes().all(|byte| b"+-0123456789".contains(&byte)))
    });
    is_indicator && words.next().is_none_or(|word| word.starts_with('#'))
}

impl Stripper {
    /// A text, by its looks: `password=...` and the like, HTTP authorization and cookies, user information in URLs, private
    /// keys.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for region in regions(text) {
            self.lines(&text[at..region.start], &mut out);
            out.push_str(STRIPPED);
            out.push('\n');
            self.count("private keys");
            at = region.end;
        }
        self.lines(&text[at..], &mut out);
        out
    }

    /// Lines that hold no marks of keys.
    fn lines(&mut self, text: &str, out: &mut String) {
        let (mut at, mut in_base64) = (0, false);
        let mut block: Option<Block> = None;
        while at < text.len() {
            let view = View::new(text, at);
            let (line, end) = (view.line(), view.end());
            // The rest of a key that base64 wrote in lines.
            if in_base64 && is_base64(line) {
                at = end;
                continue;
            }
            in_base64 = ends_in_base64(line);
            if let Some(block) = block.as_mut().filter(|block| block.holds(line)) {
                self.line_of_block(block, line, out);
                at = end;
                continue;
            }
            at = self.line(view, out);
            block = Block::after(&view, at > end);
        }
    }

    fn line_of_block(&mut self, block: &mut Block, line: &str, out: &mut String) {
        let item = item(line);
        let content = item.trim_end();
        // A second pass finds nothing new.
        if content.is_empty() || content == STRIPPED {
            out.push_str(line);
            block.is_written |= !content.is_empty();
        } else if !block.is_written {
            let ending = &item[content.len()..];
            out.push_str(&line[..line.len() - item.len()]);
            out.push_str(STRIPPED);
            out.push_str(ending);
            self.count_looks();
            block.is_written = true;
        }
    }

    /// One line, and the rest of the one where its last value ends. Answers where the next line begins.
    fn line(&mut self, mut view: View<'_>, out: &mut String) -> usize {
        while let Some((before, length)) = next_secret(&view) {
            let (kept, from) = view.rest().split_at(before);
            out.push_str(kept);
            out.push_str(STRIPPED);
            if &from[..length] != STRIPPED {
                self.count_looks();
            }
            view = view.behind(before + length);
        }
        out.push_str(view.line());
        view.end()
    }

    fn count_looks(&mut self) {
        self.count("secrets by their looks in logs, events and messages");
    }
}

/// The end of as many lines as are looked at for the end of a value.
pub(super) fn lines_end(text: &str, most: usize) -> usize {
    (0..most).fold(0, |at, _| line_end(text, at))
}
