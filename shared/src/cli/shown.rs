//! How an answer is shown: as text or as JSON, the same way by all commands that show something.

use std::fmt::Display;

use clap::Args;
use serde_json::Value;

use super::Watch;

/// In which form an answer is shown, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Args)]
pub struct Shown {
    /// Show everything that is known, as JSON: one document, with --watch one line each time
    #[arg(long)]
    json: bool,
    /// How often
    #[command(flatten)]
    watch: Watch,
}

impl Shown {
    /// Shows what `ask` answers: as it is, or what `text` makes of it for people.
    ///
    /// # Errors
    /// As [`Watch::show`].
    pub async fn show<E: Display>(
        self,
        ask: impl AsyncFn() -> Result<Value, E>,
        text: impl Fn(&Value) -> String,
    ) -> Result<String, String> {
        let Self { json, watch } = self;
        let shown = async || {
            ask().await.map(|answer| match (json, watch.repeats()) {
                (false, _) => text(&answer),
                (true, false) => document(&answer),
                (true, true) => format!("{answer}\n"),
            })
        };
        watch.show(shown).await
    }
}

/// An answer as a document of JSON.
pub fn document(answer: &Value) -> String {
    format!("{answer:#}\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        shown: Shown,
    }

    #[tokio::test]
    async fn an_answer_is_text_or_one_document() {
        for (arguments, expected) in [
            (&["weir"][..], "2 services"),
            (&["weir", "--json"], "{\n  \"services\": 2\n}\n"),
        ] {
            let Cli { shown } = Cli::try_parse_from(arguments).unwrap();
            let ask = async || Ok::<_, String>(json!({ "services": 2 }));
            let text = |answer: &Value| format!("{} services", answer["services"]);
            assert_eq!(shown.show(ask, text).await, Ok(expected.into()));
        }
        let nobody = async || Err::<Value, _>("nobody listens");
        let shown = Shown::default().show(nobody, |_| String::new()).await;
        assert_eq!(shown, Err("nobody listens".into()));
    }
}
