//! The longest of many path prefixes, by whole segments.

use std::cmp::Ordering;

/// Prefixes in an order where everything below a prefix follows it directly, each with a link to the nearest prefix above it. A look-up is
/// one binary search and a walk up those links, which is as long as prefixes are nested.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    sorted: Vec<Prefix>,
}

#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    route: usize,
    above: Option<usize>,
}

impl Prefixes {
    /// Adds a prefix without trailing slash. [`Self::arrange`] before looking anything up.
    pub(super) fn add(&mut self, text: &str, route: usize) {
        self.sorted.push(Prefix {
            text: text.into(),
            route,
            above: None,
        });
    }

    /// Sorts and links what was added. Of two equal prefixes the first holds.
    pub(super) fn arrange(&mut self) {
        self.sorted.sort_by(|a, b| by_segment(&a.text, &b.text));
        self.sorted
            .dedup_by(|later, earlier| later.text == earlier.text);
        let mut open: Vec<usize> = Vec::new();
        for index in 0..self.sorted.len() {
            while let Some(&above) = open.last()
                && !is_below(&self.sorted[index].text, &self.sorted[above].text)
            {
                open.pop();
            }
            self.sorted[index].above = open.last().copied();
            open.push(index);
        }
    }

    /// The route of the longest prefix the path is at or below.
    pub(super) fn longest(&self, path: &str) -> Option<usize> {
        let after = self
            .sorted
            .partition_point(|prefix| by_segment(&prefix.text, path) != Ordering::Greater);
        let mut candidate = after.checked_sub(1);
        while let Some(prefix) = candidate.and_then(|index| self.sorted.get(index)) {
            if is_below(path, &prefix.text) {
                return Some(prefix.route);
            }
            candidate = prefix.above;
        }
        None
    }
}

/// Whether `path` is `prefix` or continues it with a slash.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Byte order with the slash before everything else; otherwise `/api-x` would come between `/api` and `/api/x`.
fn by_segment(a: &str, b: &str) -> Ordering {
    let key = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    a.bytes().map(key).cmp(b.bytes().map(key))
}
