//! The arguments of commands.

use serde::Deserialize;
use serde_json::Value;

use super::CommandError;

/// Most characters of a name that go into logs and records.
const LONGEST_NAME: usize = 120;

/// Arguments of `drain`, `undrain` and `reload`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Who {
    by: Option<String>,
}

/// Who asks, fit for a log: what `by` says.
///
/// # Errors
/// What is expected, if the arguments make no sense.
pub fn asker(args: Value) -> Result<String, CommandError> {
    let Who { by } = arguments(args)?;
    let by = by.unwrap_or_else(|| "admin listener".into());
    Ok(by
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_NAME)
        .collect())
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
        assert_eq!(asker(Value::Null).unwrap(), "admin listener");
        assert_eq!(asker(json!({})).unwrap(), "admin listener");
        assert_eq!(asker(json!({ "by": "a\nb" })).unwrap(), "ab");
        assert_eq!(asker(json!({ "by": "x".repeat(999) })).unwrap().len(), 120);
        for args in [json!([]), json!(["x"]), json!("x"), json!(7), json!(true)] {
            assert_eq!(
                asker(args),
                Err(CommandError::Invalid(
                    "expected an object, such as {}".into()
                ))
            );
        }
        assert!(matches!(
            asker(json!({ "by": 7 })),
            Err(CommandError::Invalid(_))
        ));
    }
}
