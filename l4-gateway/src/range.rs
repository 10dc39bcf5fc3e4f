//! How much may be asked for: refused alike by the command line, which names it in its help, and by the admin listener.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Whether an argument is in its range.
///
/// # Errors
/// What is expected of `name`, if it isn't.
pub(crate) fn check<T: PartialOrd + Display>(
    name: &str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), String> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(format!("{name}: expected {}, got {value}", words(range))),
    }
}

/// Takes such a number on the command line.
pub(crate) fn parser<T: PartialOrd + Display + FromStr + Clone>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("expected {}", words(&range)))
    }
}

/// What an option is for, with its range behind it.
pub(crate) fn help<T: Display>(what_for: &str, range: &RangeInclusive<T>) -> String {
    format!("{what_for}: {}", words(range))
}

fn words<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("{} to {}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_allowed_and_what_is_beyond_is_told_them() {
        let range = 64_u64..=65_535;
        let parse = parser(range.clone());
        for right in [64, 65_535] {
            assert_eq!(check("snap", right, &range), Ok(()));
            assert_eq!(parse(&right.to_string()), Ok(right));
        }
        for wrong in [0, 63, 65_536] {
            let why = format!("snap: expected 64 to 65535, got {wrong}");
            assert_eq!(check("snap", wrong, &range), Err(why));
            assert_eq!(
                parse(&wrong.to_string()),
                Err("expected 64 to 65535".into())
            );
        }
        for wrong in ["", "-1", "64k", "99999999999999999999"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
