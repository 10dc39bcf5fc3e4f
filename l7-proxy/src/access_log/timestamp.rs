//! UTC date and time of a moment, in the two spellings log formats want.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A moment taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp {
    year: u64,
    /// 1 to 12.
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

impl Timestamp {
    /// A clock before 1970 is shown as 1970.
    pub(super) fn of(time: SystemTime) -> Timestamp {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Proleptic Gregorian calendar in eras of 400 years (146,097 days) that begin on 1 March, so that a leap day is the last of its year:
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Timestamp {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: seconds / 3_600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            millisecond: since.subsec_millis(),
        }
    }

    /// `2026-11-21T23:06:26.042Z`.
    pub(super) fn rfc3339(self) -> impl fmt::Display {
        let Timestamp {
            year,
            month,
            day,
            hour,
            minute,
            second,
            millisecond,
        } = self;
        fmt::from_fn(move |f| {
            write!(
                f,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"
            )
        })
    }

    /// `21/Nov/2026:23:06:26 +0000`.
    pub(super) fn common_log(self) -> impl fmt::Display {
        let Timestamp {
            year,
            month,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        let month = MONTHS
            .get(month.saturating_sub(1) as usize)
            .copied()
            .unwrap_or("Jan");
        fmt::from_fn(move |f| {
            write!(
                f,
                "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Timestamp::of(time).rfc3339().to_string(), expected);
        }
        assert_eq!(
            Timestamp::of(UNIX_EPOCH - Duration::from_secs(1))
                .rfc3339()
                .to_string(),
            "1970-01-01T00:00:00.000Z"
        );
    }
}
