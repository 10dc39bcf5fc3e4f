//! What is announced: a VIP's route and the attributes it carries.
//!
//! These are our own types. The codec behind [`crate::session`] translates them, so that nothing above a session knows
//! which BGP library writes the bytes.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Attributes a VIP is announced with. What a neighbour adds of its own (next hop, AS path, LOCAL_PREF) is not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Attributes {
    /// MULTI_EXIT_DISC (RFC 4271 5.1.4), lower is preferred. `None`: the neighbour's, if it has one.
    pub med: Option<u32>,
    /// Communities of either kind, added to the neighbour's own.
    pub communities: Vec<Community>,
}

/// A standard (RFC 1997) or large (RFC 8092) community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Community {
    /// 32 bits, written `asn:value` or by its well-known name.
    Standard(u32),
    /// 96 bits, written `global:local:local`.
    Large(u32, u32, u32),
}

/// Names of well-known communities (RFC 1997, RFC 7999, RFC 8326).
const WELL_KNOWN: [(&str, u32); 5] = [
    ("no-export", 0xFFFF_FF01),
    ("no-advertise", 0xFFFF_FF02),
    ("no-export-subconfed", 0xFFFF_FF03),
    ("blackhole", 0xFFFF_029A),
    ("graceful-shutdown", 0xFFFF_0000),
];

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| *known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xFFFF),
            },
            Self::Large(global, first, second) => write!(f, "{global}:{first}:{second}"),
        }
    }
}

impl Serialize for Community {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Community {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Standard(*value));
        }
        let expected = || {
            format!(
                "`{text}` is not a community: write \"65010:100\", \"65010:1:2\" (large) or a name such as \"no-export\""
            )
        };
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [asn, value] => {
                let asn: u16 = asn.parse().map_err(|_| expected())?;
                let value: u16 = value.parse().map_err(|_| expected())?;
                Ok(Self::Standard(u32::from(asn) << 16 | u32::from(value)))
            }
            [global, first, second] => {
                let number = |part: &str| part.parse::<u32>().map_err(|_| expected());
                Ok(Self::Large(
                    number(global)?,
                    number(first)?,
                    number(second)?,
                ))
            }
            _ => Err(expected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_read_back_as_written() {
        for text in ["65010:100", "65010:1:2", "no-export", "graceful-shutdown"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!(
            "65535:0".parse::<Community>().unwrap().to_string(),
            "graceful-shutdown"
        );
    }

    #[test]
    fn a_community_out_of_range_says_what_to_write() {
        for text in ["", "70000:1", "1:70000", "1", "a:b", "1:2:3:4", "-1:2"] {
            let error = text.parse::<Community>().unwrap_err();
            assert!(error.contains("65010:100"), "{text}: {error}");
        }
    }
}
