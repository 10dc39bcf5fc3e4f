//! What users see when a configuration is wrong.

mod environment;
mod hostile;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::sections::{
    AdminSection, BusSection, LogFormat, LogSection, NatsSection, NodeSection, Transport,
};
use super::*;

/// The mistakes of `text`, as printed.
fn mistakes<T: std::fmt::Debug>(
    text: &str,
    parse: impl FnOnce(&mut Table<'_>) -> Option<T>,
) -> String {
    match Document::from_toml("f.toml", text) {
        Ok(document) => document.parse(parse).unwrap_err().to_string(),
        Err(mistakes) => mistakes.to_string(),
    }
}

fn read<T: FromValue + std::fmt::Debug>(value: &str) -> Result<T, String> {
    let document = Document::from_toml("f.toml", &format!("key = {value}")).unwrap();
    document
        .parse(|root| root.required("key"))
        .map_err(|mistakes| mistakes.to_string())
}

#[derive(Debug, PartialEq)]
struct Shared {
    node: NodeSection,
    admin: AdminSection,
    bus: BusSection,
    log: LogSection,
}

fn shared(root: &mut Table<'_>) -> Option<Shared> {
    let node = NodeSection::parse(root);
    let admin = AdminSection::parse(root, 9100);
    let bus = BusSection::parse(root);
    let log = LogSection::parse(root);
    Some(Shared {
        node: node?,
        admin,
        bus,
        log,
    })
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"
[node]
idd = "l7-1"

[log]
format = "jsn"

[upstreams.api]
timeout = 5
servers = ["10.0.0.1"]

[[services]]
port = 80
[[services]]
port = 70000
"#;
    let printed = mistakes(text, |root| {
        NodeSection::parse(root);
        LogSection::parse(root);
        for (_, mut upstream) in root.map("upstreams") {
            upstream.required::<Duration>("timeout");
            upstream.required::<Vec<SocketAddr>>("servers");
        }
        for mut service in root.tables("services") {
            service.required::<u16>("port");
        }
        Some(())
    });
    let expected = r#"f.toml:2: node.id: is missing — expected text
f.toml:3: node.idd: unknown key — did you mean `id`?
f.toml:6: log.format: expected one of "json", "text", got "jsn" — did you mean "json"?
f.toml:9: upstreams.api.timeout: expected a duration such as "250ms", "2s" or "1m", got 5 — write "5s"
f.toml:10: upstreams.api.servers: item 1 should be an address with a port such as "10.0.0.1:80" or "[2001:db8::1]:80", it is "10.0.0.1"; the port is missing
f.toml:15: services[1].port: expected an integer from 0 to 65535, got 70000"#;
    assert_eq!(printed, expected);
}

#[test]
fn unknown_keys_are_found_at_every_level_and_suggest_the_nearest() {
    let text = "[nod]\nid = \"a\"\n[admin]\nlisten = \"127.0.0.1:1\"\nlissten = 1\n[[services]]\nnmae = \"x\"";
    let printed = mistakes(text, |root| {
        root.table("node");
        AdminSection::parse(root, 1);
        for mut service in root.tables("services") {
            service.optional::<String>("name");
        }
        Some(())
    });
    let expected = "f.toml:1: nod: unknown key — did you mean `node`?\n\
                    f.toml:5: admin.lissten: unknown key — did you mean `listen`?\n\
                    f.toml:7: services[0].nmae: unknown key — did you mean `name`?";
    assert_eq!(printed, expected);
}

#[test]
fn names_given_by_the_user_are_not_unknown_keys() {
    let text = "[upstreams.\"a.b\"]\nx = 1\n[upstreams.c]\nx = 2\ny = 3";
    let printed = mistakes(text, |root| {
        let named: Vec<_> = root
            .map("upstreams")
            .into_iter()
            .map(|(name, mut t)| (name, t.required::<u8>("x")))
            .collect();
        assert_eq!(
            named,
            [("a.b".to_owned(), Some(1)), ("c".to_owned(), Some(2))]
        );
        Some(())
    });
    assert_eq!(printed, "f.toml:5: upstreams.c.y: unknown key");
}

#[test]
fn values_out_of_range_are_mistakes() {
    let bounded = |value: &str| {
        let text = format!("retries = {value}\ntimeout = {value}\nshare = {value}\nsize = {value}");
        mistakes(&text, |root| {
            root.within("retries", 1..=10u32, 3);
            let times = Duration::from_micros(10)..=Duration::from_secs(86_400);
            root.required_within("timeout", times.clone());
            root.optional_within("share", 0.0..=0.5);
            root.within("size", ByteSize(0)..=ByteSize(64 << 10), ByteSize(1));
            root.required_within("gone", times);
            Some(())
        })
    };
    // The bounds are the same whether the value is of another type or only out of them.
    let expected = |value: &str, hints: [&str; 4]| {
        format!(
            "f.toml:1: retries: expected an integer from 1 to 10, got {value}{}\n\
             f.toml:2: timeout: expected a duration from 10us to 1d, got {value}{}\n\
             f.toml:3: share: expected a number from 0 to 0.5, got {value}{}\n\
             f.toml:4: size: expected a size from 0B to 64KiB, got {value}{}\n\
             f.toml: gone: is missing — expected a duration from 10us to 1d",
            hints[0], hints[1], hints[2], hints[3]
        )
    };
    let units = [
        "",
        " — a whole number and one of us, ms, s, m, h, d",
        "",
        " — a whole number and one of B, KiB, MiB, GiB, TiB",
    ];
    assert_eq!(bounded("\"many\""), expected("\"many\"", units));
    let hints = ["", " — write \"11s\"", "", " — write \"11B\""];
    assert_eq!(bounded("11"), expected("11", hints));
    // A unit with which the number is within the bounds, or none.
    let hints = ["", " — write \"500000ms\"", "", ""];
    assert_eq!(bounded("500000"), expected("500000", hints));
    let quoted = [" — write 500000, without quotes", hints[1], "", ""];
    assert_eq!(bounded("\"500000\""), expected("\"500000\"", quoted));
    let memory = |value: &str| {
        mistakes(&format!("memory = {value}"), |root| {
            root.required_within("memory", ByteSize(32 << 20)..=ByteSize(64 << 30))
        })
    };
    let message = "f.toml:1: memory: expected a size from 32MiB to 64GiB, got";
    assert_eq!(memory("256"), format!("{message} 256 — write \"256MiB\""));
    assert_eq!(memory("16"), format!("{message} 16 — write \"16GiB\""));
    assert_eq!(memory("0"), format!("{message} 0"));
    assert_eq!(memory("-1"), format!("{message} -1"));
    let printed = mistakes("timeout = \"25h\"", |root| {
        root.required_within("timeout", Duration::ZERO..=Duration::from_secs(5400))
    });
    assert_eq!(
        printed,
        "f.toml:1: timeout: expected a duration from 0s to 90m, got \"25h\""
    );
}

#[test]
fn two_things_of_one_name_are_a_mistake_at_the_second() {
    let text = "[[services]]\nname = \"web\"\n[[services]]\nname = \"web\"";
    let printed = mistakes(text, |root| {
        let mut names = Vec::new();
        for mut service in root.tables("services") {
            names.push((
                format!("{}.name", service.path()),
                service.required::<String>("name")?,
            ));
        }
        root.unique(
            "service",
            names
                .iter()
                .map(|(path, name)| (path.clone(), name.as_str())),
        );
        Some(())
    });
    assert_eq!(
        printed,
        "f.toml:4: services[1].name: service \"web\" is already at services[0].name"
    );
}

#[test]
fn tables_where_values_belong_and_the_other_way_round_are_mistakes() {
    let text = "a = 1\nb = 2\nc = [1, \"x\"]\n[d]\n[[f]]\ng = true\nh = 3";
    let printed = mistakes(text, |root| {
        root.table("a");
        root.tables("b");
        root.tables_by("c", "name");
        root.optional::<String>("d");
        for mut item in root.tables("f") {
            item.table("g");
            item.tables("h");
        }
        root.required_table("e");
        Some(())
    });
    let expected = "f.toml:1: a: expected a table, got 1 — write [a]\n\
                    f.toml:2: b: expected tables, got 2 — write [[b]]\n\
                    f.toml:3: c[0]: expected a table, got 1\n\
                    f.toml:3: c[1]: expected a table, got \"x\" — write { name = \"x\" }\n\
                    f.toml:4: d: expected text, got a table\n\
                    f.toml:6: f[0].g: expected a table, got true — write g = { ... }\n\
                    f.toml:7: f[0].h: expected tables, got 3 — write h = [{ ... }]\n\
                    f.toml: e: is missing — expected a table";
    assert_eq!(printed, expected);
}

#[test]
fn values_are_read_in_their_units() {
    assert_eq!(read("\"250ms\""), Ok(Duration::from_millis(250)));
    assert_eq!(read("\"2s\""), Ok(Duration::from_secs(2)));
    assert_eq!(read("\"1m\""), Ok(Duration::from_secs(60)));
    assert_eq!(read("\"0s\""), Ok(Duration::ZERO));
    assert_eq!(read("\"10MiB\""), Ok(ByteSize(10 << 20)));
    assert_eq!(
        read("\"10.0.0.1/24\""),
        Ok(Cidr::new(IpAddr::from([10, 0, 0, 1]), 24).unwrap())
    );
    assert_eq!(read("[1, 2]"), Ok(vec![1u8, 2]));
    assert_eq!(read("1"), Ok(1.0f64));
    for wrong in [
        "5",
        "\"5\"",
        "\"s\"",
        "\"-1s\"",
        "\"1 s\"",
        "\"1.5s\"",
        "\"99999999999999999999s\"",
        "\"999999999999999d\"",
        "true",
    ] {
        assert!(read::<Duration>(wrong).is_err(), "{wrong}");
    }
    for wrong in ["5", "\"5\"", "\"MiB\"", "\"5MB\"", "\"99999999999TiB\""] {
        assert!(read::<ByteSize>(wrong).is_err(), "{wrong}");
    }
    for wrong in [
        "\"10.0.0.1\"",
        "\"10.0.0.1/33\"",
        "\"10.0.0.1/+8\"",
        "\"x/8\"",
        "\"::1/129\"",
        "\"10.0.0.1/\"",
        "1",
    ] {
        assert!(read::<Cidr>(wrong).is_err(), "{wrong}");
    }
    for wrong in ["nan", "inf", "\"1\""] {
        assert!(read::<f64>(wrong).is_err(), "{wrong}");
    }
    for wrong in ["256", "-1", "1.0", "\"1\"", "9223372036854775808"] {
        assert!(
            Document::from_toml("f", &format!("key = {wrong}")).is_err()
                || read::<u8>(wrong).is_err(),
            "{wrong}"
        );
    }
    assert!(
        read::<std::path::PathBuf>("\"a\\u0000b\"")
            .unwrap_err()
            .contains("NUL")
    );
}

#[test]
fn numbers_that_no_value_holds_are_mistakes_at_their_key() {
    let text = "\
        least = -9223372036854775808\n\
        [node]\n\
        digits = 9223372036854775808\n\
        hex = 0xffff_ffff_ffff_ffff_f\n\
        none = 0x\n\
        power = -1e400\n\
        list = [\n 1,\n [2, 18446744073709551615],\n]\n\
        most = [0x7fff_ffff_ffff_ffff, -inf, +nan, 1e308, +1_0]\n";
    let expected = [
        "3: node.digits",
        "4: node.hex",
        "5: node.none",
        "6: node.power",
        "9: node.list[1][1]",
    ]
    .map(|place| format!("f.toml:{place}: is not a number that fits 64 bits"));
    assert_eq!(mistakes(text, |_| Some(())), expected.join("\n"));

    let text =
        "least = -9223372036854775808\nmost = [0x7fff_ffff_ffff_ffff, -inf, +nan, 1e308, +1_0]";
    let document = Document::from_toml("f.toml", text).unwrap();
    let root = document.into_root();
    assert_eq!(root["least"], Value::Integer(i64::MIN));
    let Value::Array(most) = &root["most"] else {
        panic!("{:?}", root["most"]);
    };
    assert_eq!(most[0], Value::Integer(i64::MAX));
    assert_eq!(most[1], Value::Float(f64::NEG_INFINITY));
    assert!(matches!(most[2], Value::Float(number) if number.is_nan()));
    assert_eq!(most[3..], [Value::Float(1e308), Value::Integer(10)]);
}

#[test]
fn networks_hold_their_addresses() {
    let cidr = |text: &str| text.parse::<Cidr>().unwrap();
    assert!(cidr("10.1.2.3/24").contains("10.1.2.255".parse().unwrap()));
    assert!(!cidr("10.1.2.3/24").contains("10.1.3.0".parse().unwrap()));
    assert!(cidr("0.0.0.0/0").contains("255.255.255.255".parse().unwrap()));
    assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
    assert!(cidr("::/0").contains("ffff::1".parse().unwrap()));
    assert!(cidr("10.0.0.1/32").contains("10.0.0.1".parse().unwrap()));
    assert!(cidr("2001:db8::1/32").contains("2001:db8:ffff::".parse().unwrap()));
    assert!(!cidr("2001:db8::1/32").contains("2001:db9::".parse().unwrap()));
    assert_eq!(cidr("10.1.2.3/24").to_string(), "10.1.2.3/24");
}

#[test]
fn the_shared_sections_have_defaults_for_all_but_the_name() {
    let document = Document::from_toml("f.toml", "[node]\nid = \"l4-1\"").unwrap();
    let parsed = document.parse(shared).unwrap();
    assert_eq!(parsed.node.id, "l4-1");
    assert_eq!(
        parsed.admin.listen,
        SocketAddr::from(([127, 0, 0, 1], 9100))
    );
    assert_eq!(parsed.bus.transport, Transport::Local);
    assert_eq!(
        (parsed.log.format, parsed.log.level.as_str()),
        (LogFormat::Text, "info")
    );
}

#[test]
fn the_shared_sections_are_read() {
    let text = r#"
[node]
id = "l7-1"
[admin]
listen = "0.0.0.0:9000"
[log]
format = "json"
level = "warn,l7_proxy=debug"
[bus]
transport = "nats"
[bus.nats]
servers = ["10.9.0.5:4222", "tls://nats.example:4222"]
bucket = "blue"
replicas = 3
user = "weir"
password_file = "/etc/weir/nats"
"#;
    let parsed = Document::from_toml("f.toml", text)
        .unwrap()
        .parse(shared)
        .unwrap();
    let Transport::Nats(nats) = parsed.bus.transport else {
        panic!("not nats");
    };
    let NatsSection {
        servers,
        bucket,
        replicas,
        login,
        ..
    } = *nats;
    assert_eq!((servers.len(), bucket.as_str(), replicas), (2, "blue", 3));
    assert_eq!(login.map(|login| login.user), Some("weir".to_owned()));
}

#[test]
fn mistakes_in_the_shared_sections_say_what_to_do() {
    let text = r#"
[node]
id = "l7 1"
[admin]
listen = ":9000"
[log]
level = "l7_proxy=loud"
[bus]
transport = "nats"
[bus.nats]
servers = ["exa mple"]
bucket = "a.b"
user = "weir"
"#;
    let expected = r#"f.toml:3: node.id: "l7 1" can't be a node's name — 1 to 64 letters, digits, dots, dashes or underscores
f.toml:5: admin.listen: expected an address with a port such as "10.0.0.1:80" or "[2001:db8::1]:80", got ":9000" — write "0.0.0.0:9000" to listen on every address
f.toml:7: log.level: expected error, warn, info, debug or trace, got "loud" — write "info", or "info,l7_proxy=debug"
f.toml:10: bus.nats.password_file: is missing — `user` needs it
f.toml:11: bus.nats.servers: "exa mple" is not a NATS server — write "host:port"
f.toml:12: bus.nats.bucket: "a.b" can't be a bucket's name — 1 to 64 letters, digits, dashes or underscores"#;
    assert_eq!(mistakes(text, shared), expected);

    let text = "[node]\nid = \"a\"\n[bus]\ntransport = \"nats\"";
    assert_eq!(
        mistakes(text, shared),
        "f.toml:3: bus.nats: is missing — transport = \"nats\" needs [bus.nats] with `servers`"
    );
}

#[test]
fn the_keys_a_parser_asked_for_can_be_listed() {
    let text = "[node]\nid = \"a\"\n[upstreams.api]\ntimeout = \"1s\"\n[[services]]\nvip = 1\n[services.health]\nrise = 2";
    let document = Document::from_toml("f.toml", text).unwrap();
    let parsed = document.parse(|root| {
        NodeSection::parse(root);
        for (_, mut upstream) in root.map("upstreams") {
            upstream.optional::<Duration>("timeout");
        }
        for mut service in root.tables("services") {
            service.optional::<u8>("vip");
            service.table("health")?.optional::<u8>("rise");
        }
        Some(())
    });
    assert_eq!(parsed, Ok(()));
    let expected = [
        "node",
        "node.id",
        "services",
        "services[].health",
        "services[].health.rise",
        "services[].vip",
        "upstreams",
        "upstreams.*.timeout",
    ];
    assert_eq!(document.asked(), expected);
}

proptest! {
    #[test]
    fn durations_and_sizes_are_what_they_say(number in 0u64..1_000_000, unit in 0usize..5) {
        let (name, millis) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)][unit];
        prop_assert_eq!(read(&format!("\"{number}{name}\"")), Ok(Duration::from_millis(number * millis)));
        let time = Duration::from_millis(number * millis);
        prop_assert_eq!(read(&format!("\"{}\"", time.written())), Ok(time));
        let size = ByteSize(number << (10 * unit));
        prop_assert_eq!(read(&format!("\"{size}\"")), Ok(size));
    }

    #[test]
    fn a_misspelt_key_is_reported_at_its_line(before in 0usize..20, key in "[a-z]{3,10}") {
        prop_assume!(key != "node" && key != "admin" && key != "bus" && key != "log");
        let text = format!("{}{key} = 1\n[node]\nid = \"a\"", "# comment\n".repeat(before));
        let printed = mistakes(&text, shared);
        let expected = format!("f.toml:{}: {key}: unknown key", before + 1);
        prop_assert!(printed.starts_with(&expected), "{}", printed);
    }
}

#[test]
fn every_wrong_item_of_a_list_is_told_at_its_line() {
    let text = "a = [1,\n 300, 2,\n -1]\nb = [\n true,\n 1]";
    let printed = mistakes(text, |root| {
        root.optional::<Vec<u8>>("a");
        root.secret().optional::<Vec<u8>>("b");
        Some(())
    });
    assert_eq!(
        printed,
        "f.toml:2: a: item 2 should be an integer from 0 to 255, it is 300\n\
         f.toml:3: a: item 4 should be an integer from 0 to 255, it is -1\n\
         f.toml:4: b: expected a list, got a list"
    );
}

#[test]
fn a_table_that_was_given_up_for_a_mistake_has_no_unknown_keys() {
    let text = "[[services]]\nname = \"a\"\n[[services]]\nname = \"b\"\n[other]\nnmae = 1";
    let parse = |most: usize| {
        mistakes(text, |root| {
            let count = root.tables("services").len();
            if count > most {
                root.mistake("services", format!("{count} are too many"), "");
            }
            root.table("other")?.optional::<u8>("name");
            Some(())
        })
    };
    assert_eq!(
        parse(1),
        "f.toml:1: services: 2 are too many\nf.toml:6: other.nmae: unknown key — did you mean `name`?"
    );
    assert_eq!(
        parse(2).matches("unknown key").count(),
        3,
        "nothing else is wrong"
    );
}

#[test]
fn what_is_there_twice_is_told_of_tables_with_other_mistakes_too() {
    let text = "[[services]]\nname = \"web\"\nport = 0.5\n[[services]]\nname = \"web\"\n[[services]]\nname = 7";
    let printed = mistakes(text, |root| {
        let mut tables = root.tables("services");
        for table in &mut tables {
            table.required::<String>("name");
            table.optional::<u16>("port");
        }
        root.unique_in::<String>("service", &tables, "name");
        Some(())
    });
    assert_eq!(
        printed,
        "f.toml:3: services[0].port: expected an integer from 0 to 65535, got 0.5\n\
         f.toml:5: services[1].name: service \"web\" is already at services[0].name\n\
         f.toml:7: services[2].name: expected text, got 7 — write \"7\", in quotes"
    );
}
