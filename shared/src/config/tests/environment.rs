//! What variables lay over the file.

use super::super::Document;
use super::super::sections::Transport;
use super::{Shared, shared};

fn with_environment(text: &str, variables: &[(&str, &str)]) -> Result<Shared, String> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Document::with_environment("f.toml", text, variables)
        .and_then(|document| document.parse(shared))
        .map_err(|mistakes| mistakes.to_string())
}

#[test]
fn the_environment_overrides_the_file() {
    let text = "[node]\nid = \"from-file\"\n[bus]\ntransport = \"local\"";
    let parsed = with_environment(
        text,
        &[
            ("WEIR__NODE__ID", "42"),
            ("WEIR__ADMIN__LISTEN", "127.0.0.1:1"),
            ("WEIR__BUS__TRANSPORT", "nats"),
            ("WEIR__BUS__NATS__SERVERS", "[\"10.0.0.1:4222\"]"),
            ("WEIR__BUS__NATS__REPLICAS", "3"),
        ],
    )
    .unwrap();
    assert_eq!(parsed.node.id, "42");
    assert_eq!(parsed.admin.listen.port(), 1);
    let Transport::Nats(nats) = parsed.bus.transport else {
        panic!("not nats")
    };
    assert_eq!(
        (nats.servers.as_slice(), nats.replicas),
        (&["10.0.0.1:4222".to_owned()][..], 3)
    );
}

#[test]
fn variables_that_name_no_key_there_could_be_are_mistakes() {
    let deep = format!("WEIR__{}A", "A__".repeat(20_000));
    let printed = with_environment("", &[(&deep, "x")]).unwrap_err();
    assert!(
        printed.contains("names a key 20000 tables deep"),
        "{printed}"
    );
    // What a name that is not UTF-8 looks like when it is read.
    let printed = with_environment("", &[("WEIR__NODE__\u{fffd}", "x")]).unwrap_err();
    assert!(printed.contains("does not name a key"), "{printed}");
    let printed = with_environment("", &[("WEIR__A\x1b[31m\nX", "x")]).unwrap_err();
    assert!(
        printed.starts_with(r#"$"WEIR__A\u{1b}[31m\nX": does not name a key"#),
        "{printed:?}"
    );
}

#[test]
fn mistakes_from_the_environment_name_the_variable() {
    let text = "[node]\nid = \"a\"\n";
    let printed = with_environment(
        text,
        &[
            ("WEIR__ADMIN__LISTEN", "here"),
            ("WEIR__LOGS__LEVEL", "info"),
            ("WEIR__NODE__IDD", "x"),
        ],
    )
    .unwrap_err();
    let expected = r#"$WEIR__ADMIN__LISTEN: admin.listen: expected an address with a port such as "10.0.0.1:80" or "[2001:db8::1]:80", got "here"
$WEIR__LOGS__LEVEL: logs: unknown key — did you mean `log`?
$WEIR__NODE__IDD: node.idd: unknown key — did you mean `id`?"#;
    assert_eq!(printed, expected);

    let printed =
        with_environment(text, &[("WEIR__", "x"), ("WEIR__A[99999999999]", "x")]).unwrap_err();
    assert_eq!(
        printed
            .lines()
            .filter(|line| line.contains("does not name a key"))
            .count(),
        2
    );

    let services = "[node]\nid = \"a\"\n[[services]]\nvip = 1\n";
    let printed = with_environment(services, &[("WEIR__SERVICES__0__VIP", "x")]).unwrap_err();
    assert!(printed.contains("can't be set one by one"), "{printed}");
}

#[test]
fn a_variable_can_not_smuggle_in_other_keys() {
    let printed = with_environment(
        "[node]\nid = \"a\"\n[bus]\ntransport = \"nats\"\n[bus.nats]\nservers = [\"a:1\"]",
        &[("WEIR__BUS__NATS__REPLICAS", "1\nservers = []")],
    );
    assert!(
        printed
            .unwrap_err()
            .starts_with("$WEIR__BUS__NATS__REPLICAS")
    );
}
