//! Phase: upgrade. A request that asks to switch protocols is forwarded with that wish; only when the backend agrees with 101 do both
//! connections leave HTTP and become a tunnel.

use http::{Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::attempt::Answer;
use super::context::Context;
use super::course::Phase;
use super::respond;
use super::response_body::ResponseBody;
use crate::http::tunnel;
use crate::http::{Leaving, Upgrade, strip_response};
use crate::observe::metrics;
use crate::observe::reason::Reason;

/// Answers with what came of the tries of a request that asked for `upgrade`.
pub(super) fn answer(
    context: Context,
    answer: Result<Answer, Reason>,
    upgrade: &Upgrade,
    on_client: OnUpgrade,
) -> Response<ResponseBody> {
    let answer = match answer {
        Ok(answer) if answer.head.status == StatusCode::SWITCHING_PROTOCOLS => answer,
        answer => {
            context.client.stay(Some(on_client));
            return respond::answer(context, answer);
        }
    };
    let Answer {
        mut head,
        fields,
        lease,
        under_way,
        upstream,
        ..
    } = answer;
    let chosen = upgrade.chosen(&head.headers);
    let Some((chosen, backend_side)) = chosen.zip(lease.link.leave_http()) else {
        context.client.stay(Some(on_client));
        return respond::refuse(context, Reason::UpstreamInvalid);
    };
    context.client.wire.decide(Leaving::Tunnel);

    let Context {
        client,
        mut account,
        running,
        ..
    } = context;
    strip_response(&mut head.headers, fields);
    chosen.announce(&mut head.headers);
    head.version = Version::HTTP_11;
    account.respond(head.status, None);
    let idle = upstream
        .settings
        .response_timeout
        .max(client.entrance.listener().idle_timeout);
    let mut course = client.entrance.course.clone();
    actix_rt::spawn(async move {
        // The backend counts as busy until the tunnel ends.
        let _held = under_way;
        let client_side = match on_client.await {
            Ok(client_side) => TokioIo::new(client_side),
            Err(error) => {
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
        counted.ended(passed.end.name());
        account.tunnelled(passed.received, passed.sent);
    });
    Response::from_parts(head, ResponseBody::switched(running))
}
