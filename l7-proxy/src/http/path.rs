//! The path of a request in the one form that is routed and forwarded.
//!
//! A proxy and a backend that read one path differently are how access rules are walked around, so what can be settled is settled
//! here and the settled form goes to the backend:
//! - escapes of characters that need none are undone (`%61` is `a`, `%2e` is `.`), other escapes get capital digits (RFC 3986 section 6.2.2);
//! - dot segments are resolved (section 5.2.4); one step too many ends at the root;
//! - a raw backslash is escaped.
//!
//! What a backend may still read in two ways:
//! - empty segments (`//`) are forwarded, because some applications mean them, and ignored when routing;
//! - escaped slashes and backslashes (`%2F`, `%5C`), and parameters of segments (`;x=1`, which servlet containers take off before they look a path
//!   up), are forwarded, and the router refuses the request when one of these readings would lead to another route ([`Reason::PathAmbiguous`]);
//! - a dot segment next to one (`..%2F`), or with parameters (`..;`), has no honest use and is refused, like `%00`.

use crate::observe::reason::Reason;
use http::Method;
use http::request::Parts;
use http::uri::PathAndQuery;

/// A path and query that were checked and normalised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    forwarded: PathAndQuery,
    /// What the router reads, where it is not simply the path of `forwarded`.
    routing: Option<Box<str>>,
    /// What backends may read that decode escaped slashes, or take parameters off: mostly nothing.
    readings: Vec<Box<str>>,
}

impl Path {
    /// The path of a request head. `OPTIONS *` is routed as `/` and forwarded as it is.
    ///
    /// # Errors
    /// [`Reason::TargetInvalid`].
    pub fn of(parts: &Parts) -> Result<Path, Reason> {
        match parts.uri.path_and_query() {
            None => Ok(Path::plain(PathAndQuery::from_static("/"))),
            // A URI whose path is left out, its fragment apart (RFC 9110 section 4.2.3).
            Some(sent) if is_empty(sent) => Ok(Path::plain(PathAndQuery::from_static("/"))),
            Some(sent) if sent.as_str() == "*" && parts.method == Method::OPTIONS => {
                Ok(Path::server())
            }
            Some(sent) => Path::new(sent),
        }
    }

    /// The asterisk of `OPTIONS *`, which stands for the server as a whole.
    pub fn server() -> Path {
        Path {
            forwarded: PathAndQuery::from_static("*"),
            routing: Some("/".into()),
            readings: Vec::new(),
        }
    }

    /// Normalises a path and query.
    ///
    /// # Errors
    /// [`Reason::TargetInvalid`].
    pub fn new(sent: &PathAndQuery) -> Result<Path, Reason> {
        let path = sent.path();
        if !path.starts_with('/') {
            return Err(Reason::TargetInvalid);
        }
        if sent.as_str().starts_with('/') && is_plain(path.as_bytes()) {
            return Ok(Path::plain(sent.clone()));
        }
        let normal = remove_dot_segments(&unescape(path)?);
        let readings = readings(&normal);
        for reading in std::iter::once(&normal).chain(&readings) {
            if reading.split('/').any(is_hidden_dot_segment) {
                return Err(Reason::TargetInvalid);
            }
        }
        let forwarded = match sent.query() {
            Some(query) => format!("{normal}?{query}"),
            None => normal.clone(),
        };
        Ok(Path {
            forwarded: PathAndQuery::try_from(forwarded).map_err(|_| Reason::TargetInvalid)?,
            routing: normal
                .contains("//")
                .then(|| without_empty_segments(&normal).into()),
            readings: readings
                .iter()
                .map(|reading| without_empty_segments(reading).into())
                .collect(),
        })
    }

    fn plain(forwarded: PathAndQuery) -> Path {
        Path {
            forwarded,
            routing: None,
            readings: Vec::new(),
        }
    }

    /// The path and query for the backend.
    pub fn forwarded(&self) -> &PathAndQuery {
        &self.forwarded
    }

    /// The same, without a copy.
    pub(crate) fn into_forwarded(self) -> PathAndQuery {
        self.forwarded
    }

    /// The path the router reads: no dot segments, no empty segments.
    pub fn routing(&self) -> &str {
        self.routing
            .as_deref()
            .unwrap_or_else(|| self.forwarded.path())
    }

    /// What else a backend may read: with escaped slashes and backslashes decoded, without parameters, or both.
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        self.readings.iter().map(AsRef::as_ref)
    }
}

/// Whether nothing was sent at all. Such a path says of itself that it is `/`, and is written as nothing.
pub(super) fn is_empty(sent: &PathAndQuery) -> bool {
    sent.as_str() == "/" && *sent != PathAndQuery::from_static("/")
}

/// The other readings of a normal path. A backend may decode before it takes parameters off, or after.
fn readings(normal: &str) -> Vec<String> {
    let decode = |path: &str| path.replace("%2F", "/").replace("%5C", "/");
    let semicolons = |path: &str| path.replace("%3B", ";");
    let mut readings: Vec<String> = Vec::new();
    let mut add = |reading: String| {
        if reading != normal && !readings.contains(&reading) {
            readings.push(reading);
        }
    };
    add(decode(normal));
    if normal.contains(';') || normal.contains("%3B") {
        add(without_parameters(normal));
        add(decode(&without_parameters(normal)));
        add(without_parameters(&decode(normal)));
        add(without_parameters(&decode(&semicolons(normal))));
    }
    readings
}

fn without_parameters(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (number, segment) in path.split('/').enumerate() {
        if number > 0 {
            out.push('/');
        }
        out.push_str(segment.split(';').next().unwrap_or_default());
    }
    out
}

/// Whether there is nothing to normalise: the common case, found in one pass without allocating.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'%' | b'\\' | b';' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = *byte == b'/',
        }
    }
    true
}

/// Undoes escapes of unreserved characters and writes the others in capitals.
fn unescape(path: &str) -> Result<String, Reason> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        if let Some(after) = special.strip_prefix('\\') {
            out.push_str("%5C");
            rest = after;
            continue;
        }
        let digits = special.get(1..3).ok_or(Reason::TargetInvalid)?;
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Reason::TargetInvalid);
        }
        match u8::from_str_radix(digits, 16).map_err(|_| Reason::TargetInvalid)? {
            0 => return Err(Reason::TargetInvalid),
            byte if is_unreserved(byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &special[3..];
    }
    out.push_str(rest);
    Ok(out)
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 section 5.2.4 for a path that begins with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.truncate(out.rfind('/').unwrap_or(0));
                }
                if last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    out
}

/// A dot segment that resolving did not see, because something hides it: an escaped slash beside it, or parameters behind it.
fn is_hidden_dot_segment(segment: &str) -> bool {
    matches!(
        segment.split_once(';').map_or(segment, |(name, _)| name),
        "." | ".."
    )
}

fn without_empty_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for part in path.chars() {
        if part != '/' || !out.ends_with('/') {
            out.push(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(sent: &str) -> Result<Path, Reason> {
        Path::new(&PathAndQuery::try_from(sent).unwrap_or_else(|error| panic!("{sent}: {error}")))
    }

    #[test]
    fn one_path_has_one_form() {
        let table = [
            // (sent, forwarded, routed)
            ("/", "/", "/"),
            ("/a/b", "/a/b", "/a/b"),
            ("/a/b/", "/a/b/", "/a/b/"),
            ("/A/b", "/A/b", "/A/b"),
            ("/a/b?x=../%2e%zz", "/a/b?x=../%2e%zz", "/a/b"),
            ("?x=1", "/?x=1", "/"),
            ("/a?", "/a?", "/a"),
            // Escapes that need not be, and those that must.
            ("/%61%70i/%7euser", "/api/~user", "/api/~user"),
            ("/a%20b%c3%a4", "/a%20b%C3%A4", "/a%20b%C3%A4"),
            ("/a%3fb%23c", "/a%3Fb%23c", "/a%3Fb%23c"),
            ("/%2561", "/%2561", "/%2561"),
            (
                "/a%0d%0aSet-Cookie:x",
                "/a%0D%0ASet-Cookie:x",
                "/a%0D%0ASet-Cookie:x",
            ),
            // Dot segments, RFC 3986 section 5.2.4 and 5.4.
            ("/a/b/c/./../../g", "/a/g", "/a/g"),
            ("/b/c/.", "/b/c/", "/b/c/"),
            ("/b/c/..", "/b/", "/b/"),
            ("/b/c/../", "/b/", "/b/"),
            ("/..", "/", "/"),
            ("/.", "/", "/"),
            ("/../../../g", "/g", "/g"),
            ("/g.", "/g.", "/g."),
            ("/.g", "/.g", "/.g"),
            ("/..g", "/..g", "/..g"),
            ("/g..", "/g..", "/g.."),
            ("/...", "/...", "/..."),
            ("/public/%2e%2E/admin?q", "/admin?q", "/admin"),
            ("/.well-known/x", "/.well-known/x", "/.well-known/x"),
            // Empty segments are kept for the backend and not seen by the router.
            ("//admin", "//admin", "/admin"),
            ("/a//b///c//", "/a//b///c//", "/a/b/c/"),
            ("/a//../b", "/a/b", "/a/b"),
            ("/a/b//../../c", "/a/c", "/a/c"),
        ];
        for (sent, forwarded, routed) in table {
            let path = path(sent).unwrap_or_else(|reason| panic!("{sent}: {reason}"));
            assert_eq!(path.forwarded().as_str(), forwarded, "{sent}");
            assert_eq!(path.routing(), routed, "{sent}");
            assert_eq!(path.readings().count(), 0, "{sent}");
        }
    }

    #[test]
    fn escaped_slashes_and_parameters_are_forwarded_with_their_other_readings_for_the_router() {
        let table: &[(&str, &str, &[&str])] = &[
            (
                "/projects/group%2fname",
                "/projects/group%2Fname",
                &["/projects/group/name"],
            ),
            ("/a%5cb", "/a%5Cb", &["/a/b"]),
            ("/a\\b", "/a%5Cb", &["/a/b"]),
            ("/a/%2F/b", "/a/%2F/b", &["/a/b"]),
            ("/a;v=1/b", "/a;v=1/b", &["/a/b"]),
            ("/a/b;", "/a/b;", &["/a/b"]),
            ("/;x/b", "/;x/b", &["/b"]),
            ("/a/b%3bx", "/a/b%3Bx", &["/a/b"]),
            ("/a;x%2fb/c", "/a;x%2Fb/c", &["/a;x/b/c", "/a/c", "/a/b/c"]),
            ("/a;x;y=1,2/b;z", "/a;x;y=1,2/b;z", &["/a/b"]),
        ];
        for (sent, forwarded, readings) in table {
            let path = path(sent).unwrap();
            assert_eq!(path.forwarded().as_str(), *forwarded, "{sent}");
            assert_eq!(path.readings().collect::<Vec<_>>(), *readings, "{sent}");
            assert_eq!(path.routing(), *forwarded, "{sent}");
        }
    }

    #[test]
    fn trickery_is_refused() {
        for sent in [
            "/a%00b",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%+1",
            "/a%2\u{e4}",
            "/public/..%2fadmin",
            "/public/..%5cadmin",
            "/public%2f../..%2fadmin",
            "/%2e%2e%2fetc/passwd",
            "/a/..;/admin",
            "/a/.;x=1/b",
            "/a/..%3b/admin",
            "/a/..;x%2fadmin",
            "/a/.%2e;/admin",
            "/a/..\\b",
            "*",
        ] {
            assert_eq!(path(sent), Err(Reason::TargetInvalid), "{sent}");
        }
    }

    #[test]
    fn only_options_may_ask_for_everything() {
        let head = |method: &str| {
            http::Request::builder()
                .method(method)
                .uri("*")
                .body(())
                .unwrap()
                .into_parts()
                .0
        };
        assert_eq!(Path::of(&head("GET")), Err(Reason::TargetInvalid));
        let star = Path::of(&head("OPTIONS")).unwrap();
        assert_eq!((star.forwarded().as_str(), star.routing()), ("*", "/"));
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing(sent in "/(([a-c.;~]|%2[eEfF5]|%5c|%61|/){0,12})") {
            if let Ok(once) = path(&sent) {
                let twice = path(once.forwarded().as_str());
                proptest::prop_assert_eq!(twice, Ok(once));
            }
        }

        #[test]
        fn no_reading_of_an_accepted_path_has_dot_segments(sent in "/(([a-b.;]|%2[eEfF]|%5[cC]|\\\\|/){0,12})") {
            if let Ok(path) = path(&sent) {
                for reading in [path.forwarded().path(), path.routing()].into_iter().chain(path.readings()) {
                    proptest::prop_assert!(reading.starts_with('/'));
                    proptest::prop_assert!(!reading.split('/').any(|segment| segment == "." || segment == ".."), "{} in {}", reading, sent);
                }
            }
        }
    }
}
