//! An answer that is shown again and again.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;

/// To the top of the terminal, and nothing below.
const CLEARED: &str = "\x1b[H\x1b[J";

/// How often an answer is shown; once by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Args)]
pub struct Watch {
    /// Show it anew every so many seconds (2 if left out; 1 to 3600), until interrupted
    #[arg(id = "watch", long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: Option<u64>,
}

impl Watch {
    /// Whether it is shown more than once.
    pub fn repeats(self) -> bool {
        self.every.is_some()
    }

    /// Asks once and hands the answer back; or asks on and on, prints each answer, and returns nothing when nobody reads any more. On a
    /// terminal each answer takes the place of the one before.
    ///
    /// # Errors
    /// Why there is no first answer. Later ones may be lacking, as while the process restarts: the reason is shown in their place.
    pub async fn show<E: Display>(
        self,
        ask: impl AsyncFn() -> Result<String, E>,
    ) -> Result<String, String> {
        let mut text = ask().await.map_err(|why| why.to_string())?;
        let Some(every) = self.every else {
            return Ok(text);
        };
        let mut out = std::io::stdout();
        let before = if out.is_terminal() { CLEARED } else { "" };
        loop {
            let written = write!(out, "{before}{text}").and_then(|()| out.flush());
            if written.is_err() {
                return Ok(String::new());
            }
            tokio::time::sleep(Duration::from_secs(every)).await;
            text = ask().await.unwrap_or_else(|why| format!("{why}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        watch: Watch,
    }

    fn every(arguments: &[&str]) -> Option<Option<u64>> {
        let arguments = [&["weir"], arguments].concat();
        let parsed = Cli::try_parse_from(arguments).ok();
        parsed.map(|cli| cli.watch.every)
    }

    #[test]
    fn it_is_shown_every_two_seconds_unless_told_otherwise() {
        assert_eq!(every(&[]), Some(None));
        assert_eq!(every(&["--watch"]), Some(Some(2)));
        assert_eq!(every(&["--watch", "1"]), Some(Some(1)));
        assert_eq!(every(&["--watch", "3600"]), Some(Some(3600)));
        for wrong in ["0", "3601", "-1", "2s"] {
            assert_eq!(every(&["--watch", wrong]), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn without_a_time_it_is_asked_for_once() {
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            Ok::<_, String>("answer\n".into())
        };
        assert_eq!(Watch::default().show(ask).await, Ok("answer\n".into()));
        assert_eq!(asked.get(), 1);
        let nobody = async || Err::<String, _>("nobody listens");
        for every in [None, Some(1)] {
            let shown = Watch { every }.show(nobody).await;
            assert_eq!(shown, Err("nobody listens".into()));
        }
    }
}
