//! Where quoted texts, lists and objects end, and words that nothing encloses.

use super::STRIPPED;

/// What encloses names and values.
pub(super) const QUOTES: [char; 2] = ['"', '\''];
/// Bytes of a name that are looked at.
const MOST_OF_A_NAME: usize = 64;

/// The quote that a text begins with, and the backslashes before it.
pub(super) fn quote_at(text: &str) -> Option<(char, usize)> {
    let escapes = text.bytes().take_while(|byte| *byte == b'\\').count();
    let quote = text[escapes..].chars().next()?;
    QUOTES.contains(&quote).then_some((quote, escapes))
}

/// The quote that a text ends with, and the backslashes before it.
pub(super) fn quote_before(text: &str) -> Option<(char, usize)> {
    let quote = text.chars().next_back().filter(|c| QUOTES.contains(c))?;
    let before = &text[..text.len() - 1];
    let escapes = before.bytes().rev().take_while(|byte| *byte == b'\\');
    Some((quote, escapes.count()))
}

/// Where the content of a quoted text is, behind its first quote: up to the last, which may be in a later line, or to the
/// end of the line without one.
pub(super) fn quoted<'a>(
    text: &'a str,
    ahead: impl FnOnce() -> &'a str,
    quote: char,
    escapes: usize,
) -> (usize, usize) {
    let mut from = 0;
    // Tables of values between commas double a quote instead of escaping it.
    while text[from..].starts_with(quote) && token_length(&text[from + 1..]) > 0 {
        from += 1;
    }
    let content = &text[from..];
    let closed =
        closing(content, quote, escapes).or_else(|| closing(ahead().get(from..)?, quote, escapes));
    let length = closed.map_or_else(|| content.trim_end().len(), |closed| closed.content);
    (from, length)
}

/// Where a quoted text ends.
pub(super) struct Closed {
    /// Bytes of its content.
    pub(super) content: usize,
    /// The place of its last quote, which may have backslashes before it.
    pub(super) quote: usize,
}

/// Where a quoted text ends whose first quote had these backslashes before it: a quote inside has more.
pub(super) fn closing(text: &str, quote: char, escapes: usize) -> Option<Closed> {
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

/// Where the content of a list, an object or a call is: what stands between its brackets, the last of which may be in a
/// later line, and between its first and its last quote.
pub(super) fn listed<'a>(text: &'a str, ahead: impl FnOnce() -> &'a str) -> (usize, usize) {
    let (text, end) = bracket(text).map_or_else(
        || {
            let ahead = ahead();
            bracket(ahead).map_or_else(|| (text, text.trim_end().len()), |end| (ahead, end))
        },
        |end| (text, end),
    );
    let inside = &text[1..end];
    let begins = inside.len() - inside.trim_start().len();
    let (Some((quote, escapes)), Some((last, _))) =
        (quote_at(&inside[begins..]), quote_before(inside.trim_end()))
    else {
        return (1 + begins, inside.trim().len());
    };
    let from = begins + escapes + 1;
    let to = inside.trim_end().len() - 1;
    if quote != last || to < from {
        return (1 + begins, inside.trim().len());
    }
    let content = inside[from..to].trim_end_matches('\\');
    (1 + from, content.len())
}

/// Where the list or object ends that a text begins with. What is quoted ends nothing.
pub(super) fn bracket(text: &str) -> Option<usize> {
    let is_call = text.starts_with('(');
    let (mut depth, mut at, mut before) = (0_usize, 0, ' ');
    while let Some(character) = text[at..].chars().next() {
        let begins = QUOTES.contains(&character)
            // Elsewhere it is an apostrophe.
            && (character == '"' || matches!(before, '[' | '{' | '(' | ',' | ':'));
        if begins {
            let escapes = text[..at].bytes().rev().take_while(|byte| *byte == b'\\');
            let closed = closing(&text[at + 1..], character, escapes.count())?;
            // Behind both quotes.
            at += 1 + closed.quote + 1;
            before = character;
            continue;
        }
        match character {
            '(' if is_call => depth += 1,
            ')' if is_call && depth == 1 => return Some(at),
            ')' if is_call => depth -= 1,
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

/// Bytes of a value that nothing encloses. A mark that may be part of a secret ends it only where what follows is another
/// name, or nothing.
pub(super) fn word_length(text: &str) -> usize {
    let ends = |(at, character): (usize, char)| match character {
        '"' | '\'' => true,
        ',' | ';' | '&' => is_end_of_word(&text[at + 1..]),
        '}' | ']' => !text[at + 1..].starts_with(|c: char| c.is_alphanumeric()),
        _ => character.is_whitespace(),
    };
    let mut characters = text.char_indices();
    let end = characters.find(|found| ends(*found));
    end.map_or(text.len(), |(at, _)| at)
}

/// Whether what stands behind a comma or the like is the end of a value.
fn is_end_of_word(behind: &str) -> bool {
    let behind = behind.trim_start_matches('\\');
    if behind.is_empty()
        || behind.starts_with(|c: char| c.is_whitespace() || ",;&}])\"'".contains(c))
    {
        return true;
    }
    let name = &behind[..behind.floor_char_boundary(MOST_OF_A_NAME)];
    let length = name.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.[]%".contains(c)));
    length.is_some_and(|length| length > 0 && name[length..].starts_with(['=', ':']))
}

/// What a language writes around a text.
pub(super) enum Wrapper {
    /// `Some("...")`: where its bracket is.
    Call(usize),
    /// `b"..."`: where its quote is, and which.
    Prefix(usize, (char, usize)),
}

impl Wrapper {
    pub(super) fn of(value: &str) -> Option<Self> {
        let (mut at, mut call) = (0, None);
        while let Some(length) = name_before(&value[at..], '(') {
            at += length;
            call = call.or(Some(at));
            at += 1;
        }
        let inside = &value[at..];
        let prefix = inside.trim_start_matches(|c: char| "bBrRuUfFcLN$@#".contains(c));
        let skipped = inside.len() - prefix.len();
        let quote = quote_at(prefix).filter(|_| skipped <= 4);
        match (call, quote) {
            (Some(call), Some(_)) => Some(Self::Call(call)),
            (Some(call), None)
                if inside.starts_with(['[', '{']) || inside.starts_with(STRIPPED) =>
            {
                Some(Self::Call(call))
            }
            (None, Some(quote)) if skipped > 0 => Some(Self::Prefix(skipped, quote)),
            _ => {
                // `Secret { inner: "..." }`
                let length = name_before(value, ' ').filter(|_| call.is_none())?;
                let is_structure = value[length..].starts_with(" {");
                is_structure.then_some(Self::Call(length + 1))
            }
        }
    }
}

/// The length of the name that a text begins with, if this follows.
fn name_before(text: &str, mark: char) -> Option<usize> {
    let text = &text[..text.floor_char_boundary(MOST_OF_A_NAME)];
    let length = text.find(|c: char| !(c.is_alphanumeric() || "_:.".contains(c)))?;
    (length > 0 && text[length..].starts_with(mark)).then_some(length)
}
