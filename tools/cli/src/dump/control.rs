//! Control characters of a dump's JSON: whoever prints one hands a terminal to whoever sent it.

/// Replaces control characters in JSON text by others of the same length, escaped or not, and those that turn the order of
/// what follows. Line ends and tabs stay: tables write them in another way.
pub(super) fn replace(json: &mut [u8]) {
    let mut at = 0;
    while at < json.len() {
        at += match json[at..] {
            [b'\\', b'u', ref mut digits @ ..] if digits.len() >= 4 => {
                if is_control(&digits[..4]) {
                    digits[..4].copy_from_slice(b"fffd");
                }
                6
            }
            [b'\\', ref mut escaped @ (b'b' | b'f'), ..] => {
                *escaped = b'/';
                2
            }
            [b'\\', ref mut escaped @ b'r', ..] => {
                *escaped = b'n';
                2
            }
            // Whatever follows is escaped, another backslash too.
            [b'\\', _, ..] => 2,
            // U+200E, U+200F, U+2028 to U+202E and U+2066 to U+2069, which turn a line or its order.
            [0xe2, 0x80, ref mut low @ (0x8e..=0x8f | 0xa8..=0xae), ..]
            | [0xe2, 0x81, ref mut low @ 0xa6..=0xa9, ..] => {
                *low = 0x90;
                3
            }
            // U+061C, which does so as well.
            [ref mut high @ 0xd8, ref mut low @ 0x9c, ..] => {
                (*high, *low) = (0xc2, 0xbf);
                2
            }
            // U+0080 to U+009F.
            [0xc2, ref mut low @ 0x80..=0x9f, ..] => {
                *low = 0xbf;
                2
            }
            [
                ref mut byte @ (0x00..=0x08 | 0x0b..=0x0c | 0x0e..=0x1f | 0x7f),
                ..,
            ] => {
                *byte = b'?';
                1
            }
            _ => 1,
        };
    }
}

/// Whether `\u` and these digits are a control character, but for a line's end and a tab.
fn is_control(digits: &[u8]) -> bool {
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .and_then(char::from_u32);
    number.is_some_and(|it| {
        it.is_control() && !matches!(it, '\n' | '\t')
            || matches!(
                it,
                '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            )
    })
}

#[cfg(test)]
mod tests {
    use super::replace;
    use serde_json::Value;

    #[test]
    fn no_text_has_a_control_character_afterwards() {
        for (json, text) in [
            (r#""\u001b[31mred""#, "\u{fffd}[31mred"),
            (r#""\u001B]0;title\u0007""#, "\u{fffd}]0;title\u{fffd}"),
            (r#""a\\u001b""#, "a\\u001b"),
            (r#""a\\\u001b""#, "a\\\u{fffd}"),
            (r#""\u009b1m\u007f""#, "\u{fffd}1m\u{fffd}"),
            ("\"\u{9b}1m\u{7f}\"", "\u{bf}1m?"),
            (r#""line\n\ttab\r\u000a""#, "line\n\ttab\n\n"),
            (r#""\u00e9é\ud83d\ude00""#, "éé😀"),
            ("\"a\u{202e}b\u{2066}\"", "a\u{2010}b\u{2050}"),
            (r#""a\u202eb\u2029""#, "a\u{fffd}b\u{fffd}"),
            (
                "\"a\u{200e}b\u{200f}c\u{61c}\"",
                "a\u{2010}b\u{2010}c\u{bf}",
            ),
            (r#""a\u200eb\u200F\u061c""#, "a\u{fffd}b\u{fffd}\u{fffd}"),
            // What begins or ends with the same bytes, and is another character.
            (
                "\"\u{200d}\u{2010}\u{61b}\u{61d}\"",
                "\u{200d}\u{2010}\u{61b}\u{61d}",
            ),
            (r#""\b\f\u000d""#, "//\u{fffd}"),
        ] {
            let mut bytes = json.as_bytes().to_vec();
            replace(&mut bytes);
            let found: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(found, text, "{json}");
        }
    }

    #[test]
    fn a_text_that_is_no_json_stays_as_long_as_it_is() {
        for text in ["\\", "\\u", "\\u00", "\\u001", "a\\", "\u{1b}", "\\uzzzz"] {
            let mut bytes = text.as_bytes().to_vec();
            replace(&mut bytes);
            assert_eq!(bytes.len(), text.len());
        }
    }
}
