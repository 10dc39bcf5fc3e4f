//! Why the proxy answered a request itself: one bounded vocabulary for status codes, the access log and metric labels.

use http::StatusCode;

/// Why a request was answered (or cut short) by the proxy instead of a backend.
///
/// The set is closed so that it can be a metric label; [`Reason::as_str`] is the label and the word in the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An HTTP/1.1 request without a `Host` field (RFC 9112 section 3.2).
    HostMissing,
    /// More than one `Host` field.
    HostRepeated,
    /// A `Host` field or authority that is no host name, address or port.
    HostInvalid,
    /// `Host` and the authority in the request line (or `:authority`) name different hosts.
    HostConflict,
    /// A request target that is not a usable path: a NUL, a broken percent escape, a step above the root hidden in escapes.
    TargetInvalid,
    /// An escaped slash or backslash makes the path mean different routes to different readers.
    PathAmbiguous,
    /// `Content-Length` together with `Transfer-Encoding`, or lengths that disagree (RFC 9112 section 6.3).
    LengthConflict,
    /// A header field whose syntax is broken where the proxy has to understand it.
    HeaderInvalid,
    /// The client closed its sending side in the middle of a request.
    RequestCut,
    /// CONNECT, or another method the proxy does not offer.
    MethodRefused,
    /// OPTIONS that was to go no further than this proxy (RFC 9110 section 7.6.2).
    MaxForwards,
    /// The request head did not arrive within the listener's header timeout.
    HeaderTimeout,
    /// The request head is larger than the listener allows.
    HeadersTooLarge,
    /// The request body stopped arriving.
    BodyTimeout,
    /// No route matches the host and path.
    NoRoute,
    /// The client went away before the response was complete.
    ClientGone,
    /// The listener holds as many connections as it may.
    ConnectionLimit,
    /// No backend of the upstream is up.
    NoBackend,
    /// The backend refused the connection or could not be reached.
    ConnectFailed,
    /// The backend did not accept the connection in time.
    ConnectTimeout,
    /// The backend closed the connection before a complete response head.
    UpstreamClosed,
    /// The backend's response was not valid HTTP.
    UpstreamInvalid,
    /// The backend did not send a response head in time.
    ResponseTimeout,
    /// The backend stopped sending in the middle of a response body; the client's connection is cut.
    ResponseCut,
}

impl Reason {
    /// Every reason, for registering metrics and for the reference.
    pub const ALL: &[Reason] = &[
        Reason::HostMissing,
        Reason::HostRepeated,
        Reason::HostInvalid,
        Reason::HostConflict,
        Reason::TargetInvalid,
        Reason::PathAmbiguous,
        Reason::LengthConflict,
        Reason::HeaderInvalid,
        Reason::RequestCut,
        Reason::MethodRefused,
        Reason::MaxForwards,
        Reason::HeaderTimeout,
        Reason::HeadersTooLarge,
        Reason::BodyTimeout,
        Reason::NoRoute,
        Reason::ClientGone,
        Reason::ConnectionLimit,
        Reason::NoBackend,
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::UpstreamClosed,
        Reason::UpstreamInvalid,
        Reason::ResponseTimeout,
        Reason::ResponseCut,
    ];

    /// Whether a try at a backend fails with it.
    pub const fn is_of_backend(self) -> bool {
        matches!(
            self,
            Reason::ConnectFailed
                | Reason::ConnectTimeout
                | Reason::UpstreamClosed
                | Reason::UpstreamInvalid
                | Reason::ResponseTimeout
        )
    }

    /// The word used in the access log and as the `reason` label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::HostMissing => "host_missing",
            Reason::HostRepeated => "host_repeated",
            Reason::HostInvalid => "host_invalid",
            Reason::HostConflict => "host_conflict",
            Reason::TargetInvalid => "target_invalid",
            Reason::PathAmbiguous => "path_ambiguous",
            Reason::LengthConflict => "length_conflict",
            Reason::HeaderInvalid => "header_invalid",
            Reason::RequestCut => "request_cut",
            Reason::MethodRefused => "method_refused",
            Reason::MaxForwards => "max_forwards",
            Reason::HeaderTimeout => "header_timeout",
            Reason::HeadersTooLarge => "headers_too_large",
            Reason::BodyTimeout => "body_timeout",
            Reason::NoRoute => "no_route",
            Reason::ClientGone => "client_gone",
            Reason::ConnectionLimit => "connection_limit",
            Reason::NoBackend => "no_backend",
            Reason::ConnectFailed => "connect_failed",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::UpstreamClosed => "upstream_closed",
            Reason::UpstreamInvalid => "upstream_invalid",
            Reason::ResponseTimeout => "response_timeout",
            Reason::ResponseCut => "response_cut",
        }
    }

    /// The status the client gets.
    ///
    /// [`Reason::ClientGone`] is logged as 499, nginx's number, and never sent; [`Reason::ResponseCut`] happens after the backend's own
    /// status has been sent, so its number is only for a response that had not started.
    pub fn status(self) -> StatusCode {
        match self {
            Reason::HostMissing
            | Reason::HostRepeated
            | Reason::HostInvalid
            | Reason::HostConflict
            | Reason::TargetInvalid
            | Reason::PathAmbiguous
            | Reason::LengthConflict
            | Reason::HeaderInvalid
            | Reason::RequestCut => StatusCode::BAD_REQUEST,
            Reason::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Reason::MaxForwards => StatusCode::OK,
            Reason::HeaderTimeout | Reason::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Reason::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Reason::NoRoute => StatusCode::NOT_FOUND,
            Reason::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Reason::ConnectionLimit | Reason::NoBackend => StatusCode::SERVICE_UNAVAILABLE,
            Reason::ConnectFailed
            | Reason::UpstreamClosed
            | Reason::UpstreamInvalid
            | Reason::ResponseCut => StatusCode::BAD_GATEWAY,
            Reason::ConnectTimeout | Reason::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_label_and_a_client_or_server_error_status() {
        let labels: std::collections::HashSet<_> =
            Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(
                *reason as usize, index,
                "handles of metrics are found by it"
            );
            assert!(
                // That one is what was asked for.
                *reason == Reason::MaxForwards
                    || reason.status().is_client_error()
                    || reason.status().is_server_error(),
                "{reason}"
            );
            assert!(
                reason
                    .as_str()
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{reason}"
            );
        }
    }
}
