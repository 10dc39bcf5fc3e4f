//! How much may be asked for: refused alike by the command line, which names it in its help, and by the admin listener.

use std::fmt::Display;
use std::str::FromStr;

/// From the least to the most, both allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds<T> {
    least: T,
    most: T,
}

impl<T: Copy + PartialOrd + Display + FromStr> Bounds<T> {
    pub(crate) const fn new(least: T, most: T) -> Bounds<T> {
        Bounds { least, most }
    }

    /// # Errors
    /// What is expected, if `value` is outside.
    pub(crate) fn check(self, name: &str, value: T) -> Result<(), String> {
        match self.hold(value) {
            true => Ok(()),
            false => Err(format!("{name}: expected {}, got {value}", self.words())),
        }
    }

    /// Takes such a number on the command line.
    pub(crate) fn parser(self) -> impl Fn(&str) -> Result<T, String> + Clone {
        move |text| {
            let number = text.parse().ok().filter(|number| self.hold(*number));
            number.ok_or_else(|| format!("expected {}", self.words()))
        }
    }

    /// What an option is for, with the bounds behind it.
    pub(crate) fn help(self, what_for: &str) -> String {
        format!("{what_for}: {}", self.words())
    }

    fn hold(self, value: T) -> bool {
        (self.least..=self.most).contains(&value)
    }

    fn words(self) -> String {
        format!("{} to {}", self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_allowed_and_what_is_beyond_is_told_them() {
        let bounds = Bounds::new(64_u64, 65_535);
        let parse = bounds.parser();
        for right in [64, 65_535] {
            assert_eq!(bounds.check("snap", right), Ok(()));
            assert_eq!(parse(&right.to_string()), Ok(right));
        }
        for wrong in [0, 63, 65_536] {
            let why = format!("snap: expected 64 to 65535, got {wrong}");
            assert_eq!(bounds.check("snap", wrong), Err(why));
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
