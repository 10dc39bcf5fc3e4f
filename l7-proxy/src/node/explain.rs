//! `explain`: what the running node would do with a request.

use serde_json::{Value, json};

use super::status::backends;
use super::supervisor::Reasons;
use super::view::View;
use crate::exchange::explain::{Explanation, Question, explain};

/// Answers the question by what is served now.
///
/// # Errors
/// What is wrong with the question.
pub(super) fn answer(view: &View, reasons: &Reasons, question: Value) -> Result<Value, String> {
    let question: Question = serde_json::from_value(question).map_err(|error| error.to_string())?;
    let explanation = explain(&view.snapshot, &question)?;
    let certificate = certificate(view, &explanation);
    let upstream = explanation.route.as_ref().and_then(|route| {
        let upstreams = view.snapshot.upstreams().iter();
        let mut named = upstreams.filter(|upstream| *upstream.name == *route.upstream);
        let upstream = named.next()?;
        Some(json!({
            "name": &*upstream.name,
            "balance": upstream.settings.balance.name(),
            "retries": upstream.settings.retries,
            "backends": backends(upstream, reasons),
        }))
    });
    let mut answer = serde_json::to_value(&explanation).map_err(|error| error.to_string())?;
    answer["certificate"] = json!(certificate);
    answer["upstream"] = json!(upstream);
    Ok(answer)
}

/// The certificate a client of the URL gets, and by which of its names.
fn certificate(view: &View, explanation: &Explanation) -> Option<Value> {
    let name = explanation.server_name.as_deref()?;
    let served = view.identity.as_ref()?.chosen(name)?;
    let leaf = served.chain.leaf();
    Some(json!({
        "certificate": served.file(),
        "subject": leaf.subject,
        "names": served.names(),
        "default": served.settings.default,
        "expires": leaf.last_day(),
    }))
}
