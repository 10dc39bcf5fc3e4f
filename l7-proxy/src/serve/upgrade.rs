//! Phase: upgrade. A request that asks to switch protocols is forwarded with that wish; only when the backend agrees with 101 do both
//! connections leave HTTP and become a tunnel.

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::{RequestBody, ResponseBody};
use super::context::Context;
use super::forward::{self, Answer};
use super::framing::Leaving;
use super::respond;
use crate::drain::Phase;
use crate::metrics;
use crate::normalise::{Upgrade, strip_response};
use crate::reason::Reason;
use crate::route::Route;
use crate::tunnel;

pub(super) async fn serve(
    mut context: Context,
    mut parts: Parts,
    body: RequestBody,
    route: Route,
    Upgrade(protocol): Upgrade,
    on_client: OnUpgrade,
) -> Response<ResponseBody> {
    let wire = context.running.wire().clone();
    if !body.is_empty() {
        // The body would have to be told from the new protocol's bytes; no protocol in use sends one.
        wire.decide(Leaving::Http);
        return respond::refuse(context, Reason::UpgradeInvalid);
    }
    ask_upgrade(&mut parts.headers, &protocol);
    match forward::exchange(&mut context, parts, body, &route).await {
        Ok(answer) if answer.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            wire.decide(Leaving::Tunnel);
            switch(context, answer, on_client)
        }
        Ok(answer) => {
            wire.decide(Leaving::Http);
            respond::pass(context, answer)
        }
        Err(reason) => {
            wire.decide(Leaving::Http);
            respond::refuse(context, reason)
        }
    }
}

fn switch(context: Context, answer: Answer, on_client: OnUpgrade) -> Response<ResponseBody> {
    let Context {
        client,
        mut account,
        running,
        ..
    } = context;
    let Answer {
        mut response,
        lease,
        under_way,
        upstream,
    } = answer;
    let on_backend = hyper::upgrade::on(&mut response);
    let mut parts = response.into_parts().0;
    let chosen = parts.headers.get(UPGRADE).cloned();
    strip_response(&mut parts.headers);
    ask_upgrade(
        &mut parts.headers,
        chosen
            .as_ref()
            .unwrap_or(&HeaderValue::from_static("websocket")),
    );
    parts.version = Version::HTTP_11;
    account.respond(parts.status, None);

    let idle = upstream
        .settings
        .response_timeout
        .max(client.entrance.listener().idle_timeout);
    let mut course = client.worker.course.clone();
    actix_rt::spawn(async move {
        // The pool must not have this connection back, and the backend counts as busy until the tunnel ends.
        let _held = (lease, under_way);
        let (client_side, backend_side) = match (on_client.await, on_backend.await) {
            (Ok(client_side), Ok(backend_side)) => {
                (TokioIo::new(client_side), TokioIo::new(backend_side))
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "upgrade failed");
                account.cut(Reason::ClientGone);
                return;
            }
        };
        let counted = metrics::Tunnel::open();
        // Of a node that stays, the end of a drain cuts only what was open when it began.
        let late = course.borrow().draining();
        let stop = async move {
            if course
                .wait_for(|course| course.phase == Phase::Ended && (course.exiting || !late))
                .await
                .is_err()
            {
                std::future::pending::<()>().await;
            }
        };
        let passed = tunnel::run(client_side, backend_side, idle, stop).await;
        counted.ended(passed.end);
        account.tunnelled(passed.received, passed.sent);
    });
    Response::from_parts(parts, ResponseBody::switched(running))
}

/// Asks the next hop to switch protocols, as the client asked us.
fn ask_upgrade(headers: &mut HeaderMap, upgrade: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, upgrade.clone());
}
