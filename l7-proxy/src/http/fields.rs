//! Which of the fields that something is done about a head has.

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, REFERER, TE, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};

use super::forwarded::is_about_client;

pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(super) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Goes with `Upgrade: h2c`, which never passes.
pub(super) const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A field that something is done about, or a family of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Connection,
    KeepAlive,
    ProxyConnection,
    TransferEncoding,
    Upgrade,
    Http2Settings,
    Te,
    ProxyAuthorization,
    ProxyAuthenticate,
    ContentLength,
    Cookie,
    Expect,
    Host,
    Referer,
    UserAgent,
    /// All that say who the client is, in whatever spelling.
    AboutClient,
}

impl Field {
    fn named(name: &HeaderName) -> Option<Field> {
        Some(match *name {
            CONNECTION => Field::Connection,
            TRANSFER_ENCODING => Field::TransferEncoding,
            UPGRADE => Field::Upgrade,
            TE => Field::Te,
            PROXY_AUTHORIZATION => Field::ProxyAuthorization,
            PROXY_AUTHENTICATE => Field::ProxyAuthenticate,
            CONTENT_LENGTH => Field::ContentLength,
            COOKIE => Field::Cookie,
            EXPECT => Field::Expect,
            HOST => Field::Host,
            REFERER => Field::Referer,
            USER_AGENT => Field::UserAgent,
            FORWARDED => Field::AboutClient,
            _ => match name.as_str() {
                "keep-alive" => Field::KeepAlive,
                "proxy-connection" => Field::ProxyConnection,
                "http2-settings" => Field::Http2Settings,
                name if is_about_client(name) => Field::AboutClient,
                _ => return None,
            },
        })
    }
}

/// The fields a head has, or had, as far as something is done about them: what is taken out of it stays in here, and what is put in isn't added.
///
/// Most heads have few, and one walk over the names that are there is cheaper than to look for each that might be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u16);

impl Fields {
    /// Those of a head.
    pub fn of(headers: &HeaderMap) -> Fields {
        let mut fields = Fields::default();
        for name in headers.keys() {
            fields.note(name);
        }
        fields
    }

    /// The head has this field as well.
    pub(crate) fn note(&mut self, name: &HeaderName) {
        if let Some(field) = Field::named(name) {
            self.0 |= bit(field);
        }
    }

    /// Whether there is this one.
    pub(crate) fn has(self, field: Field) -> bool {
        self.0 & bit(field) != 0
    }

    /// Whether there is one that belongs to a request's connection.
    pub(crate) fn has_any_of_connection(self) -> bool {
        self.0 & (bit(Field::ContentLength) - 1) != 0
    }
}

/// Each field has its own.
const fn bit(field: Field) -> u16 {
    1 << field as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn each_field_is_told_by_its_name_alone() {
        let table: &[(&str, Field, bool)] = &[
            ("connection", Field::Connection, true),
            ("keep-alive", Field::KeepAlive, true),
            ("proxy-connection", Field::ProxyConnection, true),
            ("transfer-encoding", Field::TransferEncoding, true),
            ("upgrade", Field::Upgrade, true),
            ("http2-settings", Field::Http2Settings, true),
            ("te", Field::Te, true),
            ("proxy-authorization", Field::ProxyAuthorization, true),
            ("proxy-authenticate", Field::ProxyAuthenticate, true),
            ("content-length", Field::ContentLength, false),
            ("cookie", Field::Cookie, false),
            ("expect", Field::Expect, false),
            ("host", Field::Host, false),
            ("referer", Field::Referer, false),
            ("user-agent", Field::UserAgent, false),
            ("forwarded", Field::AboutClient, false),
            ("x-real-ip", Field::AboutClient, false),
            ("x_real_ip", Field::AboutClient, false),
            ("x-forwarded-for", Field::AboutClient, false),
            ("x_forwarded-anything", Field::AboutClient, false),
        ];
        for (name, field, is_of_connection) in table {
            let mut headers = HeaderMap::new();
            for name in [*name, "accept", "x-other"] {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_static("x"));
            }
            let fields = Fields::of(&headers);
            assert_eq!(fields.0, bit(*field), "{name}");
            assert!(fields.has(*field), "{name}");
            assert_eq!(fields.has_any_of_connection(), *is_of_connection, "{name}");
        }
        assert_eq!(Fields::of(&HeaderMap::new()), Fields::default());
    }
}
