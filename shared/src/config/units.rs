//! Types that carry their unit: durations, sizes, prefixes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::value::{Bounded, FromValue, Value};

const DURATION_UNITS: &[(&str, u64)] = &[
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

impl FromValue for Duration {
    const EXPECTED: &'static str = "a duration such as \"250ms\", \"2s\" or \"1m\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => with_unit(text, DURATION_UNITS)
                .map(Self::from_micros)
                .ok_or_else(|| match text.trim().parse::<u64>() {
                    Ok(number) => format!("say the unit: \"{number}s\" or \"{number}ms\""),
                    Err(_) => "a whole number and one of us, ms, s, m, h, d".to_owned(),
                }),
            Value::Integer(number) if *number >= 0 => Err(format!("write \"{number}s\"")),
            _ => Err(String::new()),
        }
    }

    const WORD: &'static str = "duration";

    fn written(&self) -> String {
        in_largest_unit(self.as_micros(), DURATION_UNITS, "0s")
    }
}

impl Bounded for Duration {
    const KIND: &'static str = "a duration";

    fn meant_by(number: u64) -> Vec<(String, Self)> {
        let (seconds_down, minutes_up) = DURATION_UNITS.split_at(3);
        in_each_unit(number, seconds_down.iter().rev().chain(minutes_up))
            .map(|(written, micros)| (written, Self::from_micros(micros)))
            .collect()
    }
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

impl FromValue for ByteSize {
    const EXPECTED: &'static str = "a size such as \"64KiB\" or \"10MiB\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => with_unit(text, SIZE_UNITS)
                .map(Self)
                .ok_or_else(|| "a whole number and one of B, KiB, MiB, GiB, TiB".to_owned()),
            Value::Integer(number) if *number >= 0 => Err(format!("write \"{number}B\"")),
            _ => Err(String::new()),
        }
    }

    const WORD: &'static str = "size";

    fn written(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&in_largest_unit(self.0.into(), SIZE_UNITS, "0B"))
    }
}

impl Bounded for ByteSize {
    const KIND: &'static str = "a size";

    fn meant_by(number: u64) -> Vec<(String, Self)> {
        in_each_unit(number, SIZE_UNITS.iter())
            .map(|(written, bytes)| (written, Self(bytes)))
            .collect()
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `<digits><unit>` in the smallest unit; none if it is anything else or does not fit 64 bits.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// The number with each unit, as written and in the smallest; without those it does not fit 64 bits in.
fn in_each_unit<'u>(
    number: u64,
    units: impl Iterator<Item = &'u (&'u str, u64)>,
) -> impl Iterator<Item = (String, u64)> {
    units.filter_map(move |(name, factor)| {
        let value = number.checked_mul(*factor)?;
        Some((format!("{number}{name}"), value))
    })
}

/// The number with the largest unit that it is a multiple of; `number` is in the smallest.
fn in_largest_unit(number: u128, units: &[(&str, u64)], zero: &str) -> String {
    units
        .iter()
        .rev()
        .map(|(name, unit)| (name, u128::from(*unit)))
        .find(|(_, unit)| number > 0 && number.is_multiple_of(*unit))
        .map_or_else(
            || zero.to_owned(),
            |(name, unit)| format!("{}{name}", number / unit),
        )
}

/// An address with the length of its network prefix, such as `10.0.0.1/24`. The host bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// An address with a prefix length; none if the length is over 32 (IPv4) or 128 (IPv6).
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// The address as written, host bits included.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether `address` lies in this network. Addresses of the other family never do.
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u32::from(own) ^ u32::from(other)) & mask_v4(self.prefix) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (u128::from(own) ^ u128::from(other)) & mask_v6(self.prefix) == 0
            }
            _ => false,
        }
    }
}

fn mask_v4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask_v6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((address, prefix)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(address)) => {
                    format!("the prefix length is missing; a single address is \"{address}/32\"")
                }
                Ok(IpAddr::V6(address)) => {
                    format!("the prefix length is missing; a single address is \"{address}/128\"")
                }
                Err(_) => String::new(),
            });
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("{address:?} is not an IP address"))?;
        let length = || {
            format!(
                "the prefix length is 0 to {}",
                if address.is_ipv4() { 32 } else { 128 }
            )
        };
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(length());
        }
        prefix
            .parse()
            .ok()
            .and_then(|prefix| Self::new(address, prefix))
            .ok_or_else(length)
    }
}

impl FromValue for Cidr {
    const EXPECTED: &'static str = "an address with a prefix length such as \"10.0.0.1/24\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        value.as_str().ok_or_else(String::new)?.parse()
    }
}

impl Cidr {
    /// Whether it is as long as its address.
    pub fn is_one_address(&self) -> bool {
        self.prefix == if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
