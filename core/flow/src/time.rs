//! Points in time as the wire has them: nanoseconds since 1970 and RFC 3339 text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Nanoseconds since 1970-01-01T00:00:00Z; printed as RFC 3339 with nine decimals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

/// The text is not an RFC 3339 time after 1970.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a time like 2026-11-21T08:30:00Z")]
pub struct ParseTimeError(pub String);

const SECOND: u64 = 1_000_000_000;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A time of day in a day of the Gregorian calendar, UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    nanosecond: u64,
}

impl Timestamp {
    /// The time `nanoseconds` earlier; 1970 when that is before it.
    #[must_use]
    pub const fn earlier(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_sub(nanoseconds))
    }

    /// As Hubble's compact lines have it, in UTC: `Nov 21 08:30:00.123`.
    pub fn stamp(self) -> String {
        let at = self.civil();
        let month = MONTHS
            .get(usize::try_from(at.month).unwrap_or(1).saturating_sub(1))
            .copied()
            .unwrap_or("Jan");
        format!(
            "{month} {:2} {:02}:{:02}:{:02}.{:03}",
            at.day,
            at.hour,
            at.minute,
            at.second,
            at.nanosecond / 1_000_000
        )
    }

    /// Days to calendar date by H. Hinnant's `civil_from_days`, for days since 1970.
    fn civil(self) -> Civil {
        let seconds = self.0 / SECOND;
        let days = seconds / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        Civil {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            nanosecond: self.0 % SECOND,
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
            at.year, at.month, at.day, at.hour, at.minute, at.second, at.nanosecond
        )
    }
}

/// A number of `digits` digits at the start of `text`, and the rest.
fn number(text: &str, digits: usize) -> Option<(u64, &str)> {
    let (head, tail) = text.split_at_checked(digits)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, tail))
}

fn parse(text: &str) -> Option<Timestamp> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (hour, rest) = number(rest.strip_prefix(['T', 't', ' '])?, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (second, mut rest) = number(rest.strip_prefix(':')?, 2)?;
    // Nanoseconds in 64 bits reach into the year 2554.
    if !(1970..=2554).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut nanosecond = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction
            .bytes()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        let (value, tail) = number(fraction, digits)?;
        nanosecond = value * 10u64.pow(u32::try_from(9 - digits).ok()?);
        rest = tail;
    }
    let offset_minutes: i64 = if matches!(rest, "Z" | "z") {
        0
    } else {
        let sign = match rest.as_bytes().first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        let (hours, tail) = number(rest.get(1..)?, 2)?;
        let (minutes, tail) = number(tail.strip_prefix(':')?, 2)?;
        if !tail.is_empty() || hours > 23 || minutes > 59 {
            return None;
        }
        sign * i64::try_from(hours * 60 + minutes).ok()?
    };
    let shifted_year = year - u64::from(month <= 2);
    let era = shifted_year / 400;
    let year_of_era = shifted_year % 400;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = u64::try_from(i64::try_from(local).ok()? - offset_minutes * 60).ok()?;
    let nanoseconds = seconds.checked_mul(SECOND)?.checked_add(nanosecond)?;
    Some(Timestamp(nanoseconds))
}

impl FromStr for Timestamp {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseTimeError(text.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times_print_and_read() {
        for (nanoseconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_249_800_123_000_000, "2026-11-21T08:30:00.123000000Z"),
            (4_102_444_799_000_000_000, "2099-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(Timestamp(nanoseconds).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(nanoseconds)));
        }
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!("2026-11-21T14:00:00+02:00".parse(), Ok(noon));
        assert_eq!("2026-11-21T06:30:00.0-05:30".parse(), Ok(noon));
        assert_eq!(noon.stamp(), "Nov 21 12:00:00.000");
        for bad in [
            "",
            "now",
            "2026-11-21",
            "2026-13-21T12:00:00Z",
            "2026-11-21T12:00:00",
            "2026-11-21T12:00:00.Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_time_reads_back(nanoseconds in any::<u64>()) {
            let time = Timestamp(nanoseconds);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
