//! What the bus keeps records under.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a node or a service, in bytes.
pub const MAX_NAME: usize = 64;

/// Whether `text` can name a node or a service: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A tier of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The L4 gateway.
    L4,
    /// The HTTP proxy.
    L7,
    /// The BGP speaker as its own process.
    Bgp,
    /// The health observer.
    Health,
}

impl Tier {
    const ALL: [Self; 4] = [Self::L4, Self::L7, Self::Bgp, Self::Health];

    /// The tier's name in keys and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L4 => "l4",
            Self::L7 => "l7",
            Self::Bgp => "bgp",
            Self::Health => "health",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tier {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.as_str() == text)
            .ok_or(())
    }
}

/// The key of a record. Displays as a path: `node/l4/l4-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `node/<tier>/<id>`
    Node {
        /// Tier of the node.
        tier: Tier,
        /// The node's `node.id`.
        id: String,
    },
    /// `target/<service>/<addr>`
    Target {
        /// Name of the service.
        service: String,
        /// Address of the target.
        addr: SocketAddr,
    },
    /// `registration/<service>/<addr>`
    Registration {
        /// Name of the service.
        service: String,
        /// Address on offer.
        addr: SocketAddr,
    },
    /// `vip/<vip>/<node>`
    Vip {
        /// The virtual address.
        vip: IpAddr,
        /// The announcing node's `node.id`.
        node: String,
    },
    /// `drain/<tier>/<id>`
    Drain {
        /// Tier of the node.
        tier: Tier,
        /// The node's `node.id`.
        id: String,
    },
}

impl Key {
    /// Whether every name in it is one ([`is_name`]).
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Node { id, .. } | Self::Drain { id, .. } => is_name(id),
            Self::Target { service, .. } | Self::Registration { service, .. } => is_name(service),
            Self::Vip { node, .. } => is_name(node),
        }
    }

    /// Kind, group and member: the three words of the path.
    pub(super) fn words(&self) -> [String; 3] {
        match self {
            Self::Node { tier, id } => ["node".to_owned(), tier.to_string(), id.clone()],
            Self::Target { service, addr } => {
                ["target".to_owned(), service.clone(), addr.to_string()]
            }
            Self::Registration { service, addr } => {
                ["registration".to_owned(), service.clone(), addr.to_string()]
            }
            Self::Vip { vip, node } => ["vip".to_owned(), vip.to_string(), node.clone()],
            Self::Drain { tier, id } => ["drain".to_owned(), tier.to_string(), id.clone()],
        }
    }

    /// The key of three words; none if they don't make one.
    pub(super) fn of_words(kind: &str, group: &str, member: &str) -> Option<Self> {
        let key = match kind {
            "node" => Self::Node {
                tier: group.parse().ok()?,
                id: member.to_owned(),
            },
            "target" => Self::Target {
                service: group.to_owned(),
                addr: member.parse().ok()?,
            },
            "registration" => Self::Registration {
                service: group.to_owned(),
                addr: member.parse().ok()?,
            },
            "vip" => Self::Vip {
                vip: group.parse().ok()?,
                node: member.to_owned(),
            },
            "drain" => Self::Drain {
                tier: group.parse().ok()?,
                id: member.to_owned(),
            },
            _ => return None,
        };
        key.is_valid().then_some(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join("/"))
    }
}

impl FromStr for Key {
    type Err = ();

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.splitn(3, '/');
        match (words.next(), words.next(), words.next()) {
            (Some(kind), Some(group), Some(member)) => {
                Self::of_words(kind, group, member).ok_or(())
            }
            _ => Err(()),
        }
    }
}

/// Which keys a watcher wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// All of them.
    All,
    /// One node.
    Node(Tier, String),
    /// What is on offer for a service.
    Registrations(String),
    /// What is on offer for every service.
    AllRegistrations,
    /// Every VIP at every node.
    AllVips,
    /// What operators asked of one node.
    Drain(Tier, String),
}

impl Prefix {
    /// Whether `key` is among those wanted.
    pub fn matches(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::All, _)
            | (Self::AllRegistrations, Key::Registration { .. })
            | (Self::AllVips, Key::Vip { .. }) => true,
            (Self::Node(want, name), Key::Node { tier, id })
            | (Self::Drain(want, name), Key::Drain { tier, id }) => want == tier && name == id,
            (Self::Registrations(want), Key::Registration { service, .. }) => want == service,
            _ => false,
        }
    }
}
