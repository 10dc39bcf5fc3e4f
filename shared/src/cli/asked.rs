//! By whom and why a running process is asked to do something, on the command line.

use clap::Args;

use crate::admin::{LONGEST_NAME, LONGEST_REASON, fit_to_show};

/// In whose name it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct By {
    /// Who asks, for the log and whoever looks later (default: the user who logged in, by $SUDO_USER or $USER)
    #[arg(long, value_name = "NAME", value_parser = name)]
    by: Option<String>,
}

/// Why it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct Reason {
    /// Why, for the log and whoever looks later
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
}

impl By {
    /// Whether the command line says it.
    pub fn is_given(&self) -> bool {
        self.by.is_some()
    }

    /// Who asks.
    #[allow(
        clippy::disallowed_methods,
        reason = "no configuration, but whose shell this is"
    )]
    pub fn name(&self) -> String {
        let variable = |name: &str| std::env::var(name).ok();
        self.by.clone().unwrap_or_else(|| login(variable))
    }
}

/// Who sits there, as far as the environment tells.
fn login(variable: impl Fn(&str) -> Option<String>) -> String {
    let names = ["SUDO_USER", "USER"].into_iter().filter_map(variable);
    let mut names = names.filter(|found| name(found).is_ok());
    names.next().unwrap_or_else(|| "command line".to_owned())
}

fn name(text: &str) -> Result<String, String> {
    fit_to_show(text, LONGEST_NAME).map(|()| text.to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    fit_to_show(text, LONGEST_REASON).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        by: By,
        #[command(flatten)]
        reason: Reason,
    }

    #[test]
    fn who_and_why_are_short_and_fit_for_a_terminal() {
        let parse = |by: &str, reason: &str| {
            Cli::try_parse_from(["weir", "--by", by, "--reason", reason])
                .map(|cli| (cli.by.name(), cli.reason.reason))
                .map_err(|error| error.to_string())
        };
        let told = parse("Zoë", "new disk, rack 3");
        assert_eq!(told, Ok(("Zoë".into(), Some("new disk, rack 3".into()))));
        let long = "x".repeat(LONGEST_REASON);
        assert!(parse("x", &long).is_ok());
        for (by, reason, longest) in [
            ("", "why", LONGEST_NAME),
            (&long, "why", LONGEST_NAME),
            ("a\u{1b}[31m", "why", LONGEST_NAME),
            ("a", "", LONGEST_REASON),
            ("a", &format!("{long}x"), LONGEST_REASON),
            ("a", "one\ntwo", LONGEST_REASON),
        ] {
            let why = parse(by, reason).unwrap_err();
            let expected = format!("expected 1 to {longest} characters, none of them a control");
            assert!(why.contains(&expected), "{why}");
        }
    }

    #[test]
    fn who_does_not_say_is_the_user_who_logged_in() {
        let with = |set: &[(&str, &str)]| {
            login(|name| {
                let mut set = set.iter();
                let found = set.find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(with(&[("SUDO_USER", "alice"), ("USER", "root")]), "alice");
        assert_eq!(with(&[("USER", "bob")]), "bob");
        assert_eq!(with(&[("SUDO_USER", ""), ("USER", "bob")]), "bob");
        assert_eq!(with(&[("USER", "b\nb")]), "command line");
        assert_eq!(with(&[]), "command line");
    }
}
