//! Phase: response filters, and the answers of the proxy itself.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode, Version};

use super::attempt::Answer;
use super::backend_body::BackendBody;
use super::client::Client;
use super::context::Context;
use super::response_body::ResponseBody;
use crate::http::{required_upgrade, strip_response, unsay_length};
use crate::observe::reason::Reason;

/// Methods anybody may try; others are passed on as well, and CONNECT is not.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Answers with what came of the tries. A switch of protocols is the business of [`super::upgrade`]: where it isn't asked for, it is an
/// invalid response (RFC 9110 section 15.2.2).
pub(super) fn answer(context: Context, answer: Result<Answer, Reason>) -> Response<ResponseBody> {
    match answer {
        Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => {
            refuse(context, Reason::UpstreamInvalid)
        }
        Ok(answer) => pass(context, answer),
        Err(reason) => refuse(context, reason),
    }
}

/// Passes a backend's response on: fields of its connection stripped, body streamed.
fn pass(context: Context, answer: Answer) -> Response<ResponseBody> {
    let Answer {
        head: mut parts,
        fields,
        body,
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
    let required = (parts.status == StatusCode::UPGRADE_REQUIRED && account.is_http1())
        .then(|| required_upgrade(&parts.headers))
        .flatten();
    let doubted = parts.status == StatusCode::NO_CONTENT && unsay_length(&mut parts.headers);
    let lease = (!doubted).then_some(lease);
    let nominated = strip_response(&mut parts.headers, fields);
    if let Some(required) = required {
        required.announce(&mut parts.headers);
    }
    move_on(&client, &mut parts.headers);
    parts.version = Version::HTTP_11;
    account.respond(parts.status, None);
    let pause = upstream.settings.response_timeout;
    let body = BackendBody::new(body, nominated, lease, under_way, pause);
    Response::from_parts(parts, ResponseBody::backend(body, account, running))
}

/// Answers a request ourselves.
pub(super) fn refuse(context: Context, reason: Reason) -> Response<ResponseBody> {
    let Context {
        client,
        mut account,
        running,
        ..
    } = context;
    account.respond(reason.status(), Some(reason));
    // Who is gone is told nothing; a number of our own for it must not get out if somebody is there after all.
    let status = match reason {
        Reason::ClientGone => StatusCode::BAD_REQUEST,
        reason => reason.status(),
    };
    let text = if account.is_head() || status.is_success() {
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
    if !status.is_success() {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
    }
    if matches!(reason, Reason::MethodRefused | Reason::MaxForwards) {
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    }
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
        headers.append(CONNECTION, HeaderValue::from_static("close"));
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
            | Reason::RequestCut
            | Reason::HeaderTimeout
            | Reason::HeadersTooLarge
            // The client may have gone on as if it had been let through: what follows need not be HTTP.
            | Reason::MethodRefused
            | Reason::BodyTimeout
            | Reason::ClientGone
    )
}
