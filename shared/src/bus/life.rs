//! Which life of a process a record is from: two that share a name are told apart, and so is one from its own earlier life.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::unix_ms;

/// The environment variable in which a process tells the one it starts in its own place who it is.
pub const SUCCEEDS: &str = "WEIR_SUCCEEDS";

/// The identity of one life of a process: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LifeId(u128);

impl LifeId {
    /// Another one each time.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LifeId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_one = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_one {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

impl Serialize for LifeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LifeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|()| serde::de::Error::custom("not 32 hexadecimal digits"))
    }
}

/// A life, and the one it takes the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Which it is.
    pub id: LifeId,
    /// When it began, in milliseconds of Unix time; to be shown, not reckoned with.
    pub started_unix_ms: u64,
    /// The life that started this one to take its place: both are there for a while, and that is no mistake.
    pub succeeds: Option<LifeId>,
}

impl Life {
    /// A new life, in nobody's place.
    pub fn begin() -> Self {
        Self {
            id: LifeId::random(),
            started_unix_ms: unix_ms(),
            succeeds: None,
        }
    }

    /// The life of this process.
    pub fn of_process() -> Self {
        static LIFE: OnceLock<Life> = OnceLock::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "not configuration: said by the process that started this one"
        )]
        let succeeds = || std::env::var(SUCCEEDS).ok()?.parse().ok();
        *LIFE.get_or_init(|| Self {
            succeeds: succeeds(),
            ..Self::begin()
        })
    }
}

/// What a life writes beside a record. Builds that know nothing of it ignore it, and write none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature {
    pub(crate) id: LifeId,
    #[serde(default)]
    pub(crate) started_unix_ms: u64,
    /// The life whose place this one took, which is known to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replaces: Option<LifeId>,
}
