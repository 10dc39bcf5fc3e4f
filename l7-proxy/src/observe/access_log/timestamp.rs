//! UTC date and time of a moment, in the two spellings log formats want.

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

    /// Appends `2026-11-21T23:06:26.042Z`.
    pub(super) fn rfc3339(self, out: &mut Vec<u8>) {
        digits::<4>(out, self.year);
        out.push(b'-');
        digits::<2>(out, self.month);
        out.push(b'-');
        digits::<2>(out, self.day);
        out.push(b'T');
        self.time_of_day(out);
        out.push(b'.');
        digits::<3>(out, u64::from(self.millisecond));
        out.push(b'Z');
    }

    /// Appends `21/Nov/2026:23:06:26 +0000`.
    pub(super) fn common_log(self, out: &mut Vec<u8>) {
        let month = self.month.saturating_sub(1) as usize;
        digits::<2>(out, self.day);
        out.push(b'/');
        out.extend_from_slice(MONTHS.get(month).copied().unwrap_or("Jan").as_bytes());
        out.push(b'/');
        digits::<4>(out, self.year);
        out.push(b':');
        self.time_of_day(out);
        out.extend_from_slice(b" +0000");
    }

    fn time_of_day(self, out: &mut Vec<u8>) {
        digits::<2>(out, self.hour);
        out.push(b':');
        digits::<2>(out, self.minute);
        out.push(b':');
        digits::<2>(out, self.second);
    }
}

/// Appends the last `N` decimal digits of `value`, with leading zeros.
fn digits<const N: usize>(out: &mut Vec<u8>, mut value: u64) {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rfc3339(time: SystemTime) -> String {
        let mut out = Vec::new();
        Timestamp::of(time).rfc3339(&mut out);
        String::from_utf8(out).unwrap()
    }

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
            assert_eq!(rfc3339(time), expected);
        }
        assert_eq!(
            rfc3339(UNIX_EPOCH - Duration::from_secs(1)),
            "1970-01-01T00:00:00.000Z"
        );
    }
}
