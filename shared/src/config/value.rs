//! Values as they stand in a document, and how Rust types are read from them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Characters of a key or text that a mistake shows.
pub(super) const SHOWN: usize = 60;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction; may be NaN or infinite, as TOML allows both.
    Float(f64),
    /// Text; TOML dates arrive as text too.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// A table: keys and values, in key order.
    Table(BTreeMap<String, Value>),
}

impl Value {
    /// What kind of thing this is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::String(_) => "text",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    /// The text, where it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

/// Shows scalars as they are written (shortened where long), lists and tables by kind.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::String(text) => Quoted(text).fmt(f),
            Self::Array(_) | Self::Table(_) => f.write_str(self.kind()),
        }
    }
}

/// Text in quotes, shortened where long.
pub(super) struct Quoted<'t>(pub(super) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.0.char_indices().nth(SHOWN);
        match rest.and_then(|(at, _)| self.0.get(..at)) {
            Some(beginning) => write!(f, "{beginning:?}..."),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// A type that can be read from a [`Value`].
pub trait FromValue: Sized {
    /// What a user should write, as in "expected ...": `a duration such as "2s"`.
    const EXPECTED: &'static str;

    /// Reads the value.
    ///
    /// # Errors
    /// The hint for the user ("write \"5s\""), which follows "expected ..., got ..."; an empty string where [`Self::EXPECTED`] says it all. Of a
    /// list, the hint is the whole message: what is wrong in it, and what to write. So a type that no list can be gives none for one.
    fn from_value(value: &Value) -> Result<Self, String>;

    /// What is wrong with items of a list, each with its place; nothing where that is said of the list as a whole.
    fn wrong_items(_value: &Value) -> Vec<(usize, String)> {
        Vec::new()
    }

    /// The word that the reference pages have for the type; empty where one word doesn't say it.
    const WORD: &'static str = "";

    /// The value as a configuration has it, without quotes: `1h`; empty where it is only worked out.
    fn written(&self) -> String {
        String::new()
    }
}

/// A type whose values may have to lie within a range: see [`Table::within`](super::Table::within).
pub trait Bounded: FromValue + PartialOrd {
    /// What a value is, as in "expected a duration from 1s to 1h": `a duration`.
    const KIND: &'static str;

    /// What a number without a unit may be meant to be, as written with one, the likeliest first; nothing where no unit belongs.
    fn meant_by(_number: u64) -> Vec<(String, Self)> {
        Vec::new()
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(value) => Ok(*value),
            _ => Err(String::new()),
        }
    }

    const WORD: &'static str = "true false";

    fn written(&self) -> String {
        self.to_string()
    }
}

macro_rules! integers {
    ($($type:ty, $expected:literal;)*) => {$(
        impl FromValue for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value) -> Result<Self, String> {
                match value {
                    Value::Integer(value) => Self::try_from(*value).map_err(|_| String::new()),
                    Value::String(text) if text.parse::<$type>().is_ok() => Err(format!("write {text}, without quotes")),
                    _ => Err(String::new()),
                }
            }

            fn written(&self) -> String {
                self.to_string()
            }
        }

        impl Bounded for $type {
            const KIND: &'static str = "an integer";
        }
    )*};
}

integers! {
    u8, "an integer from 0 to 255";
    u16, "an integer from 0 to 65535";
    u32, "an integer from 0 to 4294967295";
    u64, "an integer from 0 to 9223372036854775807";
    usize, "an integer, 0 or more";
    i64, "an integer";
}

impl FromValue for f64 {
    const EXPECTED: &'static str = "a finite number";

    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(value) if value.is_finite() => Ok(*value),
            Value::Integer(value) => Ok(*value as Self),
            _ => Err(String::new()),
        }
    }
    fn written(&self) -> String {
        self.to_string()
    }
}

impl Bounded for f64 {
    const KIND: &'static str = "a number";
}

impl FromValue for String {
    const EXPECTED: &'static str = "text";

    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                Err(format!("write \"{value}\", in quotes"))
            }
            _ => Err(String::new()),
        }
    }
    fn written(&self) -> String {
        self.clone()
    }
}

impl FromValue for PathBuf {
    const EXPECTED: &'static str = "a path such as \"/etc/weir/key.pem\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("") | None => Err(String::new()),
            Some(text) if text.contains('\0') => Err("a path can't hold a NUL byte".to_owned()),
            Some(text) => Ok(Self::from(text)),
        }
    }
    const WORD: &'static str = "path";
}

/// Reads `value` as text through `FromStr`, with no hint of its own.
fn from_text<T: std::str::FromStr>(value: &Value) -> Result<T, String> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(String::new)
}

impl FromValue for IpAddr {
    const EXPECTED: &'static str = "an IP address such as \"10.0.0.1\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        from_text(value)
    }
}

impl FromValue for Ipv4Addr {
    const EXPECTED: &'static str = "an IPv4 address such as \"10.0.0.1\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        from_text(value)
    }
}

impl FromValue for Ipv6Addr {
    const EXPECTED: &'static str = "an IPv6 address such as \"2001:db8::1\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        from_text(value)
    }
}

impl FromValue for SocketAddr {
    const EXPECTED: &'static str =
        "an address with a port such as \"10.0.0.1:80\" or \"[2001:db8::1]:80\"";

    fn from_value(value: &Value) -> Result<Self, String> {
        from_text(value).map_err(|_| match value.as_str() {
            Some(text) if text.parse::<IpAddr>().is_ok() => "the port is missing".to_owned(),
            Some(text) if text.starts_with(':') => {
                format!("write \"0.0.0.0{text}\" to listen on every address")
            }
            Some(text) if text.starts_with("localhost:") => {
                "names are not looked up; write 127.0.0.1".to_owned()
            }
            Some(text) if is_name_with_port(text) => {
                "names are not looked up; write an address".to_owned()
            }
            _ => String::new(),
        })
    }
}

/// Whether this looks like a host's name and a port.
fn is_name_with_port(text: &str) -> bool {
    let Some((name, port)) = text.rsplit_once(':') else {
        return false;
    };
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    let has_letter = name.bytes().any(|byte| byte.is_ascii_alphabetic());
    port.parse::<u16>().is_ok() && has_letter && name.bytes().all(of_name)
}

impl<T: FromValue> FromValue for Vec<T> {
    const EXPECTED: &'static str = "a list";

    fn from_value(value: &Value) -> Result<Self, String> {
        let Value::Array(items) = value else {
            return Err(format!("write [...], each item {}", T::EXPECTED));
        };
        let items = items.iter().enumerate();
        items.map(|(index, item)| read_item(index, item)).collect()
    }

    fn wrong_items(value: &Value) -> Vec<(usize, String)> {
        let Value::Array(items) = value else {
            return Vec::new();
        };
        let items = items.iter().enumerate();
        let wrong = |(index, item)| Some((index, read_item::<T>(index, item).err()?));
        items.filter_map(wrong).collect()
    }

    const WORD: &'static str = "list";

    fn written(&self) -> String {
        let items: Vec<String> = self.iter().map(T::written).collect();
        items.join(" ")
    }
}

/// Reads an item of a list.
///
/// # Errors
/// What is wrong with it, and what to write.
fn read_item<T: FromValue>(index: usize, item: &Value) -> Result<T, String> {
    T::from_value(item).map_err(|hint| {
        let hint = if hint.is_empty() {
            hint
        } else {
            format!("; {hint}")
        };
        format!(
            "item {} should be {}, it is {item}{hint}",
            index + 1,
            T::EXPECTED
        )
    })
}
