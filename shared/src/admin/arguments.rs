//! The arguments of commands.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CommandError;
use crate::bus::unix_ms;

/// Most characters of a name that goes into logs and records.
pub const LONGEST_NAME: usize = 120;
/// Most characters of a reason.
pub const LONGEST_REASON: usize = 200;

/// By whom and why something was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Who asked.
    pub by: String,
    /// Why, if that was said.
    pub reason: Option<String>,
    /// When, in milliseconds of Unix time.
    pub since_unix_ms: u64,
}

impl Asked {
    /// It is asked for now.
    pub fn now(by: impl Into<String>, reason: Option<String>) -> Self {
        Self {
            by: by.into(),
            reason,
            since_unix_ms: unix_ms(),
        }
    }
}

/// What arguments say of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    by: Option<String>,
    reason: Option<String>,
}

/// Who asks now and why: what `by` and `reason` say.
///
/// # Errors
/// What is expected, if the arguments make no sense.
pub fn asked(args: &Value) -> Result<Asked, CommandError> {
    let Said { by, reason } = arguments(args.clone())?;
    for (key, text, longest) in [
        ("by", &by, LONGEST_NAME),
        ("reason", &reason, LONGEST_REASON),
    ] {
        if let Some(text) = text {
            let why = |why| CommandError::Invalid(format!("{key}: {why}"));
            fit_to_show(text, longest).map_err(why)?;
        }
    }
    let by = by.unwrap_or_else(|| "admin listener".into());
    Ok(Asked::now(by, reason))
}

/// Who asks, as [`asked`].
///
/// # Errors
/// What is expected, if the arguments make no sense.
pub fn asker(args: &Value) -> Result<String, CommandError> {
    asked(args).map(|asked| asked.by)
}

/// Whether a text of people may go into logs and onto terminals.
///
/// # Errors
/// What is expected, if not.
pub fn fit_to_show(text: &str, longest: usize) -> Result<(), String> {
    let fits = (1..=longest).contains(&text.chars().count());
    match fits && !text.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(format!(
            "expected 1 to {longest} characters, none of them a control character"
        )),
    }
}

/// The arguments as the type says. No arguments at all count as none given.
///
/// # Errors
/// What is expected, of anything but an object that fits: serde would also take an array, by the place of its items.
pub fn arguments<T: Default + for<'a> Deserialize<'a>>(args: Value) -> Result<T, CommandError> {
    match args {
        Value::Null => Ok(T::default()),
        Value::Object(_) => {
            serde_json::from_value(args).map_err(|error| CommandError::Invalid(error.to_string()))
        }
        _ => Err(CommandError::Invalid(
            "expected an object, such as {}".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_an_object_or_none() {
        assert_eq!(asker(&Value::Null).unwrap(), "admin listener");
        assert_eq!(asker(&json!({})).unwrap(), "admin listener");
        for args in [json!([]), json!(["x"]), json!("x"), json!(7), json!(true)] {
            assert_eq!(
                asker(&args),
                Err(CommandError::Invalid(
                    "expected an object, such as {}".into()
                ))
            );
        }
        assert!(matches!(
            asker(&json!({ "by": 7 })),
            Err(CommandError::Invalid(_))
        ));
    }

    #[test]
    fn who_and_why_are_short_and_without_control_characters() {
        let told = asked(&json!({ "by": "alice", "reason": "new disk" })).unwrap();
        assert_eq!(told.by, "alice");
        assert_eq!(told.reason.as_deref(), Some("new disk"));
        assert!(told.since_unix_ms > 0);
        for (args, key, longest) in [
            (json!({ "by": "a\nb" }), "by", 120),
            (json!({ "by": "x".repeat(121) }), "by", 120),
            (json!({ "by": "" }), "by", 120),
            (json!({ "reason": "\u{1b}[2J" }), "reason", 200),
            (json!({ "reason": "x".repeat(201) }), "reason", 200),
        ] {
            let why = format!(
                "{key}: expected 1 to {longest} characters, none of them a control character"
            );
            assert_eq!(asked(&args), Err(CommandError::Invalid(why)));
        }
    }
}
