//! What a daemon logs: levels and targets, as `--log-level` and HEDDLE_LOG name them.

use crate::failure::{Failure, USAGE};
use heddle_model::closest;
use tracing_subscriber::EnvFilter;

/// What is logged where nothing is said.
pub(super) const DEFAULT: &str = "info";
/// The levels; `off` is none of them all.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Reads levels and `target=level` pairs between commas. A word alone is a level: taken for a target, as tracing does, a
/// mistyped one would silence everything.
pub(super) fn read(text: &str) -> Result<EnvFilter, Failure> {
    let parts: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty() {
        return Ok(EnvFilter::new(DEFAULT));
    }
    for part in &parts {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        if !LEVELS.iter().any(|it| it.eq_ignore_ascii_case(level)) {
            return Err(refused(text, format!("{level:?} is no level"), level));
        }
    }
    EnvFilter::try_new(parts.join(",")).map_err(|error| refused(text, error.to_string(), ""))
}

/// What HEDDLE_LOG says.
pub(super) fn of_environment() -> Result<EnvFilter, Failure> {
    read(&std::env::var("HEDDLE_LOG").unwrap_or_default())
}

fn refused(text: &str, reason: String, level: &str) -> Failure {
    let near = closest(level, &LEVELS);
    let near = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    Failure::new("config/invalid", format!("log level {text:?}: {reason}"))
        .field("--log-level")
        .help(format!(
            "{near}write error, warn, info, debug, trace or off, or pairs as in info,heddle_agent=debug; HEDDLE_LOG says the same"
        ))
        .exit(USAGE)
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, read};
    use crate::failure::USAGE;

    #[test]
    fn levels_and_pairs_are_read_and_a_word_that_is_no_level_is_refused() {
        for (text, filter) in [
            ("", DEFAULT),
            (" , ", DEFAULT),
            ("warn", "warn"),
            ("DEBUG", "debug"),
            ("off", "off"),
            ("info,heddle_agent=debug", "heddle_agent=debug,info"),
            (" info, heddle_agent=debug,", "heddle_agent=debug,info"),
        ] {
            assert_eq!(read(text).unwrap().to_string(), filter, "{text}");
        }
        for (text, word) in [
            ("wran", "\"wran\" is no level"),
            ("inof", "\"inof\" is no level"),
            ("info,heddle_agent", "\"heddle_agent\" is no level"),
            ("heddle_agent=dbug", "\"dbug\" is no level"),
            ("heddle_agent=", "\"\" is no level"),
            ("[=info", "invalid filter directive"),
        ] {
            let failure = read(text).unwrap_err();
            assert_eq!(
                (failure.exit, failure.field.as_str()),
                (USAGE, "--log-level")
            );
            assert!(failure.message.contains(word), "{text}: {failure:?}");
            assert!(
                failure.help.contains("info,heddle_agent=debug"),
                "{failure:?}"
            );
        }
        let failure = read("wran").unwrap_err();
        assert!(
            failure.help.starts_with("did you mean `warn`?"),
            "{failure:?}"
        );
    }
}
