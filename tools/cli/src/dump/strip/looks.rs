//! Secrets in texts, by their looks: the name before them, their form, and the marks of private keys.

use super::keys::line_end;
use super::lines::{is_indicator, lines_end};
use super::quotes::{
    QUOTES, Wrapper, closing, listed, quote_at, quote_before, quoted, token_length, word_length,
};
use std::ops::Range;

/// What stands where something was taken out.
pub(crate) const STRIPPED: &str = "(stripped)";
/// Words at the end of a name whose value is a secret, in lower case, `-` and `_` left out; their plurals are meant as well.
const SECRET_NAMES: [&str; 23] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "signingkey",
    "encryptionkey",
    "clientkey",
    "sessionkey",
    "masterkey",
    "sharedkey",
    "accountkey",
    "sshkey",
    // Of a kubeconfig: `client-key-data`.
    "keydata",
    "authorization",
    "credential",
    // Logins to registries.
    "dockercfg",
    "dockerconfigjson",
    "cookie",
];
/// Last words of names that are short, and words of the language as well.
const SHORT_NAMES: [&str; 3] = ["pass", "pwd", "auth"];
/// Words before a secret of an HTTP authorization.
const SCHEMES: [&str; 2] = ["Bearer ", "Basic "];
/// Base64 of `-----BEGIN`, of whatever: a key may follow a certificate.
const PEM_IN_BASE64: &str = "LS0tLS1CRUdJTi";
/// Bytes of a value that are looked at to see whether it is a number, or a login in base64.
const MOST_OF_A_WORD: usize = 512;
/// Lines that are looked at for the end of a value that its line does not end.
const MOST_LINES_AHEAD: usize = 64;
/// Bytes that are looked at for it.
const MOST_AHEAD: usize = 64 << 10;
/// Base64 of what gzip, ZIP and JSON begin with.
const PACKED: [&str; 3] = ["H4sI", "UEsD", "eyJ"];
/// Bytes of such base64 that may be a word or a number of a version.
const MOST_UNPACKED: usize = 64;

/// What a name says of its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// A secret.
    Secret,
    /// Secrets, or a count of them.
    Secrets,
    /// HTTP authorization: the rest of the line.
    Authorization,
    /// Cookies, the rest of the line, or a number that is called so.
    Cookie,
    /// A secret, if the value looks like one: the name's last word is one of [`SHORT_NAMES`], alone or behind others.
    Short { is_login: bool, is_alone: bool },
}

impl Named {
    pub(super) fn of(name: &str) -> Option<Self> {
        let plain: String = name
            .chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let ends = |text: &str| SECRET_NAMES.into_iter().find(|word| text.ends_with(word));
        let found = match ends(&plain) {
            Some(word) => Some((word, Self::Secret)),
            None => plain
                .strip_suffix('s')
                .and_then(ends)
                .map(|word| (word, Self::Secrets)),
        };
        match found {
            Some(("authorization", _)) => Some(Self::Authorization),
            Some(("cookie", _)) => Some(Self::Cookie),
            Some((_, named)) => Some(named),
            None => {
                let word = last_word(name);
                let known = SHORT_NAMES
                    .into_iter()
                    .find(|known| word.eq_ignore_ascii_case(known))?;
                Some(Self::Short {
                    is_login: known == "auth",
                    is_alone: word.len() == name.len(),
                })
            }
        }
    }

    /// What the name at this place of a line says, or the name beside it where this is its value's.
    pub(super) fn at(view: &View<'_>, start: usize, end: usize) -> Option<Self> {
        let name = &view.line()[start..end];
        Self::of(name).or_else(|| {
            let is_value = name.eq_ignore_ascii_case("value");
            is_value.then(|| {
                paired_before(view.before(start)).or_else(|| paired_behind(&view.line()[end..]))
            })?
        })
    }

    /// Whether the name is that of one secret that is no HTTP header.
    pub(super) const fn is_one(self) -> bool {
        matches!(
            self,
            Self::Secret
                | Self::Short {
                    is_login: false,
                    ..
                }
        )
    }

    /// Whether the value goes on to the end of the line where nothing encloses it.
    const fn is_whole_line(self) -> bool {
        matches!(self, Self::Authorization | Self::Cookie)
    }

    /// Whether a value that nothing encloses is what the name says.
    fn fits(self, value: &str, separator: char) -> bool {
        // A line may hold very many names, and what follows each is long.
        let value = &value[..value.floor_char_boundary(MOST_OF_A_WORD)];
        let word = &value[..token_length(value)];
        let is_number = || !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        match self {
            Self::Secret | Self::Authorization => true,
            Self::Secrets | Self::Cookie => !is_number(),
            Self::Short { is_login: true, .. } => is_login(word),
            Self::Short { is_alone, .. } => {
                !is_alone || separator == '=' && !is_number() && !word.starts_with('/')
            }
        }
    }
}

/// Whether texts under this name are secrets.
pub(super) fn is_secret_name(name: &str) -> bool {
    Named::of(name).is_some()
}

/// Whether numbers under this name are secrets, too: those under other names are counts and the like.
pub(super) fn is_name_of_one_secret(name: &str) -> bool {
    Named::of(name) == Some(Named::Secret)
}

/// The last word of a name: `DB_PASS`, `db-pass` and `dbPass` end with the same one.
fn last_word(name: &str) -> &str {
    let word = name
        .rsplit(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or_default();
    let bytes = word.as_bytes();
    let begin = (1..bytes.len())
        .rev()
        .find(|at| bytes[*at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase());
    // Both sides of it are ASCII letters.
    begin.and_then(|at| word.get(at..)).unwrap_or(word)
}

/// What is looked at: a text from a place in one of its lines on.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    text: &'a str,
    line_start: usize,
    start: usize,
    end: usize,
}

impl<'a> View<'a> {
    /// A text from a line on that begins here.
    pub(super) fn new(text: &'a str, start: usize) -> Self {
        Self {
            text,
            line_start: start,
            start,
            end: line_end(text, start),
        }
    }

    /// The same further on, which may be in a later line.
    pub(super) fn behind(mut self, length: usize) -> Self {
        self.start += length;
        if self.start > self.end {
            self.end = line_end(self.text, self.start);
        }
        self
    }

    /// The rest of the line.
    pub(super) fn line(&self) -> &'a str {
        &self.text[self.start..self.end]
    }

    /// The rest of the text.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.start..]
    }

    /// Where the line ends.
    pub(super) const fn end(&self) -> usize {
        self.end
    }

    const fn is_whole(&self) -> bool {
        self.start == self.line_start
    }

    /// The text from a place in this line on, as far as a value is followed.
    fn ahead(&self, at: usize) -> &'a str {
        let from = self.start + at;
        let most = self.text.floor_char_boundary(from + MOST_AHEAD);
        let text = &self.text[from..most];
        &text[..lines_end(text, MOST_LINES_AHEAD)]
    }

    /// What stands before a place in this line; where the line begins with it, the line before as well.
    fn before(&self, at: usize) -> &'a str {
        let before = &self.line()[..at];
        let indentation = before.trim_end_matches(QUOTES);
        if !self.is_whole() || self.start == 0 || !is_start(indentation) {
            return before;
        }
        let previous = self.text[..self.start - 1].rfind('\n');
        &self.text[previous.map_or(0, |newline| newline + 1)..self.start + at]
    }
}

/// Whether nothing but indentation and dashes of lists stands before a name on its line.
fn is_start(before: &str) -> bool {
    before.trim_start_matches([' ', '\t', '-']).is_empty()
}

/// Where the first secret of a line begins, and its length. Looks no further than that: a line may hold very many.
pub(super) fn next_secret(view: &View<'_>) -> Option<(usize, usize)> {
    let line = view.line();
    let mut before = ' ';
    line.char_indices().find_map(|(at, character)| {
        let here = &line[at..];
        let is_first = !(before.is_ascii_alphanumeric() || before == '-');
        before = character;
        match character {
            '=' => assigned(view, at),
            ':' => {
                assigned(view, at).or_else(|| user(here).map(|(from, length)| (at + from, length)))
            }
            'B' => {
                let scheme = SCHEMES.iter().find(|scheme| here.starts_with(**scheme))?;
                let at = at + scheme.len();
                let length = token_length(&line[at..]);
                // Shorter words are language.
                (length >= 8).then_some((at, length))
            }
            'L' if here.starts_with(PEM_IN_BASE64) => Some((at, base64_length(here))),
            'H' | 'U' | 'e' if is_first => packed_length(here).map(|length| (at, length)),
            '-' if is_first && here.starts_with("--") => flag(view, at),
            '@' => login(line, at),
            _ => None,
        }
    })
}

/// The length of what a text begins with, if that is long, and compressed, an archive, or JSON, in base64.
pub(super) fn packed_length(text: &str) -> Option<usize> {
    PACKED.iter().find(|mark| text.starts_with(**mark))?;
    let mut length = base64_length(text);
    // Parts of a JSON Web Token.
    while text[length..].starts_with('.') {
        length += 1 + base64_length(&text[length + 1..]);
    }
    (length > MOST_UNPACKED).then_some(length)
}

/// The value of a flag for a secret: the next word, or the next text of a list.
fn flag(view: &View<'_>, at: usize) -> Option<(usize, usize)> {
    let name = &view.line()[at + 2..];
    let length = name
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        .unwrap_or(name.len());
    let named = Named::of(&name[..length])?;
    let after = &name[length..];
    let closed = quote_at(after).map_or(0, |(_, escapes)| escapes + 1);
    let value = after[closed..].trim_start_matches([' ', '\t', ',']);
    let begin = view.line().len() - value.len();
    if begin == at + 2 + length + closed || value.starts_with('-') || !named.is_one() {
        return None;
    }
    let (from, length) = match quote_at(value) {
        Some(quote) => enclosed(view, begin, quote),
        None if named.fits(value, '=') => (0, word_length(value)),
        None => return None,
    };
    (length > 0).then_some((begin + from, length))
}

/// `user:password` before the address of a Go data source name, as in `user:password@tcp(host:3306)/name`.
fn login(line: &str, at: usize) -> Option<(usize, usize)> {
    let network = &line[at + 1..];
    let end = network.find(|c: char| !c.is_ascii_alphanumeric())?;
    if end == 0 || !network[end..].starts_with('(') {
        return None;
    }
    let floor = line.ceil_char_boundary(at.saturating_sub(MOST_OF_A_WORD));
    let before = &line[floor..at];
    let word = before.rfind(|c: char| c.is_whitespace() || QUOTES.contains(&c));
    let word = &before[word.map_or(0, |it| {
        it + before[it..].chars().next().map_or(1, char::len_utf8)
    })..];
    let user = word.split_once(':')?.0;
    let from = user.rfind(['=', '(', '[', '{', ',']).map_or(0, |it| it + 1);
    let length = word.len() - from;
    Some((at - length, length))
}

/// Whether the line ends inside a PEM block in base64, whose next lines are of it, too.
pub(super) fn ends_in_base64(line: &str) -> bool {
    let line = line.trim_end();
    line.rfind(PEM_IN_BASE64)
        .is_some_and(|at| at + base64_length(&line[at..]) == line.len())
}

/// Whether a line holds nothing but base64.
pub(super) fn is_base64(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && base64_length(line) == line.len()
}

/// The length of the user information at the start of a host, without its `@`.
pub(super) fn user_length(host: &str) -> Option<usize> {
    let host = host.split(['/', ' ', '"', '\'', '?']).next()?;
    host.rfind('@').filter(|end| *end > 0)
}

/// The user information of a URL, from its `://` on.
fn user(text: &str) -> Option<(usize, usize)> {
    let begin = "://";
    let host = text.strip_prefix(begin)?;
    let plain = user_length(host);
    let length = long_user_length(host, plain).or(plain)?;
    Some((begin.len(), length))
}

/// The length of user information whose password has marks of a path or a query, as it should not.
fn long_user_length(host: &str, plain: Option<usize>) -> Option<usize> {
    let host = &host[..host.floor_char_boundary(MOST_OF_A_WORD)];
    let host = &host[..=host.rfind('@')?];
    let host = &host[..host
        .find(|c: char| c.is_whitespace() || QUOTES.contains(&c))
        .unwrap_or(host.len())];
    let last = host.rfind('@')?;
    let begin = plain.map_or(host, |plain| &host[..plain]);
    let (user, password) = begin.split_once(':')?;
    let password = password.split(['/', '?', '#', '@']).next()?;
    let is_port = password.bytes().all(|byte| byte.is_ascii_digit());
    // An address in a path or a query is no user, unless nothing else can be.
    let is_query = |plain: usize| host[plain..last].contains('=');
    let is_path = plain.map_or(is_port, is_query);
    (!is_path && !user.contains(['/', '?', '[', '('])).then_some(last)
}

/// The value behind an `=` or `:` at this place, if the name before it is a secret's.
fn assigned(view: &View<'_>, at: usize) -> Option<(usize, usize)> {
    let line = view.line();
    // Quotes may be escaped, in JSON inside a text.
    let name = line[..at].trim_end_matches(['"', '\'', ' ', '\\', ']']);
    let end = name.len();
    let start = end - name_at_end(name).len();
    let named = Named::at(view, start, end)?;
    // `:=`, `=>` and the like.
    let value = line[at + 1..]
        .trim_start_matches(['=', '>'])
        .trim_start_matches([' ', '\t']);
    let begin = line.len() - value.len();
    let (from, length) = if let Some(quote) = quote_at(value) {
        enclosed(view, begin, quote)
    } else if value.starts_with(['[', '{']) {
        match named {
            Named::Short { .. } => return None,
            _ => listed(value, || view.ahead(begin)),
        }
    } else {
        bare(view, named, start..end, at, begin)?
    };
    (length > 0).then_some((begin + from, length))
}

/// The secret in a value that begins here and that nothing encloses, of the name at this place, with its separator behind.
fn bare(
    view: &View<'_>,
    named: Named,
    name: Range<usize>,
    separator: usize,
    begin: usize,
) -> Option<(usize, usize)> {
    let (line, value) = (view.line(), &view.line()[begin..]);
    let is_adjacent = name.end == separator;
    let separator = line[separator..].chars().next()?;
    // A line of YAML or of settings.
    let is_setting = separator == ':'
        && is_adjacent
        && begin > name.end + 1
        && view.is_whole()
        && is_start(&line[..name.start]);
    let fits = named.fits(value, if is_setting { '=' } else { separator });
    if !fits || is_setting && is_indicator(value) {
        return None;
    }
    if let Some(wrapper) = Wrapper::of(value) {
        return Some(wrapped(view, begin, &wrapper));
    }
    let length = if is_setting && named.is_one() {
        value.trim_end().len()
    } else if named.is_whole_line() {
        // A quote before the name encloses both, unless it ended with the name.
        let opened = quote_before(&line[..name.start]).filter(|_| is_adjacent);
        let closed = opened.and_then(|(quote, escapes)| closing(value, quote, escapes));
        closed.map_or_else(|| value.trim_end().len(), |closed| closed.content)
    } else {
        word_length(value)
    };
    Some((0, length))
}

/// The content of a quoted text that begins here.
fn enclosed(view: &View<'_>, at: usize, (quote, escapes): (char, usize)) -> (usize, usize) {
    let from = escapes + 1;
    let (skipped, length) = quoted(
        &view.line()[at + from..],
        || view.ahead(at + from),
        quote,
        escapes,
    );
    (from + skipped, length)
}

/// The content of a value of the language that wrote it.
fn wrapped(view: &View<'_>, at: usize, wrapper: &Wrapper) -> (usize, usize) {
    let skipped = match *wrapper {
        Wrapper::Call(skipped) | Wrapper::Prefix(skipped, _) => skipped,
    };
    let (from, length) = match *wrapper {
        Wrapper::Call(_) => listed(&view.line()[at + skipped..], || view.ahead(at + skipped)),
        Wrapper::Prefix(_, quote) => enclosed(view, at + skipped, quote),
    };
    (skipped + from, length)
}

/// The name that a text ends with.
fn name_at_end(text: &str) -> &str {
    let start = text.rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    &text[start.map_or(0, |it| {
        it + text[it..].chars().next().map_or(1, char::len_utf8)
    })..]
}

/// What stands between the parts of a pair, in JSON, in YAML, and in JSON inside a text.
const BETWEEN: [char; 8] = ['"', '\'', ' ', '\t', '\\', ',', '\n', '\r'];

/// What the `name` says that stands just before a `value`.
fn paired_before(before: &str) -> Option<Named> {
    let before = before.trim_end_matches(BETWEEN);
    let name = name_at_end(before);
    let key = before[..before.len() - name.len()].trim_end_matches(BETWEEN);
    let key = key.strip_suffix([':', '='])?.trim_end_matches(BETWEEN);
    let key = name_at_end(key);
    let is_name = ["name", "key"]
        .iter()
        .any(|word| key.eq_ignore_ascii_case(word));
    is_name.then(|| Named::of(name)).flatten()
}

/// What the `name` says that stands just behind a quoted `value`.
fn paired_behind(text: &str) -> Option<Named> {
    let text = &text[..text.floor_char_boundary(MOST_OF_A_WORD)];
    let value = text
        .trim_start_matches(['"', '\'', '\\'])
        .strip_prefix(':')?
        .trim_start();
    let (quote, escapes) = quote_at(value)?;
    let content = &value[escapes + 1..];
    let behind = &content[closing(content, quote, escapes)?.quote + 1..];
    let key = behind.trim_start_matches(BETWEEN).strip_prefix("name")?;
    let name = key.trim_start_matches(BETWEEN).strip_prefix(':')?;
    let name = name.trim_start_matches(BETWEEN);
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))?;
    Named::of(&name[..end])
}

/// Bytes of base64 at the start of a text; ends of its lines may be escaped.
pub(super) fn base64_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        at += match &bytes[at..] {
            [byte, ..] if byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte) => 1,
            [b'\\', b'n' | b'r', ..] => 2,
            _ => return at,
        };
    }
}

/// Whether a word is `user:password` in base64.
fn is_login(word: &str) -> bool {
    let mut decoded = Vec::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in word.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return false,
        };
        held = (held << 6) | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            decoded.push((held >> bits).to_le_bytes()[0]);
        }
    }
    let decoded = std::str::from_utf8(&decoded);
    decoded.is_ok_and(|text| text.contains(':') && !text.contains(char::is_control))
}
