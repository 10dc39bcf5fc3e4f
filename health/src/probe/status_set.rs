//! Which HTTP statuses count as healthy.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of HTTP statuses, written `200-399` or `200,204,301-308`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// Whether `status` is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusSet {
    /// Success and redirection, `200-399`.
    fn default() -> StatusSet {
        StatusSet(vec![200..=399])
    }
}

impl FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<StatusSet, String> {
        let status = |text: &str| match text.trim().parse::<u16>() {
            Ok(status @ 200..=599) => Ok(status),
            _ => Err(format!(
                "\"{}\" is not a status from 200 to 599",
                text.trim()
            )),
        };
        let range = |part: &str| match part.split_once('-') {
            None => status(part).map(|only| only..=only),
            Some((first, last)) => match (status(first)?, status(last)?) {
                (first, last) if first > last => {
                    Err(format!("\"{}\" ends before it begins", part.trim()))
                }
                (first, last) => Ok(first..=last),
            },
        };
        text.split(',')
            .map(range)
            .collect::<Result<_, _>>()
            .map(StatusSet)
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(formatter, "{comma}{first}")?,
                (first, last) => write!(formatter, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_alike() {
        for (text, written, inside, outside) in [
            ("200-399", "200-399", vec![200, 399], vec![199, 400]),
            ("204", "204", vec![204], vec![200]),
            (
                "200, 204,301 - 308",
                "200,204,301-308",
                vec![200, 204, 305],
                vec![201, 300, 309],
            ),
        ] {
            let set: StatusSet = text.parse().unwrap();
            assert_eq!(set.to_string(), written);
            assert!(inside.iter().all(|status| set.contains(*status)), "{text}");
            assert!(
                !outside.iter().any(|status| set.contains(*status)),
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, complaint) in [
            ("", "\"\" is not a status"),
            ("200,", "\"\" is not a status"),
            ("2xx", "\"2xx\" is not a status"),
            ("100", "\"100\" is not a status"),
            ("600", "\"600\" is not a status"),
            ("399-200", "\"399-200\" ends before it begins"),
            ("200-", "\"\" is not a status"),
            ("99999999", "is not a status"),
        ] {
            let error = text.parse::<StatusSet>().unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }
}
