//! What a service grants to whom: limits, access, and that a source stays with its target.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::secret::Secret;

/// Who may open how many flows of a service, and where a source's go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which sources may use it; all without one.
    pub access: Option<Arc<Access>>,
    /// What the others get. By default nothing.
    pub on_denied: Refusal,
    /// What it takes at most.
    pub limits: FlowLimits,
    /// What a new flow beyond a limit gets. By default an RST.
    pub on_limit: Refusal,
    /// Keeps new flows of a source at the target of its last one; of no effect with `one_packet`.
    pub persistence: Option<Persistence>,
    /// UDP: schedules each datagram of a client anew.
    pub one_packet: bool,
}

impl Default for Policy {
    /// Everybody may do anything.
    fn default() -> Self {
        Self {
            access: None,
            on_denied: Refusal::Drop,
            limits: FlowLimits::default(),
            on_limit: Refusal::Reset,
            persistence: None,
            one_packet: false,
        }
    }
}

/// What a packet gets that is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing. A TCP client sends its SYN again after a second, then after two and more.
    Drop,
    /// An RST; for UDP a port unreachable (rate-limited).
    Reset,
}

/// Limits on the flows of a service. All hold for the workers of a process together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlowLimits {
    /// Of the whole service.
    pub service: Quota,
    /// Of each target. One at its limit gets no new flows until it is below; others get them.
    pub target: Quota,
    /// Of each source.
    pub source: Quota,
    /// What counts as one source.
    pub source_prefix: SourcePrefix,
}

/// What somebody may have; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quota {
    /// Flows in the table, those that are closing included.
    pub connections: u32,
    /// New flows a second, as many of them at once.
    pub per_second: u32,
}

impl Quota {
    /// Whether there is any limit.
    pub(crate) fn is_limited(self) -> bool {
        self.connections > 0 || self.per_second > 0
    }
}

/// Keeps sources at their targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// For so long after a source's last flow was opened or seen; at most a day.
    pub timeout: Duration,
    /// What counts as one source.
    pub prefix: SourcePrefix,
    /// Whose other services' flows count as well, if any's do.
    pub group: Option<PersistenceGroup>,
}

/// Services whose sources stay with one host, whichever of them they use (a firewall mark in LVS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PersistenceGroup(u64);

impl PersistenceGroup {
    /// The group of this name at a VIP: the same for as long as the process runs.
    #[must_use]
    pub fn new(vip: IpAddr, name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (vip, name).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// For [`SourcePrefix::hash`].
    pub(crate) fn number(self, secret: &Secret, kind: u64) -> u64 {
        secret.hash(self.0, kind)
    }
}

/// How many leading bits of a client's address say whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePrefix {
    /// Of an IPv4 address, at most 32.
    pub v4: u8,
    /// Of an IPv6 address, at most 128.
    pub v6: u8,
}

impl Default for SourcePrefix {
    /// Each address is a source.
    fn default() -> Self {
        Self { v4: 32, v6: 128 }
    }
}

impl SourcePrefix {
    /// The first address of a client's source.
    #[must_use]
    pub fn of(self, client: IpAddr) -> IpAddr {
        match client {
            IpAddr::V4(client) => {
                let hosts = u32::MAX.checked_shr(u32::from(self.v4)).unwrap_or(0);
                IpAddr::V4((client.to_bits() & !hosts).into())
            }
            IpAddr::V6(client) => {
                let hosts = u128::MAX.checked_shr(u32::from(self.v6)).unwrap_or(0);
                IpAddr::V6((client.to_bits() & !hosts).into())
            }
        }
    }

    /// The keyed hash of a client's source, with a number to tell whose source it is.
    pub(crate) fn hash(self, secret: &Secret, client: IpAddr, of: u64) -> u64 {
        let bits = match self.of(client) {
            IpAddr::V4(source) => source.to_ipv6_mapped().to_bits(),
            IpAddr::V6(source) => source.to_bits(),
        };
        secret.hash(secret.hash((bits >> 64) as u64, bits as u64), of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_prefix_are_one_source() {
        let prefix = SourcePrefix { v4: 24, v6: 64 };
        let of = |text: &str| prefix.of(text.parse().unwrap()).to_string();
        assert_eq!(of("10.1.2.77"), "10.1.2.0");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        let whole = SourcePrefix { v4: 0, v6: 0 };
        assert_eq!(
            whole.of("10.1.2.77".parse().unwrap()).to_string(),
            "0.0.0.0"
        );
        assert_eq!(whole.of("2001:db8::1".parse().unwrap()).to_string(), "::");
        let each = SourcePrefix::default();
        for text in ["10.1.2.77", "2001:db8::1"] {
            assert_eq!(each.of(text.parse().unwrap()).to_string(), text);
        }
    }

    #[test]
    fn sources_of_services_are_told_apart() {
        let secret = Secret::new(std::array::from_fn(|n| n as u8));
        let prefix = SourcePrefix { v4: 24, v6: 64 };
        let hash = |text: &str, of| prefix.hash(&secret, text.parse().unwrap(), of);
        assert_eq!(hash("10.1.2.3", 1), hash("10.1.2.4", 1));
        assert_ne!(hash("10.1.2.3", 1), hash("10.1.3.3", 1));
        assert_ne!(hash("10.1.2.3", 1), hash("10.1.2.3", 2));
    }
}
