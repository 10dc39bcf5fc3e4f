//! One request through its phases: normalise and validate, route, forward, respond.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::account::Account;
use super::client::Client;
use super::context::Context;
use super::head::Head;
use super::response_body::ResponseBody;
use super::{attempt, head, respond, upgrade};
use crate::http::{
    Field, Fields, Leaving, Path, RequestBody, Running, Upgrade, Upload, say_length,
};
use crate::observe::reason::Reason;
use crate::policy::UpstreamId;

/// Answers a request. Never an error: what goes wrong becomes an answer, or a cut body. It counts as running from the call on, since the
/// connection may be asked before the answer is first polled.
pub(crate) fn serve(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> {
    let running = client.wire.request();
    answer(client, running, request)
}

async fn answer(
    client: Rc<Client>,
    running: Running,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let Admitted {
        mut context,
        head,
        body,
        upstream,
        leaving,
    } = match admit(client, running, request) {
        Admission::Granted(admitted) => admitted,
        Admission::Refused(refusal) => return Ok(refusal),
    };
    let answer = attempt::exchange(&mut context, &head, body, upstream).await;
    Ok(match leaving {
        Some((upgrade, on_client)) => upgrade::answer(context, answer, &upgrade, on_client),
        None => respond::answer(context, answer),
    })
}

/// What becomes of a request before a backend is asked.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is returned, and a box would cost each request an allocation"
)]
enum Admission {
    Granted(Admitted),
    /// With what the client is told.
    Refused(Response<ResponseBody>),
}

/// A request that goes to a backend.
struct Admitted {
    context: Context,
    head: Head,
    body: RequestBody,
    upstream: UpstreamId,
    /// What it asks to switch to, and where the client's side of that comes out.
    leaving: Option<(Upgrade, OnUpgrade)>,
}

/// The phases before a backend is asked. Of what they need, only the result outlives them: an answer that is waited for is in memory for as long.
fn admit(client: Rc<Client>, running: Running, mut request: Request<Incoming>) -> Admission {
    let start = Instant::now();
    let upload = Upload::new(tokio::time::Instant::from_std(start));
    let fields = Fields::of(request.headers());
    let leaves_http = fields.has(Field::Upgrade) || request.method() == http::Method::CONNECT;
    let on_client = leaves_http.then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let generation = client.worker.generation();
    let account = Account::open(
        client.clone(),
        generation.clone(),
        &parts,
        fields,
        upload.clone(),
        start,
    );
    let mut context = Context {
        client,
        generation: generation.clone(),
        account,
        running,
        upload: upload.clone(),
    };

    let listener = context.client.entrance.listener();
    let prepared = head::prepare(listener, context.client.local, &mut parts, fields);
    let about_server = context.running.is_about_server();
    if about_server && on_client.is_none() {
        context.client.wire.decide(Leaving::Http);
    }
    let (mut target, stripped) = match prepared {
        Ok(prepared) => prepared,
        Err(reason) => return refuse(context, on_client, reason),
    };
    if about_server {
        target.path = Path::server();
    }
    let route = match generation.snapshot.router.find(&target.host, &target.path) {
        Ok(route) => route,
        Err(reason) => return refuse(context, on_client, reason),
    };
    context.account.routed(route);
    let client = &context.client;
    let forwarding = &generation.snapshot.config.forwarding;
    let listener = client.entrance.listener();
    let pause = listener.body_timeout;
    let body = RequestBody::new(body, stripped.nominated, pause, upload);
    if let Err(reason) = say_length(&mut parts.headers, fields, !body.is_empty()) {
        return refuse(context, on_client, reason);
    }
    let head = Head::new(parts, fields, target, forwarding, listener, &client.peer);
    context.account.client_is(head.client());

    // A body would have to be told from the new protocol's bytes. The wish may always be ignored (RFC 9110 section 7.8).
    let upgrade = stripped
        .upgrade
        .filter(|_| body.is_empty())
        .and_then(|asked| asked.among(&route.upgrades));
    let leaving = match (upgrade, on_client) {
        (Some(upgrade), Some(on_client)) => Some((upgrade, on_client)),
        (_, on_client) => {
            context.client.stay(on_client);
            None
        }
    };
    let head = match &leaving {
        Some((upgrade, _)) => head.asking_for(upgrade.clone()),
        None => head,
    };
    Admission::Granted(Admitted {
        context,
        head,
        body,
        upstream: route.upstream,
        leaving,
    })
}

fn refuse(context: Context, on_client: Option<OnUpgrade>, reason: Reason) -> Admission {
    context.client.stay(on_client);
    Admission::Refused(respond::refuse(context, reason))
}
