//! `l4-gateway flows`: lists flows, or ends them (`--cut`).

use std::io::{BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::admin::{CommandError, arguments, asker, client};
use shared::cli::{By, Shown, cell, table};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::actors::View;
use crate::admin::{LIMIT, LISTED, Which};
use crate::cli::Wanted;
use crate::filter::FlowFilter;
use crate::forwarder::Forwarder;
use crate::known;
use crate::names::{PROTOCOLS, STATES};
use crate::range;
use crate::views::duration;
use crate::worker::{Ending, Question};

/// How long workers may take to end flows, less than the command line waits: each sends some 100,000 RSTs a second at most, and fewer when it
/// sleeps between.
const PATIENCE: Duration = Duration::from_secs(110);

/// Which flows, and what is to be done with them.
#[derive(Debug, Args)]
pub(crate) struct Flows {
    #[command(flatten)]
    ends: Wanted,
    /// Only flows of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only flows of this protocol
    #[arg(long, value_parser = PROTOCOLS.parser())]
    protocol: Option<String>,
    /// Only flows in this state, as its column shows it
    #[arg(long, value_parser = STATES.parser())]
    state: Option<String>,
    #[arg(long, default_value_t = LISTED, value_parser = range::parser(LIMIT), help = range::help("How many at most", &LIMIT))]
    limit: usize,
    #[command(flatten)]
    shown: Shown,
    /// End the flows instead, after a question: both ends of open connections get an RST
    #[arg(long, conflicts_with_all = ["json", "watch", "limit"])]
    cut: bool,
    /// With --cut: all flows, without a filter
    #[arg(long, requires = "cut")]
    all: bool,
    /// With --cut: don't ask
    #[arg(long, requires = "cut")]
    yes: bool,
    #[command(flatten)]
    by: By,
}

impl Flows {
    /// The filter, as the admin listener takes it.
    fn filter(&self) -> Value {
        let Wanted {
            client,
            vip,
            local,
            target,
        } = &self.ends;
        json!({
            "client": client, "vip": vip, "local": local, "target": target,
            "service": self.service, "protocol": self.protocol, "state": self.state,
        })
    }
}

/// Lists or ends them, as is asked for.
pub(crate) async fn ask(admin: SocketAddr, flows: &Flows) -> Result<String, String> {
    if flows.cut {
        return cut(admin, flows).await;
    }
    if flows.by.is_given() {
        return Err("--by goes with --cut: listing flows changes nothing".into());
    }
    let list = async || find(admin, flows, flows.limit).await;
    flows.shown.show(list, text).await
}

async fn find(admin: SocketAddr, flows: &Flows, limit: usize) -> Result<Value, String> {
    let mut args = flows.filter();
    args["limit"] = json!(limit);
    let answer = client::command(admin, "flows", &args).await;
    answer.map_err(|error| error.to_string())
}

fn text(answer: &Value) -> String {
    const COLUMNS: [&str; 8] = [
        "protocol", "client", "vip", "local", "target", "state", "expires", "idle",
    ];
    let seconds = |value: &Value| duration(value.as_f64().unwrap_or_default() as u64);
    let row = |flow: &Value| {
        let known = COLUMNS[..6].iter().map(|column| cell(&flow[*column]));
        let times = ["expires_in_seconds", "idle_seconds"].map(|key| seconds(&flow[key]));
        known.chain(times).collect::<Vec<String>>()
    };
    let flows = answer["flows"].as_array().map(Vec::as_slice);
    let rows: Vec<_> = flows.unwrap_or_default().iter().map(row).collect();
    table(&COLUMNS, &rows) + &left_out(answer)
}

/// What a list says of those it has no room for.
pub(crate) fn left_out(answer: &Value) -> String {
    match answer["left_out"].as_u64() {
        None | Some(0) => String::new(),
        Some(more) => format!("and {more} more: narrow the filter, or raise --limit\n"),
    }
}

async fn cut(admin: SocketAddr, flows: &Flows) -> Result<String, String> {
    let mut args = flows.filter();
    let is_any = args
        .as_object()
        .is_none_or(|parts| parts.values().all(Value::is_null));
    match (is_any, flows.all) {
        (true, false) => {
            return Err("which flows? say so by --client, --vip, --local, --target, --service, --protocol or --state; or --all".into());
        }
        (false, true) => return Err("--all has no filter beside it: leave one of both out".into()),
        _ => {}
    }
    if !flows.yes {
        let count = find(admin, flows, 0).await?["left_out"]
            .as_u64()
            .unwrap_or_default();
        if count == 0 {
            return Ok("no flow matches\n".into());
        }
        if !is_confirmed(count)? {
            return Ok("nothing was ended\n".into());
        }
    }
    args["all"] = json!(flows.all);
    args["by"] = json!(flows.by.name());
    let answer = client::command(admin, "cut", &args).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok(format!("{} flows ended\n", cell(&answer["ended"])))
}

/// Asks whoever sits at the terminal.
///
/// # Errors
/// If nobody does.
fn is_confirmed(count: u64) -> Result<bool, String> {
    let mut input = std::io::stdin().lock();
    if !input.is_terminal() {
        return Err(format!(
            "{count} flows match; nobody can be asked here: --yes ends them"
        ));
    }
    let mut output = std::io::stderr();
    let asked = write!(
        output,
        "End {count} flows? Both ends of open connections get an RST. [y/N] "
    );
    let mut answer = String::new();
    let read = asked
        .and_then(|()| output.flush())
        .and_then(|()| input.read_line(&mut answer));
    read.map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Carries out `cut`: ends the flows there are that match, as `flows` finds them. Those that begin meanwhile may be left.
///
/// # Errors
/// If the arguments make no sense, mean all flows without saying so, or a worker does not answer.
pub(crate) async fn end(
    forwarder: &Forwarder,
    view: &View,
    mut args: Value,
) -> Result<Value, CommandError> {
    let by = asker(&args)?;
    let mut all = false;
    if let Value::Object(parts) = &mut args {
        parts.remove("by");
        all = match parts.remove("all") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(all)) => all,
            Some(_) => {
                return Err(CommandError::Invalid("all: expected true or false".into()));
            }
        };
        if parts.contains_key("limit") {
            let why = "limit: `cut` ends all that match; narrow the filter";
            return Err(CommandError::Invalid(why.into()));
        }
    }
    let said = args.to_string();
    let which: Which = arguments(args)?;
    let filter = which.filter(view).map_err(CommandError::Invalid)?;
    if all != (filter == FlowFilter::default()) {
        return Err(CommandError::Invalid(match all {
            true => "all: true goes without a filter".into(),
            false => "no filter says which flows: give one, or \"all\": true".into(),
        }));
    }
    tracing::info!(
        filter = said,
        by,
        "flows: an operator ends those that match"
    );
    let answers = forwarder.questions().into_iter().enumerate();
    let answers = answers.map(async |(worker, questions)| {
        let (reply, answer) = oneshot::channel();
        questions
            .try_send(Question::End(Ending { filter, reply }))
            .map_err(|_| format!("worker {worker} has too many questions waiting"))?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(ended)) => Ok(ended),
            _ => Err(format!("worker {worker} does not answer")),
        }
    });
    let mut ended = 0;
    let mut failed = None;
    for answer in join_all(answers).await {
        match answer {
            Ok(flows) => ended += flows,
            Err(why) => failed = Some(why),
        }
    }
    tracing::info!(ended, by, "flows: ended");
    if ended == 0
        && failed.is_none()
        && let Some(why) = known::missing(&filter, view, &forwarder.tables())
    {
        return Err(CommandError::Invalid(why));
    }
    match failed {
        None => Ok(json!({ "ended": ended })),
        Some(why) => Err(CommandError::Failed(format!(
            "{why}: {ended} flows of the others were ended"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_shown_with_when_they_expire_and_since_when_they_idle() {
        let flow = json!({
            "protocol": "tcp", "client": "10.2.0.1:5", "vip": "10.0.0.100:80", "local": "-", "target": "10.3.0.21:80",
            "state": "established", "expires_in_seconds": 839.9, "idle_seconds": 60.1,
        });
        assert_eq!(
            text(&json!({ "flows": [flow] })),
            "PROTOCOL  CLIENT      VIP            LOCAL  TARGET        STATE        EXPIRES  IDLE\n\
             tcp       10.2.0.1:5  10.0.0.100:80  -      10.3.0.21:80  established  13m59s   1m\n"
        );
    }
}
