//! The usual answer: the request as it arrived, in JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::Body;

/// Largest request body that is read, bytes.
const LARGEST_BODY: usize = 16 << 20;
/// Largest request body that is sent back in full, bytes.
const LARGEST_ECHO: usize = 64 << 10;

/// Who answers.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) app: String,
    pub(super) service: String,
}

/// A request as the application saw it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Seen {
    /// The application: `app-1`.
    pub app: String,
    /// The service it plays on the port that was asked: `shop`.
    pub service: String,
    /// Who connected to it: the L7 node's address.
    pub peer: SocketAddr,
    /// The Host header.
    pub host: String,
    /// The method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query, empty if there was none.
    pub query: String,
    /// Every header, names in lower case; values of a repeated one are joined by ", ".
    pub headers: BTreeMap<String, String>,
    /// Length of the request body, bytes.
    pub body_bytes: usize,
    /// The request body, if it is text and not large.
    pub body: String,
}

/// Answers with what was seen.
pub(super) async fn seen(
    identity: &Identity,
    peer: SocketAddr,
    status: StatusCode,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => {
            return super::text(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body did not arrive whole, or is too large\n",
            );
        }
    };
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    let seen = Seen {
        app: identity.app.clone(),
        service: identity.service.clone(),
        peer,
        host: headers.get("host").cloned().unwrap_or_default(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers,
        body_bytes: body.len(),
        body: match std::str::from_utf8(&body) {
            Ok(text) if text.len() <= LARGEST_ECHO => text.to_owned(),
            _ => String::new(),
        },
    };
    let mut response = match serde_json::to_vec(&seen) {
        Ok(json) => Response::new(Full::new(Bytes::from(json)).boxed()),
        Err(_) => {
            return super::text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request could not be written as JSON\n",
            );
        }
    };
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
