//! The `Via` field, by which a backend sees that a request came through a gateway (RFC 9110 section 7.6.3).

use http::Version;
use http::header::HeaderValue;

/// What a pseudonym may be as long as, in bytes.
const LONGEST: usize = 64;

/// What this gateway adds, ready made for each protocol a request may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// Under this pseudonym; `None` when it is no token of 1 to 64 characters, which is what the field takes. A port or a comment would be
    /// more than others need to know.
    pub fn named(pseudonym: &str) -> Option<Via> {
        if pseudonym.len() > LONGEST || !super::upgrade::is_token(pseudonym) {
            return None;
        }
        let value = |version| HeaderValue::from_str(&format!("{version} {pseudonym}")).ok();
        Some(Via {
            http10: value("1.0")?,
            http11: value("1.1")?,
            http2: value("2.0")?,
        })
    }

    /// This hop, which goes behind those a request has gone; `received` is the version it came in.
    pub(super) fn hop(&self, received: Version) -> &HeaderValue {
        match received {
            Version::HTTP_2 => &self.http2,
            Version::HTTP_11 => &self.http11,
            _ => &self.http10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_has_the_version_it_received() {
        let via = Via::named("edge-1").unwrap();
        for (version, hop) in [
            (Version::HTTP_11, "1.1 edge-1"),
            (Version::HTTP_2, "2.0 edge-1"),
            (Version::HTTP_10, "1.0 edge-1"),
        ] {
            assert_eq!(via.hop(version), hop);
        }
    }

    #[test]
    fn a_pseudonym_is_a_token() {
        let long = "x".repeat(65);
        for name in [
            "",
            "a b",
            "a:80",
            "a, b",
            "a(b)",
            "a\r\nx: y",
            "\u{e4}",
            &long,
        ] {
            assert_eq!(Via::named(name), None, "{name:?}");
        }
        assert!(Via::named("weir").is_some());
    }
}
