//! Secrets in texts, by their looks: the name before them, their form, and the marks of private keys.

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
/// What encloses names and values.
const QUOTES: [char; 2] = ['"', '\''];

/// What a name says of its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
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
    fn of(name: &str) -> Option<Self> {
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

/// Where the first secret of a line begins, and its length. Looks no further than that: a line may hold very many.
pub(super) fn next_secret(line: &str) -> Option<(usize, usize)> {
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
            'L' if here.starts_with(PEM_IN_BASE64) => Some((at, base64_length(here))),
            _ => None,
        }
    })
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

/// Where a line has marks of a private key (RFC 7468; a PGP key's label goes on).
pub(super) fn key_marks<'a>(
    line: &'a str,
    mark: &'a str,
) -> impl Iterator<Item = usize> + Clone + use<'a> {
    let marks = line.match_indices(mark);
    marks.filter_map(move |(at, _)| {
        let label = line[at + mark.len()..].split("-----").next()?;
        label.contains("PRIVATE KEY").then_some(at)
    })
}

/// The length of the user information at the start of a host, without its `@`.
pub(super) fn user_length(host: &str) -> Option<usize> {
    let host = host.split(['/', ' ', '"', '\'', '?']).next()?;
    host.rfind('@').filter(|end| *end > 0)
}

/// The user information of a URL, from its `://` on.
fn user(text: &str) -> Option<(usize, usize)> {
    let begin = "://";
    let length = user_length(text.strip_prefix(begin)?)?;
    Some((begin.len(), length))
}

/// The value behind an `=` or `:` at this place, if the name before it is a secret's.
fn assigned(line: &str, at: usize) -> Option<(usize, usize)> {
    // Quotes may be escaped, in JSON inside a text.
    let name = line[..at].trim_end_matches(['"', '\'', ' ', '\\', ']']);
    let end = name.len();
    let start = name
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        .map_or(0, |it| {
            it + name[it..].chars().next().map_or(1, char::len_utf8)
        });
    let named = Named::of(&name[start..])?;
    let separator = line[at..].chars().next()?;
    // `:=`, `=>` and the like.
    let value = line[at + 1..]
        .trim_start_matches(['=', '>'])
        .trim_start_matches([' ', '\t']);
    let begin = line.len() - value.len();
    let (from, length) = if let Some((quote, escapes)) = quote_at(value) {
        let (from, length) = quoted(&value[escapes + 1..], quote, escapes);
        (escapes + 1 + from, length)
    } else if value.starts_with(['[', '{']) {
        match named {
            Named::Short { .. } => return None,
            _ => listed(value),
        }
    } else if !named.fits(value, separator) {
        return None;
    } else if named.is_whole_line() {
        // A quote before the name encloses both, unless it ended with the name.
        let opened = quote_before(&line[..start]).filter(|_| end == at);
        let closed = opened.and_then(|(quote, escapes)| closing(value, quote, escapes));
        let length = closed.map_or_else(|| value.trim_end().len(), |closed| closed.content);
        (0, length)
    } else {
        (0, token_length(value))
    };
    (length > 0).then_some((begin + from, length))
}

/// The quote that a text begins with, and the backslashes before it.
fn quote_at(text: &str) -> Option<(char, usize)> {
    let escapes = text.bytes().take_while(|byte| *byte == b'\\').count();
    let quote = text[escapes..].chars().next()?;
    QUOTES.contains(&quote).then_some((quote, escapes))
}

/// The quote that a text ends with, and the backslashes before it.
fn quote_before(text: &str) -> Option<(char, usize)> {
    let quote = text.chars().next_back().filter(|c| QUOTES.contains(c))?;
    let before = &text[..text.len() - 1];
    let escapes = before.bytes().rev().take_while(|byte| *byte == b'\\');
    Some((quote, escapes.count()))
}

/// Where the content of a quoted text is, behind its first quote: up to the last, or to the end of the line without one.
fn quoted(text: &str, quote: char, escapes: usize) -> (usize, usize) {
    let mut from = 0;
    // Tables of values between commas double a quote instead of escaping it.
    while text[from..].starts_with(quote) && token_length(&text[from + 1..]) > 0 {
        from += 1;
    }
    let content = &text[from..];
    let closed = closing(content, quote, escapes);
    let length = closed.map_or_else(|| content.trim_end().len(), |closed| closed.content);
    (from, length)
}

/// Where a quoted text ends.
struct Closed {
    /// Bytes of its content.
    content: usize,
    /// The place of its last quote, which may have backslashes before it.
    quote: usize,
}

/// Where a quoted text ends whose first quote had these backslashes before it: a quote inside has more.
fn closing(text: &str, quote: char, escapes: usize) -> Option<Closed> {
    // 1, 3, 7: a text inside texts.
    let depth = (escapes + 1).ilog2();
    let mut run = 0;
    for (at, character) in text.char_indices() {
        if character == '\\' {
            run += 1;
            continue;
        }
        if character == quote && is_end(run, depth) {
            return Some(Closed {
                content: at - run.min(escapes),
                quote: at,
            });
        }
        run = 0;
    }
    None
}

/// Whether a quote behind this many backslashes ends a text that is this deep inside others.
fn is_end(backslashes: usize, depth: u32) -> bool {
    let mut backslashes = backslashes;
    for _ in 0..depth {
        // It ends one of those around.
        if backslashes.is_multiple_of(2) {
            return true;
        }
        backslashes = (backslashes - 1) / 2;
    }
    backslashes.is_multiple_of(2)
}

/// Where the content of a list or an object is: what stands between its brackets, and between its first and its last quote.
fn listed(text: &str) -> (usize, usize) {
    let end = bracket(text).unwrap_or_else(|| text.trim_end().len());
    let inside = &text[1..end];
    let begins = inside.len() - inside.trim_start().len();
    let (Some((quote, escapes)), Some((last, _))) =
        (quote_at(&inside[begins..]), quote_before(inside.trim_end()))
    else {
        return (1, inside.trim_end().len());
    };
    let from = begins + escapes + 1;
    let to = inside.trim_end().len() - 1;
    if quote != last || to < from {
        return (1, inside.trim_end().len());
    }
    let content = inside[from..to].trim_end_matches('\\');
    (1 + from, content.len())
}

/// Where the list or object ends that a text begins with. What is quoted ends nothing.
fn bracket(text: &str) -> Option<usize> {
    let (mut depth, mut at, mut before) = (0_usize, 0, ' ');
    while let Some(character) = text[at..].chars().next() {
        let begins = QUOTES.contains(&character)
            // Elsewhere it is an apostrophe.
            && (character == '"' || matches!(before, '[' | '{' | ',' | ':'));
        if begins {
            let escapes = text[..at].bytes().rev().take_while(|byte| *byte == b'\\');
            let closed = closing(&text[at + 1..], character, escapes.count())?;
            // Behind both quotes.
            at += 1 + closed.quote + 1;
            before = character;
            continue;
        }
        match character {
            '[' | '{' => depth += 1,
            ']' | '}' if depth == 1 => return Some(at),
            ']' | '}' => depth -= 1,
            _ => {}
        }
        if !character.is_whitespace() && character != '\\' {
            before = character;
        }
        at += character.len_utf8();
    }
    None
}

/// Bytes up to what ends a word.
pub(super) fn token_length(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}' | ']'))
        .unwrap_or(text.len())
}

/// Bytes of base64 at the start of a text; ends of its lines may be escaped.
fn base64_length(text: &str) -> usize {
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
