//! Complete configurations, defaults, and every mistake with its message.

use super::*;
use crate::exchange::snapshot::Snapshot;
use crate::http::{Host, Path as RequestPath};
use crate::observe::access_log::{Destination, Format};
use crate::upstream::{Algorithm, BackendSettings};
use http::HeaderValue;
use http::uri::PathAndQuery;
use std::time::Duration;

const SMALL: &str = r#"
[node]
id = "l7-1"
[[listeners]]
name = "web"
address = "127.0.0.1:8080"
[[routes]]
upstream = "app"
[upstreams.app]
[[upstreams.app.backends]]
address = "127.0.0.1:9000"
"#;

fn mistakes(text: &str) -> Vec<String> {
    match Config::from_toml("l7.toml", text) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn the_smallest_configuration_has_safe_defaults() {
    let config = Config::from_toml("l7.toml", SMALL).unwrap();
    assert!(config.workers >= 1);
    assert_eq!(config.admin.listen, ([127, 0, 0, 1], ADMIN_PORT).into());
    let listener = &config.listeners[0];
    assert_eq!((listener.protocol, listener.http2), (Protocol::Http, false));
    assert_eq!(
        (listener.header_timeout, listener.max_header_size),
        (Duration::from_secs(10), 32 * 1024)
    );
    assert_eq!(&*config.routes[0].name, "route-1");
    let upstream = &config.upstreams[0];
    assert_eq!(
        (upstream.balance, upstream.retries),
        (Algorithm::RoundRobin, 1)
    );
    assert_eq!(
        upstream.backends,
        [BackendSettings {
            address: ([127, 0, 0, 1], 9000).into(),
            weight: 1
        }]
    );
    assert!(upstream.health.is_none());
    let log = config.access_log.as_ref().unwrap();
    assert_eq!(
        (&log.destination, log.format),
        (&Destination::Stderr, Format::Json)
    );
    assert_eq!(config.drain, Drain::default());
    assert!(config.registrations.is_empty());
}

#[test]
fn the_access_log_can_be_a_file_or_off() {
    let file = Config::from_toml(
        "l7.toml",
        &format!("{SMALL}[access_log]\npath = \"/tmp/a.log\"\nformat = \"combined\""),
    )
    .unwrap();
    let log = file.access_log.unwrap();
    assert_eq!(
        (log.destination, log.format),
        (Destination::File("/tmp/a.log".into()), Format::Combined)
    );
    let off =
        Config::from_toml("l7.toml", &format!("{SMALL}[access_log]\npath = \"off\"")).unwrap();
    assert!(off.access_log.is_none());
}

#[test]
fn the_group_of_the_access_log_is_one_of_this_machine() {
    let parse = |group: &str| {
        let text = format!("{SMALL}[access_log]\ngroup = {group}\n");
        let group = |config: Config| Some(config.access_log?.access.group?.id());
        Config::from_toml("l7.toml", &text).map(group)
    };
    assert_eq!(parse("\"root\"").unwrap(), Some(0));
    assert_eq!(parse("4294967294").unwrap(), Some(4_294_967_294));
    let line = SMALL.lines().count() + 2;
    for (group, hint) in [
        (
            "\"no-such-group\"",
            "there is no such group: see `getent group`",
        ),
        ("\"0\"", "write 0, without quotes"),
        ("4294967295", "numbers go from 0 to 4294967294"),
        ("-1", "numbers go from 0 to 4294967294"),
    ] {
        let mistakes = parse(group).unwrap_err().to_string();
        let place = format!("l7.toml:{line}: access_log.group: expected a group");
        assert!(
            mistakes.contains(&place) && mistakes.contains(hint),
            "{mistakes}"
        );
    }
}

#[test]
fn backends_count_as_up_before_their_first_probe_unless_told_otherwise() {
    for (initially, available) in [
        ("", 1),
        ("initially = \"up\"", 1),
        ("initially = \"down\"", 0),
    ] {
        let text = format!("{SMALL}[upstreams.app.health]\ntype = \"tcp\"\n{initially}");
        let snapshot = Snapshot::new(Config::from_toml("l7.toml", &text).unwrap().into(), None);
        assert_eq!(
            snapshot.upstreams()[0].available(),
            available,
            "{initially}"
        );
    }
}

#[test]
fn the_example_routes_as_its_comments_say() {
    let config = example();
    let snapshot = Snapshot::new(config.into(), None);
    let routed = |host: &'static str, path: &'static str| {
        let host = Host::parse(HeaderValue::from_static(host)).unwrap();
        let path = RequestPath::new(&PathAndQuery::from_static(path)).unwrap();
        let route = snapshot.router.find(&host, &path).ok()?;
        Some((
            route.name.to_string(),
            snapshot.upstream(route.upstream)?.name.to_string(),
        ))
    };
    let found = |route: &str, upstream: &str| Some((route.to_owned(), upstream.to_owned()));
    assert_eq!(routed("shop.example.com", "/"), found("shop", "shop"));
    assert_eq!(
        routed("eu.shop.example.com", "/api/x"),
        found("shop", "shop")
    );
    assert_eq!(
        routed("shop.example.com", "/api/x"),
        found("shop-api", "api")
    );
    assert_eq!(routed("shop.example.com", "/apix"), found("shop", "shop"));
    assert_eq!(
        routed("www.example.com", "/v2/a/b.png"),
        found("images", "static")
    );
    assert_eq!(
        routed("other.example.com", "/status"),
        found("status", "static")
    );
    assert_eq!(routed("other.example.com", "/"), None);
}

fn example() -> Config {
    Config::from_toml(
        "l7-proxy.toml",
        include_str!("../../../deploy/examples/l7-proxy.toml"),
    )
    .unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn every_mistake_names_its_place_and_what_to_do() {
    // (what is added to the smallest configuration, the mistakes)
    let table: &[(&str, &[&str])] = &[
        (
            "[[routes]]\nhosts = [\"a.test\"]\nupstream = \"ap\"",
            &[
                "l7.toml:14: routes[1].upstream: expected one of \"app\", got \"ap\" — did you mean \"app\"?",
            ],
        ),
        (
            "[[routes]]\nupstream = \"app\"\npath = { prefix = \"/\" }",
            &[
                "l7.toml:12: routes[1]: host *, path any is already routed by routes[0] — the first would always win: remove one, or make one more specific",
            ],
        ),
        (
            "[[routes]]\nupstream = \"app\"\npath = { regex = \"/a(b\" }",
            &[
                "l7.toml:14: routes[1].path.regex: \"/a(b\" is not a regular expression: unclosed group",
            ],
        ),
        (
            "[[routes]]\nupstream = \"app\"\npath = { exact = \"/a\", prefix = \"/b\" }",
            &[
                "l7.toml:14: routes[1].path: expected one of `exact`, `prefix` and `regex` — write path = { exact = \"/x\" }, { prefix = \"/api\" } or { regex = \"^/v[0-9]+/\" }",
            ],
        ),
        (
            "[[routes]]\nupstream = \"app\"\npath = { exact = \"/a/../b\" }",
            &[
                "l7.toml:14: routes[1].path.exact: no request has the path \"/a/../b\" after normalisation; write \"/b\"",
            ],
        ),
        (
            "[[routes]]\nupstream = \"app\"\nhosts = [\"a.*.test\"]",
            &[
                "l7.toml:14: routes[1].hosts: item 1 should be a host such as \"www.example.com\", \"*.example.com\" or \"*\", it is \"a.*.test\"",
            ],
        ),
        (
            "[[routes]]\nupstream = \"app\"\nhosts = []",
            &[
                "l7.toml:14: routes[1].hosts: an empty list matches no host — leave `hosts` out to match every host",
            ],
        ),
        (
            "[[routes]]\nhosts = [\"a.test\"]\nname = \"route-1\"",
            &[
                "l7.toml:12: routes[1].upstream: is missing — expected text",
                "l7.toml:14: routes[1].name: route \"route-1\" is already at routes[0].name",
            ],
        ),
        (
            "[upstreams.empty]",
            &[
                "l7.toml:12: upstreams.empty.backends: expected at least one backend — write [[upstreams.empty.backends]] with `address`",
            ],
        ),
        (
            "[upstreams.idle]\nbackends = [{ address = \"10.0.0.1:80\", weight = 0 }]",
            &[
                "l7.toml:13: upstreams.idle.backends: all weights are 0 — no backend would get requests: give one a weight of 1 or more",
            ],
        ),
        (
            "[upstreams.b]\nbackends = [{ address = \"0.0.0.0:80\" }, { address = \"0.0.0.0:80\" }]\nconect_timeout = \"1s\"",
            &[
                "l7.toml:13: upstreams.b.backends[0].address: nothing can be sent to 0.0.0.0:80 — write the address and port the backend listens on",
                "l7.toml:13: upstreams.b.backends[1].address: nothing can be sent to 0.0.0.0:80 — write the address and port the backend listens on",
                "l7.toml:13: upstreams.b.backends[1].address: backend \"0.0.0.0:80\" is already at upstreams.b.backends[0].address",
                "l7.toml:14: upstreams.b.conect_timeout: unknown key — did you mean `connect_timeout`?",
            ],
        ),
        (
            "[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:8080\"\nprotocol = \"https\"",
            &[
                "l7.toml:13: listeners[1].name: listener \"web\" is already at listeners[0].name",
                "l7.toml:14: listeners[1].address: address \"127.0.0.1:8080\" is already at listeners[0].address",
                "l7.toml: certificates: listener \"web\" speaks https and there is no certificate — write [[certificates]] with `certificate` and `key`",
            ],
        ),
        (
            "[[listeners]]\nname = \"b\"\naddress = \"127.0.0.1:8081\"\nproxy_protocol = { trusted = [] }",
            &[
                "l7.toml:15: listeners[1].proxy_protocol.trusted: an empty list trusts nobody — name the addresses that send the header, or leave `proxy_protocol` out",
            ],
        ),
        (
            "[[listeners]]\nname = \"b\"\naddress = \"127.0.0.1:8081\"\nproxy_protocol = true",
            &[
                "l7.toml:15: listeners[1].proxy_protocol: expected a table, got true — write proxy_protocol = { ... }",
            ],
        ),
        (
            "[[listeners]]\nname = \"b\"\naddress = \"127.0.0.1:8081\"\nproxy_protocol = { from = [\"10.2.0.1/32\"] }",
            &[
                "l7.toml:15: listeners[1].proxy_protocol.trusted: is missing — expected a list",
                "l7.toml:15: listeners[1].proxy_protocol.from: unknown key",
            ],
        ),
        (
            "[[certificates]]\nnames = [\"*\", \"a.test\"]\ncertificate = \"/c\"\nkey = \"/k\"",
            &[
                "l7.toml:13: certificates[0].names: item 1 should be a server name such as \"www.example.com\" or \"*.example.com\", it is \"*\"; for every other name write `default = true`",
            ],
        ),
        (
            "[[certificates]]\ncertificate = \"/c\"\nkey = \"/k\"\ndefault = true\n[[certificates]]\ncertificate = \"/d\"\nkey = \"/l\"\ndefault = true",
            &[
                "l7.toml:19: certificates[1].default: another certificate is the default already — one at most can be",
            ],
        ),
        (
            "[[registrations]]\nservice = \"web\"\naddress = \"0.0.0.0:80\"",
            &[
                "l7.toml:14: registrations[0].address: nothing can be sent to 0.0.0.0:80 — the address and port other machines reach this node at",
            ],
        ),
        (
            "[drain]\ngrace = \"10s\"\ndeadline = \"5s\"",
            &[
                "l7.toml:14: drain.deadline: 5s is over before the grace of 10s — both count from the start of the drain: lengthen `deadline`",
            ],
        ),
        (
            "[forwarding]\ntrusted = [\"10.0.0.1\"]",
            &[
                "l7.toml:13: forwarding.trusted: item 1 should be an address with a prefix length such as \"10.0.0.1/24\", it is \"10.0.0.1\"; the prefix length is missing; a single address is \"10.0.0.1/32\"",
            ],
        ),
    ];
    for (added, expected) in table {
        let found = mistakes(&format!("{SMALL}{added}\n"));
        assert_eq!(found, *expected, "{added}");
    }
}

#[test]
fn an_empty_file_is_told_everything_it_lacks_at_once() {
    let found = mistakes("").join("\n");
    for key in ["node", "listeners", "routes", "upstreams"] {
        assert!(
            found.contains(&format!("l7.toml: {key}: ")),
            "{key} in {found}"
        );
    }
}

#[test]
fn a_route_can_not_be_upgraded_to_what_carries_http() {
    let with = |upgrades: &str| {
        SMALL.replace(
            "upstream = \"app\"",
            &format!("upstream = \"app\"\nupgrades = {upgrades}"),
        )
    };
    let names = |text: &str| {
        let upgrades = Config::from_toml("l7.toml", text).unwrap().routes[0]
            .upgrades
            .clone();
        upgrades
            .iter()
            .map(|protocol| protocol.name().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(SMALL), ["websocket"]);
    assert_eq!(names(&with("[]")), [""; 0]);
    assert_eq!(
        names(&with("[\"WebSocket\", \"tcp\"]")),
        ["websocket", "tcp"]
    );
    for refused in ["[\"h2c\"]", "[\"websocket\", \"HTTP/2.0\"]", "[\"a b\"]"] {
        let found = mistakes(&with(refused));
        assert!(
            found.len() == 1 && found[0].contains("routes[0].upgrades"),
            "{refused}: {found:?}"
        );
    }
}

#[test]
fn words_of_other_proxies_are_translated_or_said_not_to_be_there() {
    let base = |listener: &str, route: &str, root: &str| {
        format!(
            "{root}\n[node]\nid = \"l7-1\"\n[[listeners]]\nname = \"web\"\naddress = \"127.0.0.1:80\"\n{listener}\n\
             [[routes]]\nupstream = \"app\"\n{route}\n[upstreams.app]\nbackends = [{{ address = \"10.0.0.1:80\" }}]\n"
        )
    };
    for (text, said) in [
        (
            base("client_max_body_size = \"1m\"", "", ""),
            "listeners[0].client_max_body_size: unknown key — there is no limit on the size of a request body yet",
        ),
        (
            base("keepalive_timeout = \"65s\"", "", ""),
            "listeners[0].keepalive_timeout: unknown key — towards clients that is `idle_timeout` of [[listeners]], towards backends `keep_alive.idle_timeout` of [upstreams.NAME]",
        ),
        (
            base("", "proxy_pass = \"x\"", ""),
            "routes[0].proxy_pass: unknown key — that is `upstream` of [[routes]]",
        ),
        (
            base("", "", "worker_processes = 4"),
            "worker_processes: unknown key — that is `workers`",
        ),
        // Few letters in common with anything.
        (
            base("max_heads = 4", "", ""),
            "listeners[0].max_heads: unknown key — did you mean `max_headers`?",
        ),
        (
            base("maximum_payload_length = 4", "", ""),
            "listeners[0].maximum_payload_length: unknown key",
        ),
        (
            base("", "hosts = [\"_\"]", ""),
            "routes[0].hosts: item 1 should be a host",
        ),
        (
            base("", "hosts = [\".a.test\"]", ""),
            "write \"a.test\" and \"*.a.test\"",
        ),
        (
            base("", "hosts = [\"~^a\"]", ""),
            "there are no regular expressions for hosts",
        ),
    ] {
        let mistakes = Config::from_toml("l7.toml", &text).unwrap_err().to_string();
        let line = mistakes.lines().find(|line| line.contains(said));
        assert!(line.is_some(), "{said} is not in {mistakes}");
        assert_eq!(mistakes.lines().count(), 1, "{mistakes}");
        if !said.contains('—') && said.contains("maximum") {
            assert!(mistakes.ends_with(said), "{mistakes}");
        }
    }
    let mistakes = Config::from_toml("l7.toml", &base("", "hosts = [\"_\"]", "")).unwrap_err();
    assert!(
        mistakes.to_string().contains("for every host write \"*\""),
        "{mistakes}"
    );
}

#[test]
fn a_gateway_has_a_pseudonym_or_none() {
    let with = |via: &str| format!("{SMALL}[forwarding]\nvia = {via}");
    for good in ["\"edge-1\"", "\"off\""] {
        assert_eq!(mistakes(&with(good)), [""; 0], "{good}");
    }
    for bad in ["\"a b\"", "\"\"", "\"a:80\"", "\"a\\r\\nx: y\""] {
        let found = mistakes(&with(bad));
        assert!(
            found.len() == 1 && found[0].contains("forwarding.via"),
            "{bad}: {found:?}"
        );
    }
}
