//! Phase: response filters, and the answers of the proxy itself.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode, Version};

use super::body::ResponseBody;
use super::client::Client;
use super::context::Context;
use super::forward::Answer;
use crate::normalise::strip_response;
use crate::reason::Reason;

/// Passes a backend's response on: fields of its connection stripped, body streamed.
pub(super) fn pass(context: Context, answer: Answer) -> Response<ResponseBody> {
    let Answer {
        response,
        lease,
        under_way,
        upstream,
    } = answer;
    let Context {
        client,
        mut account,
        running,
        ..
    } = context;
    let (mut parts, body) = response.into_parts();
    strip_response(&mut parts.headers);
    move_on(&client, &mut parts.headers);
    parts.version = Version::HTTP_11;
    account.respond(parts.status, None);
    let pause = upstream.settings.response_timeout;
    Response::from_parts(
        parts,
        ResponseBody::backend(body, lease, under_way, pause, account, running),
    )
}

/// Answers a request ourselves.
pub(super) fn refuse(context: Context, reason: Reason) -> Response<ResponseBody> {
    let Context {
        client,
        mut account,
        running,
        ..
    } = context;
    let status = reason.status();
    account.respond(status, Some(reason));
    let text = if account.is_head() {
        Bytes::new()
    } else {
        Bytes::from(format!(
            "{} {}\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or("Error")
        ))
    };
    let mut response = Response::new(ResponseBody::own(text, account, running));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if closes(reason) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    move_on(&client, headers);
    response
}

/// During a drain, asks the client to open its next connection, which will lead elsewhere. hyper drops the field for HTTP/2.
fn move_on(client: &Client, headers: &mut HeaderMap) {
    if client.draining() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Whether what follows on the connection can't be trusted, or won't be read.
fn closes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::HostMissing
            | Reason::HostRepeated
            | Reason::HostInvalid
            | Reason::HostConflict
            | Reason::TargetInvalid
            | Reason::LengthConflict
            | Reason::HeaderInvalid
            | Reason::HeaderTimeout
            | Reason::HeadersTooLarge
            // The client may have gone on as if it had been let through: what follows need not be HTTP.
            | Reason::MethodRefused
            | Reason::UpgradeInvalid
            | Reason::BodyTimeout
            | Reason::ClientGone
    )
}
