//! Configuration: TOML files, laid over by `WEIR__...` environment variables, parsed into types that can't be wrong.
//!
//! A tier writes one function from a [`Table`] to its own type and hands it to [`Document::parse`]. All mistakes are reported at once,
//! each with its file, line, key and what to do; keys nobody asked for are mistakes too, with the nearest known key as the hint.
//!
//! ```
//! use shared::config::Document;
//!
//! let document = Document::from_toml("l7.toml", "[node]\nid = \"l7-1\"\ndrain_tme = \"5s\"").unwrap();
//! let mistakes = document
//!     .parse(|root| {
//!         let mut node = root.required_table("node")?;
//!         let drain_time = node.or("drain_time", std::time::Duration::from_secs(30));
//!         Some((node.required::<String>("id")?, drain_time))
//!     })
//!     .unwrap_err();
//! assert_eq!(mistakes.to_string(), "l7.toml:3: node.drain_tme: unknown key — did you mean `drain_time`?");
//! ```

mod changes;
mod configuration;
mod declared;
mod document;
mod environment;
mod files;
mod foreign;
mod lines;
mod mistakes;
mod open;
mod place;
pub mod reference;
pub mod sections;
mod table;
mod units;
mod value;

pub use changes::{Change, changes};
pub use configuration::{Configuration, Loaded, Unusable};
pub use declared::Written;
pub(crate) use document::read;
pub use document::{Document, MAX_FILE, Parsed};
pub use files::{MAX_NAMED_FILE, NamedFile};
pub(crate) use files::{Reach, directory, read as read_named};
pub use mistakes::{Mistake, Mistakes, Warning};
pub use open::open_regular;
pub use place::Place;
pub use table::{Table, nearest};
pub use units::{ByteSize, Cidr};
pub use value::{Bounded, FromValue, Value};

#[cfg(test)]
mod tests;
