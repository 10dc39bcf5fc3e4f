//! That nothing a file can hold makes the parser fall over, or its mistakes unreadable.

use std::io::Write;
use std::path::Path;

use proptest::prelude::*;

use super::super::sections::NodeSection;
use super::super::{Document, MAX_FILE};
use super::{mistakes, shared};

#[test]
fn files_that_are_no_configuration_are_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(content)
            .unwrap();
        Document::load(&path).unwrap_err().to_string()
    };
    assert!(
        file("latin1", b"a = 1\nb = \"\xe9\"")
            .ends_with("latin1:2: is not UTF-8 text — save the file as UTF-8")
    );
    assert!(file("nul", b"a = 1\n\0").contains("nul:2: is not TOML"));
    assert!(file("large", &vec![b'#'; MAX_FILE + 1]).contains("is larger than 16 MiB"));
    assert!(
        file("twice", b"a = 1\nab = 1\nab = 2")
            .ends_with("twice:3: is not TOML: duplicate key `ab`")
    );
    let long = format!("{} = 1\n", "k".repeat(61)).repeat(2);
    assert!(file("long", long.as_bytes()).ends_with(&format!(" `{}`", &long[..60])));
    // The parser goes on after a key it refuses, and finds the second of it.
    for (key, shown) in [
        ("\"\x1b[31m\x07\"", r#""\u{1b}[31m\u{7}""#),
        ("'\u{9b}31m\u{202e}'", r#""\u{9b}31m\u{202e}""#),
        ("\"\"\"a\nb\"\"\"", r#""a\nb""#),
        ("\"a b\"", r#""a b""#),
    ] {
        let printed = file("raw", format!("{key} = 1\n").repeat(2).as_bytes());
        let last = printed.lines().last().unwrap();
        assert!(
            last.ends_with(&format!("is not TOML: duplicate key `{shown}`")),
            "{printed:?}"
        );
    }
    for bare in ["n1", "info", "10.0.0.1", "fd00::1"] {
        let printed = file("bare", format!("a = 1\nb = {bare}").as_bytes());
        assert!(
            printed.contains("bare:2: is not TOML: invalid")
                && printed.ends_with(" — text needs quotes"),
            "{printed}"
        );
    }
    for bare in ["True", "FALSE"] {
        let printed = file("case", format!("a = 1\nb = {bare} # on\n").as_bytes());
        assert!(
            printed.contains("case:2: is not TOML: invalid")
                && printed.ends_with(" — write true and false in lower case"),
            "{printed}"
        );
    }
    assert!(file("bare", b"b = 5s").contains("string values must be quoted"));
    assert!(
        Document::load(directory.path())
            .unwrap_err()
            .to_string()
            .contains("can't be read")
    );
    assert!(
        Document::load(Path::new("/nonexistent.toml"))
            .unwrap_err()
            .to_string()
            .contains("can't be read")
    );
}

#[test]
fn hostile_nesting_and_keys_are_refused_quickly() {
    let hostile = [
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        "\"a[999999999999]\" = 1".to_owned(),
        "\"a.b\" = 1".to_owned(),
        "\"\" = 1".to_owned(),
        "a = 99999999999999999999".to_owned(),
        format!("a = \"{}\"", "x".repeat(1 << 20)),
        format!("{} = 1", "x".repeat(1 << 20)),
        "x = 1\n".repeat(50_000),
        (0..50_000).map(|index| format!("k{index} = 1\n")).collect(),
    ];
    for text in hostile {
        let printed = mistakes(&text, shared);
        assert!(printed.lines().count() <= 202, "{}", &printed[..200]);
    }
}

#[test]
fn no_file_makes_more_mistakes_than_a_log_can_take() {
    let long = "k".repeat(2000);
    let many = |line: &dyn Fn(usize) -> String| (0..300).map(line).collect::<String>();
    let twice = format!("{long} = 1\n");
    for (text, count) in [
        (many(&|key| format!("{long}{key} = 1\n")), 300),
        (many(&|key| format!("\"{key} {long}\" = 1\n")), 300),
        (many(&|_| twice.clone()), 299),
        (many(&|key| format!("n{key} = {key}{long}\n")), 300),
    ] {
        let printed = mistakes(&text, |_| Some(()));
        let last = format!("f.toml: and {} more mistakes", count - 200);
        assert_eq!(printed.lines().last(), Some(&*last));
        assert_eq!(printed.lines().count(), 201);
        assert!(printed.len() < 201 * 400, "{}", printed.len());
    }
    for text in [
        format!("node.id = \"{long}\""),
        format!("[[services]]\nname = \"{long}\"\n").repeat(2),
    ] {
        let printed = mistakes(&text, |root| {
            NodeSection::parse(root);
            let names: Vec<_> = root
                .tables("services")
                .iter_mut()
                .map(|service| {
                    (
                        service.path().to_owned(),
                        service.required::<String>("name"),
                    )
                })
                .collect();
            let names = names
                .iter()
                .filter_map(|(path, name)| Some((path.clone(), name.as_deref()?)));
            root.unique("service", names);
            Some(())
        });
        assert!(printed.len() < 500, "{}", printed.len());
        // What comes after the name is still there.
        assert!(
            printed.contains("1 to 64 letters") || printed.contains("already at"),
            "{printed}"
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fall_over(text in "\\PC{0,200}") {
        let _parsed = Document::from_toml("f.toml", &text).and_then(|document| document.parse(shared));
    }

    #[test]
    fn no_toml_like_text_makes_the_parser_fall_over(
        lines in prop::collection::vec(("[a-c]{1,2}", "(\\[|\"|\\.|=|[0-9]|a|\\{|\\}|\\]|,| |'|\\\\){0,12}"), 0..20)
    ) {
        let text: String = lines.iter().map(|(key, rest)| format!("{key}{rest}\n")).collect();
        let _parsed = Document::from_toml("f.toml", &text).and_then(|document| document.parse(shared));
    }
}
