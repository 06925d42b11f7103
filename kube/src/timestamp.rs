//! Times as Kubernetes objects write them.

use jiff::fmt::temporal::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// `2026-11-21T06:45:01Z` for seconds since 1970.
pub fn rfc3339(seconds: u64) -> String {
    printed(Duration::from_secs(seconds), 0)
}

/// `2026-11-21T06:45:01.000250Z` for a time since 1970: Kubernetes' MicroTime.
pub fn rfc3339_micros(since_1970: Duration) -> String {
    printed(since_1970, 6)
}

/// Seconds since 1970 of such a time; a fraction of a second is left out. `None` for what is none, or before 1970.
pub fn seconds_of(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

/// A time beyond the calendar's end is printed as its end.
fn printed(since_1970: Duration, decimals: u8) -> String {
    let time = SignedDuration::try_from(since_1970)
        .and_then(Timestamp::from_duration)
        .unwrap_or(Timestamp::MAX);
    let printer = DateTimePrinter::new().precision(Some(decimals));
    printer.timestamp_to_string(&time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_times_have_six_digits() {
        let time = Duration::new(1_795_243_501, 250_999);
        assert_eq!(rfc3339_micros(time), "2026-11-21T06:45:01.000250Z");
    }

    #[test]
    fn times_are_civil() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_243_501, "2026-11-21T06:45:01Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
            assert_eq!(seconds_of(text), Some(seconds));
        }
        assert_eq!(seconds_of("2026-11-21T06:45:01.25Z"), Some(1_795_243_501));
        assert_eq!(seconds_of("soon"), None);
        assert_eq!(seconds_of("1969-12-31T23:59:59Z"), None);
        assert!(rfc3339(u64::MAX).starts_with("9999-12-30"));
    }
}
