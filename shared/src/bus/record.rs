//! The records, their form on the wire, and what makes one valid.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::key::{Key, Tier, is_name};
use super::life::Signature;

/// The version this build writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Largest record on the wire, in bytes: a node record with [`MAX_SERVICES`] whose names are as long as they may be has some 180 KiB. A quarter of
/// what NATS servers take in one message by default.
pub const MAX_RECORD: usize = 256 << 10;
/// Longest free text (reasons, software versions) in a record, in bytes.
pub const MAX_TEXT: usize = 512;
/// Most addresses in one node record.
pub const MAX_ADDRESSES: usize = 256;
/// Most services in one node record.
pub const MAX_SERVICES: usize = 1024;
/// Most targets by registration that a node follows for one service. More are left out: a member gone mad must not fill the tables of those
/// who forward to them, or have them probed without end.
pub const MAX_REGISTERED: usize = 1024;

/// A record of the bus. Its key follows from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// A node of a tier.
    Node(NodeRecord),
    /// The state of a target of a service.
    Target(TargetRecord),
    /// An L7 node offering itself to L4.
    Registration(RegistrationRecord),
    /// A VIP at a node.
    Vip(VipRecord),
    /// What an operator asked of a node.
    Drain(DrainRecord),
}

/// A node of a tier and how it fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Tier of the node.
    pub tier: Tier,
    /// The node's `node.id`.
    pub id: String,
    /// Addresses it works with.
    pub addresses: Vec<IpAddr>,
    /// Whether it can take traffic.
    pub ready: bool,
    /// Whether it is being emptied.
    pub draining: bool,
    /// Whether traffic is in fact moved: workers turning, ports up.
    pub forwarding: bool,
    /// Load from 0.0 (idle) to 1.0 (full).
    pub load: f64,
    /// Name and version of the software.
    pub software: String,
    /// Services it serves, with the state of their targets as the node sees it.
    pub services: Vec<ServiceState>,
    /// How long receivers trust this record after the last put, in milliseconds of connected time; 0 is for ever.
    pub ttl_ms: u64,
}

/// A service at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Name of the service.
    pub service: String,
    /// Address it is reached at.
    pub vip: IpAddr,
    /// Targets that are up.
    pub healthy: u32,
    /// Targets in all.
    pub total: u32,
}

/// The state of a target, as one observer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// Name of the service.
    pub service: String,
    /// Address of the target.
    pub addr: SocketAddr,
    /// Whether it is up.
    pub up: bool,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds of Unix time by the observer's clock; to be shown, not reckoned with.
    pub since_unix_ms: u64,
    /// The observer's `node.id`.
    pub seen_by: String,
}

/// An L7 node offering itself to L4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationRecord {
    /// Name of the service it offers itself for.
    pub service: String,
    /// Where it takes connections.
    pub addr: SocketAddr,
    /// The offering node's `node.id`.
    pub node: String,
    /// Share of new connections relative to the others; 0 takes none.
    pub weight: u32,
    /// Finish what is running, send nothing new.
    pub draining: bool,
    /// How long receivers trust this record after the last put, in milliseconds of connected time; 0 is for ever.
    pub ttl_ms: u64,
}

/// A VIP at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipRecord {
    /// The virtual address.
    pub vip: IpAddr,
    /// The node's `node.id`.
    pub node: String,
    /// What the routers are told.
    pub state: VipState,
    /// Why.
    pub why: String,
    /// Since when, in milliseconds of Unix time by the node's clock; to be shown, not reckoned with.
    pub since_unix_ms: u64,
}

/// What the routers are told about a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VipState {
    /// Come here.
    Announced,
    /// Come here if there is no other way.
    Depreferred,
    /// Don't come here.
    Withdrawn,
}

/// What an operator asked of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// Tier of the node.
    pub tier: Tier,
    /// The node's `node.id`.
    pub id: String,
    /// Whether to empty it.
    pub drain: bool,
    /// Who asked.
    pub by: String,
    /// When, in milliseconds of Unix time; to be shown, not reckoned with.
    pub since_unix_ms: u64,
}

macro_rules! records {
    ($($type:ident => $variant:ident),*) => {$(
        impl From<$type> for Record {
            fn from(record: $type) -> Self {
                Self::$variant(record)
            }
        }
    )*};
}

records! { NodeRecord => Node, TargetRecord => Target, RegistrationRecord => Registration, VipRecord => Vip, DrainRecord => Drain }

/// Milliseconds of Unix time now, for the `since_unix_ms` of records.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

impl Record {
    /// The key it is kept under.
    pub fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::Node {
                tier: node.tier,
                id: node.id.clone(),
            },
            Self::Target(target) => Key::Target {
                service: target.service.clone(),
                addr: target.addr,
            },
            Self::Registration(offer) => Key::Registration {
                service: offer.service.clone(),
                addr: offer.addr,
            },
            Self::Vip(vip) => Key::Vip {
                vip: vip.vip,
                node: vip.node.clone(),
            },
            Self::Drain(drain) => Key::Drain {
                tier: drain.tier,
                id: drain.id.clone(),
            },
        }
    }

    /// How long to trust it after the last put, in connected time; none is for ever.
    pub fn ttl(&self) -> Option<Duration> {
        let ms = match self {
            Self::Node(node) => node.ttl_ms,
            Self::Registration(offer) => offer.ttl_ms,
            Self::Target(_) | Self::Vip(_) | Self::Drain(_) => 0,
        };
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// Why a receiver should not act on it.
    pub fn validate(&self) -> Result<(), Invalid> {
        if !self.key().is_valid() {
            return Err(Invalid::Name);
        }
        let (names, texts): (&[&str], &[&str]) = match self {
            Self::Node(node) => {
                if !(0.0..=1.0).contains(&node.load) {
                    return Err(Invalid::Load);
                }
                if node
                    .services
                    .iter()
                    .any(|service| !is_name(&service.service))
                {
                    return Err(Invalid::Name);
                }
                if node
                    .services
                    .iter()
                    .any(|service| service.healthy > service.total)
                {
                    return Err(Invalid::Count);
                }
                if node.services.len() > MAX_SERVICES || node.addresses.len() > MAX_ADDRESSES {
                    return Err(Invalid::Count);
                }
                (&[], &[&node.software])
            }
            Self::Target(target) => (&[&target.seen_by], &[&target.reason]),
            Self::Registration(offer) => (&[&offer.node], &[]),
            Self::Vip(vip) => (&[], &[&vip.why]),
            Self::Drain(drain) => (&[], &[&drain.by]),
        };
        if !names.iter().all(|name| is_name(name)) {
            return Err(Invalid::Name);
        }
        if texts
            .iter()
            .any(|text| text.len() > MAX_TEXT || text.chars().any(char::is_control))
        {
            return Err(Invalid::Text);
        }
        if let Self::Registration(RegistrationRecord { addr, .. })
        | Self::Target(TargetRecord { addr, .. }) = self
            && (addr.ip().is_unspecified() || addr.ip().is_multicast() || addr.port() == 0)
        {
            return Err(Invalid::Address);
        }
        Ok(())
    }

    /// The record as bytes of the wire: JSON with its version.
    ///
    /// # Errors
    /// If it is not valid or too large.
    pub fn encode(&self) -> Result<Vec<u8>, Invalid> {
        self.encode_by(None)
    }

    /// The same, with the life that writes it.
    pub(super) fn encode_by(&self, life: Option<Signature>) -> Result<Vec<u8>, Invalid> {
        self.validate()?;
        let bytes = serde_json::to_vec(&Envelope {
            version: VERSION,
            life,
            record: self,
        })
        .map_err(|_| Invalid::Form)?;
        if bytes.len() > MAX_RECORD {
            Err(Invalid::Size)
        } else {
            Ok(bytes)
        }
    }

    /// The record of bytes from the wire.
    ///
    /// # Errors
    /// If it is too large, of another version, not a record, or not valid.
    pub fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        Self::decode_by(bytes).map(|(record, _)| record)
    }

    /// The same, and the life that wrote it, if it says.
    pub(super) fn decode_by(bytes: &[u8]) -> Result<(Self, Option<Signature>), Invalid> {
        if bytes.len() > MAX_RECORD {
            return Err(Invalid::Size);
        }
        // The version first: a newer record may have any other shape.
        let Versioned { version } = serde_json::from_slice(bytes).map_err(|_| Invalid::Form)?;
        if version != VERSION {
            return Err(Invalid::Version(version));
        }
        let Envelope::<Self> { record, life, .. } =
            serde_json::from_slice(bytes).map_err(|_| Invalid::Form)?;
        record.validate()?;
        Ok((record, life))
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<R> {
    version: u32,
    /// Since the second build that spoke version 1: to those before it is an unknown field, which they pass over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    life: Option<Signature>,
    record: R,
}

/// Why a record is not acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Larger than [`MAX_RECORD`].
    #[error("larger than a record may be")]
    Size,
    /// Not JSON, or not the JSON of a record.
    #[error("not a record")]
    Form,
    /// Written by a build that speaks another version.
    #[error("of version {0}, which this build does not know")]
    Version(u32),
    /// A key that is none, or does not fit its record.
    #[error("under a key that is not its own")]
    Key,
    /// A name that is none.
    #[error("with a name that is none")]
    Name,
    /// Text too long or with control characters.
    #[error("with text that is too long or not printable")]
    Text,
    /// A load outside 0.0 to 1.0.
    #[error("with a load outside 0.0 to 1.0")]
    Load,
    /// A count that can't be, or a list too long.
    #[error("with a count that can't be")]
    Count,
    /// An address nobody can be reached at.
    #[error("with an address nobody can be reached at")]
    Address,
    /// More keys than a store holds.
    #[error("beyond the number of keys a node keeps")]
    Full,
}

impl Invalid {
    /// All that [`Self::label`] says.
    pub const LABELS: [&str; 10] = [
        "size", "form", "version", "key", "name", "text", "load", "count", "address", "full",
    ];

    /// The reason as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Form => "form",
            Self::Version(_) => "version",
            Self::Key => "key",
            Self::Name => "name",
            Self::Text => "text",
            Self::Load => "load",
            Self::Count => "count",
            Self::Address => "address",
            Self::Full => "full",
        }
    }
}
