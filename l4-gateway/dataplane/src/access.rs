//! Who may use a service: prefixes that are let in or kept out, of which the longest that holds a source decides.

use std::cmp::Reverse;
use std::net::IpAddr;

/// A prefix that is let in or kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// An address of the prefix; bits beyond the length don't matter.
    pub address: IpAddr,
    /// Its length, bits.
    pub prefix: u8,
    /// Whether sources in it may use the service.
    pub allow: bool,
}

/// An access list. It is asked for new flows only.
///
/// Held as the addresses at which the answer changes from that of the address before: a lookup is a binary search, and 100,000
/// prefixes take at most 0.8 MB (IPv4) or 3.2 MB (IPv6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Below the first change.
    others: bool,
    v4: Box<[u32]>,
    v6: Box<[u128]>,
}

/// Why an access list can't be: the rule as given, whose prefix is longer than its address or has the opposite answer too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// More bits than the address has.
    #[error("prefix length {} of {} is longer than its address", .0.prefix, .0.address)]
    TooLong(AccessRule),
    /// Let in and kept out.
    #[error("{}/{} is both allowed and denied", .0.address, .0.prefix)]
    Contradiction(AccessRule),
}

impl Access {
    /// The list of these rules, in any order; `others` is the answer for sources that none holds.
    ///
    /// # Errors
    /// The first rule found wrong.
    pub fn new(rules: &[AccessRule], others: bool) -> Result<Self, AccessError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for rule in rules {
            let (bits, width, spans) = match rule.address {
                IpAddr::V4(address) => (u128::from(address.to_bits()), 32u32, &mut v4),
                IpAddr::V6(address) => (address.to_bits(), 128, &mut v6),
            };
            let host_bits = width
                .checked_sub(u32::from(rule.prefix))
                .ok_or(AccessError::TooLong(*rule))?;
            let hosts = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
            spans.push(Span {
                first: bits & !hosts,
                last: bits | hosts,
                rule: *rule,
            });
        }
        Ok(Self {
            others,
            v4: changes(v4, others)?
                .into_iter()
                .filter_map(|at| u32::try_from(at).ok())
                .collect(),
            v6: changes(v6, others)?.into(),
        })
    }

    /// Whether a source may use the service.
    #[must_use]
    pub fn allows(&self, source: IpAddr) -> bool {
        let changes = match source {
            IpAddr::V4(source) => self.v4.partition_point(|at| *at <= source.to_bits()),
            IpAddr::V6(source) => self.v6.partition_point(|at| *at <= source.to_bits()),
        };
        self.others ^ (changes % 2 == 1)
    }
}

/// The addresses of a prefix.
struct Span {
    first: u128,
    last: u128,
    rule: AccessRule,
}

/// Where the answer changes. Prefixes lie beside or inside one another, so those open at an address are a stack.
fn changes(mut spans: Vec<Span>, others: bool) -> Result<Vec<u128>, AccessError> {
    spans.sort_by_key(|span| (span.first, Reverse(span.last)));
    let mut answers = Answers {
        others,
        from: Vec::new(),
    };
    let mut open: Vec<&Span> = Vec::new();
    let mut before: Option<&Span> = None;
    for span in &spans {
        let same = |before: &Span| (before.first, before.last) == (span.first, span.last);
        if let Some(before) = before.filter(|before| same(before)) {
            if before.rule.allow != span.rule.allow {
                return Err(AccessError::Contradiction(span.rule));
            }
            continue;
        }
        before = Some(span);
        while let Some(inner) = open.pop_if(|inner| inner.last < span.first) {
            answers.after(inner, &open);
        }
        answers.begin(span.first, span.rule.allow);
        open.push(span);
    }
    while let Some(inner) = open.pop() {
        answers.after(inner, &open);
    }
    Ok(answers.from)
}

/// Addresses from which the answer is another one.
struct Answers {
    others: bool,
    from: Vec<u128>,
}

impl Answers {
    /// The answer from this address on, no lower than any before.
    fn begin(&mut self, at: u128, allow: bool) {
        self.from.pop_if(|last| *last == at);
        if self.others ^ (self.from.len() % 2 == 1) != allow {
            self.from.push(at);
        }
    }

    /// Goes back to what the prefixes around say when one ends, unless it ends with the address space.
    fn after(&mut self, ended: &Span, around: &[&Span]) {
        let answer = around.last().map_or(self.others, |span| span.rule.allow);
        if let Some(next) = ended.last.checked_add(1) {
            self.begin(next, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str, allow: bool) -> AccessRule {
        let (address, prefix) = text.split_once('/').unwrap();
        AccessRule {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            allow,
        }
    }

    fn list(allow: &[&str], deny: &[&str], others: bool) -> Access {
        let rules: Vec<AccessRule> = (allow.iter().map(|text| rule(text, true)))
            .chain(deny.iter().map(|text| rule(text, false)))
            .collect();
        Access::new(&rules, others).unwrap()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let access = list(
            &["10.0.0.0/8", "10.1.2.0/24", "2001:db8::/32"],
            &["10.1.0.0/16", "10.1.2.77/32", "2001:db8:bad::/48"],
            false,
        );
        for (source, allowed) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.0.255.255", true),
            ("10.1.0.0", false),
            ("10.1.1.255", false),
            ("10.1.2.0", true),
            ("10.1.2.76", true),
            ("10.1.2.77", false),
            ("10.1.2.78", true),
            ("10.1.2.255", true),
            ("10.1.3.0", false),
            ("10.2.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("255.255.255.255", false),
            ("::", false),
            ("2001:db8::1", true),
            ("2001:db8:bac:ffff::", true),
            ("2001:db8:bad::", false),
            ("2001:db8:bad:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8:bae::", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(access.allows(source.parse().unwrap()), allowed, "{source}");
        }
    }

    #[test]
    fn a_prefix_reaches_to_either_end_of_the_address_space() {
        let access = list(&["0.0.0.0/0", "::/0"], &["255.0.0.0/8", "ff00::/8"], false);
        for (source, allowed) in [
            ("0.0.0.0", true),
            ("254.255.255.255", true),
            ("255.0.0.0", false),
            ("255.255.255.255", false),
            ("::", true),
            ("feff::", true),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
        ] {
            assert_eq!(access.allows(source.parse().unwrap()), allowed, "{source}");
        }
    }

    #[test]
    fn families_do_not_mix() {
        let access = list(&["::/0"], &[], false);
        assert!(!access.allows(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))));
        assert!(access.allows(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let (yes, no) = (rule("10.1.2.3/8", true), rule("10.0.0.0/8", false));
        assert_eq!(Access::new(&[yes, yes], false), Access::new(&[yes], false));
        assert_eq!(
            Access::new(&[yes, no], false),
            Err(AccessError::Contradiction(no))
        );
        let long = rule("10.0.0.0/33", true);
        assert_eq!(Access::new(&[long], false), Err(AccessError::TooLong(long)));
    }

    #[test]
    fn a_hundred_thousand_prefixes_fit_in_a_megabyte() {
        let rules: Vec<AccessRule> = (0..100_000u32)
            .map(|n| AccessRule {
                address: Ipv4Addr::from_bits(n << 12).into(),
                prefix: 24,
                allow: false,
            })
            .collect();
        let access = Access::new(&rules, true).unwrap();
        assert_eq!(access.v4.len(), 200_000);
        for n in [0, 1, 4711, 99_999u32] {
            let inside = Ipv4Addr::from_bits((n << 12) + 200);
            let beside = Ipv4Addr::from_bits((n << 12) + 300);
            assert!(!access.allows(inside.into()), "{inside}");
            assert!(access.allows(beside.into()), "{beside}");
        }
    }

    proptest! {
        #[test]
        fn the_answer_is_that_of_a_search_through_all(
            prefixes in prop::collection::vec((any::<u8>(), 0u8..=8, any::<bool>()), 0..40),
            others in any::<bool>(),
        ) {
            // Eight bits of the address space, so that prefixes meet; each once.
            let mut rules: Vec<AccessRule> = Vec::new();
            for (byte, length, allow) in prefixes {
                let masked = byte & u8::MAX.checked_shl(8 - u32::from(length)).unwrap_or(0);
                let rule = AccessRule { address: Ipv4Addr::new(10, 0, 0, masked).into(), prefix: 24 + length, allow };
                if rules.iter().all(|other| (other.address, other.prefix) != (rule.address, rule.prefix)) {
                    rules.push(rule);
                }
            }
            let access = Access::new(&rules, others).unwrap();
            for byte in 0..=255u8 {
                let holds = |rule: &&AccessRule| {
                    let IpAddr::V4(address) = rule.address else { return false };
                    u16::from(byte ^ address.octets()[3]) >> (32 - rule.prefix) == 0
                };
                let expected = rules.iter().filter(holds).max_by_key(|rule| rule.prefix).map_or(others, |rule| rule.allow);
                prop_assert_eq!(access.allows(Ipv4Addr::new(10, 0, 0, byte).into()), expected, "10.0.0.{}", byte);
            }
            prop_assert_eq!(access.allows(Ipv4Addr::new(10, 0, 1, 0).into()), others);
        }
    }
}
