//! The ports of a service: one, several in a row, or all.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// See the module. Displays as `80`, `8000-8999` or `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port that there is; 0 is none.
    pub const ALL: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// From the first to the last; `None` where that is no port, or 0 is among them.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (1..=last).contains(&first).then_some(Self { first, last })
    }

    /// The lowest.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// The port, where it is one.
    #[must_use]
    pub fn single(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }

    /// Whether a port is among them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether both have a port.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The port that a target has in [`crate::TargetConfig::address`] if it gets packets at the port that clients sent them to.
    #[must_use]
    pub fn kept_by_target(self) -> u16 {
        self.single().unwrap_or(0)
    }

    /// An address with these ports: `10.0.0.100:8000-8999`, `[2001:db8::100]:*`.
    pub fn at(self, address: impl Into<IpAddr>) -> impl fmt::Display {
        At(address.into(), self)
    }
}

/// May be 0, which is refused where a snapshot is built.
impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.single()) {
            (Self::ALL, _) => to.write_str("*"),
            (_, Some(port)) => port.fmt(to),
            (Self { first, last }, None) => write!(to, "{first}-{last}"),
        }
    }
}

/// What is wrong with a text that should be ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// Neither a port, nor two, nor `*`.
    #[error("expected a port, a range such as \"8000-8999\", or \"*\"")]
    NoPorts,
    /// A range that ends before it begins.
    #[error("the range begins behind its end")]
    Backwards,
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        if text == "*" {
            return Ok(Self::ALL);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| match text.parse() {
            Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => Err(PortRangeError::NoPorts),
        };
        Self::new(port(first)?, port(last)?).ok_or(PortRangeError::Backwards)
    }
}

struct At(IpAddr, PortRange);

impl fmt::Display for At {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address, ports) = self;
        match address {
            IpAddr::V4(address) => write!(to, "{address}:{ports}"),
            IpAddr::V6(address) => write!(to, "[{address}]:{ports}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn ports(first: u16, last: u16) -> PortRange {
        PortRange::new(first, last).unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for (text, range) in [
            ("80", 80.into()),
            ("1-2", ports(1, 2)),
            ("8000-8999", ports(8000, 8999)),
            ("2-65535", ports(2, 65535)),
            ("*", PortRange::ALL),
        ] {
            assert_eq!(text.parse(), Ok(range));
            assert_eq!(range.to_string(), text);
            let [v4, v6] = [IpAddr::from([10, 0, 0, 100]), Ipv6Addr::LOCALHOST.into()];
            assert_eq!(range.at(v4).to_string(), format!("10.0.0.100:{text}"));
            assert_eq!(range.at(v6).to_string(), format!("[::1]:{text}"));
        }
        assert_eq!("80-80".parse(), Ok(PortRange::from(80)));
        assert_eq!("1-65535".parse(), Ok(PortRange::ALL));
        for text in [
            "", "-", "0", "0-5", "5-", "-5", "+5", "1-+5", "1-2-3", "65536", "1-65536", "any", " 5",
        ] {
            let read: Result<PortRange, _> = text.parse();
            assert_eq!(read, Err(PortRangeError::NoPorts), "{text}");
        }
        let backwards: Result<PortRange, _> = "9-8".parse();
        assert_eq!(backwards, Err(PortRangeError::Backwards));
    }

    #[test]
    fn ranges_overlap_where_they_have_a_port_in_common() {
        for (one, other, overlap) in [
            (ports(10, 20), ports(20, 30), true),
            (ports(10, 20), ports(21, 30), false),
            (ports(10, 30), ports(15, 20), true),
            (ports(15, 15), ports(10, 14), false),
            (PortRange::ALL, ports(65535, 65535), true),
        ] {
            assert_eq!(one.overlaps(other), overlap, "{one} {other}");
            assert_eq!(other.overlaps(one), overlap, "{other} {one}");
            let common = (1..=u16::MAX).any(|port| one.contains(port) && other.contains(port));
            assert_eq!(common, overlap);
        }
    }

    #[test]
    fn a_range_begins_with_its_first_port_and_does_not_have_0() {
        assert_eq!(PortRange::new(0, 5), None);
        assert_eq!(PortRange::new(6, 5), None);
        assert!(!PortRange::ALL.contains(0));
        assert_eq!(
            (ports(6, 9).single(), ports(6, 6).single()),
            (None, Some(6))
        );
        assert_eq!(
            (ports(6, 9).kept_by_target(), ports(6, 6).kept_by_target()),
            (0, 6)
        );
    }
}
