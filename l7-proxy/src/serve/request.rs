//! One request through its phases: normalise and validate, route, forward, respond.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use http::header::{COOKIE, EXPECT, HOST, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::account::Account;
use super::body::{RequestBody, ResponseBody};
use super::client::Client;
use super::context::Context;
use super::framing::Leaving;
use super::upload::Upload;
use super::{forward, respond, upgrade};
use crate::normalise::{ClientFacts, Target, Upgrade, strip_request};
use crate::reason::Reason;
use crate::route::Route;

/// Answers a request. Never an error: what goes wrong becomes an answer, or a cut body.
pub(super) async fn serve(
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let start = Instant::now();
    let running = client.wire.request();
    let upload = Upload::new(tokio::time::Instant::from_std(start));
    let leaves_http =
        request.headers().contains_key(UPGRADE) || request.method() == http::Method::CONNECT;
    let on_client = leaves_http.then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let account = Account::open(client.clone(), &parts, upload.clone(), start);
    let mut context = Context {
        client,
        account,
        running,
        upload: upload.clone(),
    };

    let prepared = prepare(&context.client, &mut parts).and_then(|(target, upgrade)| {
        let route = context
            .client
            .worker
            .snapshot
            .router
            .find(&target.host, &target.path)?
            .clone();
        Ok((target, upgrade, route))
    });
    let (target, upgrade, route) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => {
            if leaves_http {
                context.client.wire.decide(Leaving::Http);
            }
            return Ok(respond::refuse(context, reason));
        }
    };
    context.account.routed(&route);
    let who = address(&context.client, &mut parts, &target);
    context.account.client_is(who);

    let pause = context.client.entrance.listener().body_timeout;
    let body = RequestBody::new(body, pause, upload);
    match (upgrade, on_client) {
        (Some(upgrade), Some(on_client)) => {
            Ok(upgrade::serve(context, parts, body, route, upgrade, on_client).await)
        }
        (_, on_client) => {
            if on_client.is_some() {
                context.client.wire.decide(Leaving::Http);
            }
            Ok(plain(context, parts, body, route).await)
        }
    }
}

async fn plain(
    mut context: Context,
    parts: Parts,
    body: RequestBody,
    route: Route,
) -> Response<ResponseBody> {
    match forward::exchange(&mut context, parts, body, &route).await {
        // A switch of protocols nobody asked for (RFC 9110 section 15.2.2).
        Ok(answer) if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            respond::refuse(context, Reason::UpstreamInvalid)
        }
        Ok(answer) => respond::pass(context, answer),
        Err(reason) => respond::refuse(context, reason),
    }
}

/// Phase: normalise and validate. The head is left as the backend may see it, except for what [`address`] adds.
fn prepare(client: &Client, parts: &mut Parts) -> Result<(Target, Option<Upgrade>), Reason> {
    if parts.headers.len() > client.entrance.listener().max_headers {
        return Err(Reason::HeadersTooLarge);
    }
    let target = Target::of(parts, client.local)?;
    let upgrade = strip_request(&mut parts.headers).filter(|_| parts.version == Version::HTTP_11);
    // The client's 100-continue is answered when its body is first read, which is when a backend is there to take it.
    parts.headers.remove(EXPECT);
    if parts.version == Version::HTTP_2 {
        join_cookies(&mut parts.headers);
    }
    Ok((target, upgrade))
}

/// Writes the request line and the fields that tell the backend who is asking for what; says who the client is.
fn address(client: &Client, parts: &mut Parts, target: &Target) -> IpAddr {
    let facts = ClientFacts {
        peer: &client.peer,
        scheme: client.entrance.listener().protocol.scheme(),
        host: &target.host,
    };
    let who = client
        .worker
        .snapshot
        .config
        .forwarding
        .apply(&mut parts.headers, facts);
    parts.headers.insert(HOST, target.host.as_sent().clone());
    parts.uri = Uri::from(target.path.forwarded().clone());
    parts.version = Version::HTTP_11;
    who
}

/// HTTP/2 clients may send a cookie in crumbs; HTTP/1 has one field (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_crumbs_become_one_field() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=1", "b=2", "c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join_cookies(&mut headers);
        assert_eq!(
            headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2; c=3"]
        );
    }
}
