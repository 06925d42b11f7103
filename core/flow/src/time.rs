//! Points in time as the wire has them: nanoseconds since 1970 and RFC 3339 text.

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Nanoseconds since 1970-01-01T00:00:00Z; printed as RFC 3339 with nine decimals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

/// The text is not an RFC 3339 time after 1970.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a time like 2026-11-21T08:30:00Z")]
pub struct ParseTimeError(pub String);

/// Nine decimals.
const NANOSECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(9));

impl Timestamp {
    /// The time `nanoseconds` earlier; 1970 when that is before it.
    #[must_use]
    pub const fn earlier(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_sub(nanoseconds))
    }

    /// As Hubble's compact lines have it, in UTC: `Nov 21 08:30:00.123`.
    pub fn stamp(self) -> String {
        self.civil().strftime("%b %e %H:%M:%S.%3f").to_string()
    }

    /// 64 bits of nanoseconds reach into the year 2554, which every calendar has.
    fn civil(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&NANOSECONDS.timestamp_to_string(&self.civil()))
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: Option<jiff::Timestamp> = text.parse().ok();
        time.and_then(|time| u64::try_from(time.as_nanosecond()).ok())
            .map(Self)
            .ok_or_else(|| ParseTimeError(text.to_owned()))
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
