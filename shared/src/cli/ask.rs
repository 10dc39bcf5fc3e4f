//! The questions every binary puts to its running process, and how the answers are printed.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{By, cell, document, warn};
use crate::admin::client::{self, ClientError};
use crate::config::read;
use crate::reload::Plan;

/// What is said of a process that has neither `reload` nor `plan`.
const NOT_OFFERED: &str =
    "this process can't reload its configuration: restart it to use a new one";

/// The state of the process: what `status` shows, and tables are made from.
///
/// # Errors
/// Why there is none.
pub async fn state(admin: SocketAddr) -> Result<Value, String> {
    let text = client::get(admin, "/status").await;
    let text = text.map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// Has it drain or undrain.
pub(super) async fn told(admin: SocketAddr, command: &str, by: By) -> Result<String, ClientError> {
    let answer = client::command(admin, command, &json!({ "by": by.name() })).await?;
    Ok(document(&answer))
}

/// Mistakes and what needs a restart are printed as `check` prints them. The process reads the file it was started with, whatever `named` is.
pub(super) async fn reload(
    admin: SocketAddr,
    named: Option<&Path>,
    by: By,
) -> Result<String, String> {
    let status = state(admin).await?;
    let file = cell(&status["configuration"]["file"]);
    let named = named.filter(|_| status["configuration"]["file"].is_string());
    if let Some(other) = named.filter(|named| !is_same(named, Path::new(&file))) {
        warn(format_args!(
            "the process reads {file}, which it was started with, and not {}",
            other.display()
        ));
    }
    let answer = client::command(admin, "reload", &json!({ "by": by.name() })).await;
    let answer = answer.map_err(|error| match error {
        ClientError::Refused(409, why) => format!("{why}\nnothing was changed"),
        ClientError::Refused(404, _) => NOT_OFFERED.into(),
        other => other.to_string(),
    })?;
    lines(&answer["warnings"]).iter().for_each(warn);
    Ok(match &lines(&answer["changes"])[..] {
        [] => format!("reloaded {file}: nothing has changed\n"),
        changes => format!("{}\nreloaded {file}\n", changes.join("\n")),
    })
}

/// What a reload would do if the process's file held what `file` holds.
pub(super) async fn plan(admin: SocketAddr, file: &Path) -> Result<Value, String> {
    let name = file.display().to_string();
    let text = read(file, &name).map_err(|mistakes| mistakes.to_string())?;
    let args = json!({ "file": name, "text": text });
    let answer = client::command(admin, "plan", &args).await;
    answer.map_err(|error| match error {
        ClientError::Refused(409, why) => format!("{why}\na reload would be refused"),
        ClientError::Refused(404, _) => NOT_OFFERED.into(),
        other => other.to_string(),
    })
}

/// A plan for people.
///
/// # Errors
/// All of it, where the reload would be refused.
pub(super) fn planned(answer: Value) -> Result<String, String> {
    let plan: Plan = serde_json::from_value(answer)
        .map_err(|error| format!("the process answers in another way than expected: {error}"))?;
    plan.warnings.iter().for_each(warn);
    let changes = plan
        .changes
        .iter()
        .map(|planned| match planned.needs_restart {
            true => format!("{} (needs a restart)", planned.change),
            false => planned.change.clone(),
        });
    let ends = plan.ends.iter().map(|end| format!("would end: {end}"));
    let mut lines: Vec<String> = changes.chain(ends).collect();
    match plan.refused {
        Some(why) => {
            lines.push(format!("a reload would be refused: {why}"));
            Err(lines.join("\n"))
        }
        None if plan.changes.is_empty() => Ok("a reload would change nothing\n".into()),
        None => {
            lines.push("a reload would do this; nothing was changed".into());
            Ok(lines.join("\n") + "\n")
        }
    }
}

fn lines(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(cell).collect()
}

/// Whether both paths lead to one file, as far as can be seen from here.
fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => std::path::absolute(one).is_ok_and(|one| one == other),
    }
}
