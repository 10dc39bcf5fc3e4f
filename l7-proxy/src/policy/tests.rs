//! Precedence, matching, and the arranged table against a naive one.

use super::*;
use crate::http::{Host, Path};
use crate::observe::reason::Reason;
use http::HeaderValue;
use http::uri::PathAndQuery;
use proptest::prelude::*;

fn rule(name: &str, hosts: &[&str], path: PathPattern) -> Rule {
    let hosts = hosts
        .iter()
        .map(|host| HostPattern::parse(host).unwrap())
        .collect();
    Rule {
        name: name.into(),
        hosts,
        path,
        upstream: UpstreamId(0),
        upgrades: Vec::new(),
    }
}

fn exact(path: &str) -> PathPattern {
    PathPattern::exact(path).unwrap()
}

fn prefix(path: &str) -> PathPattern {
    PathPattern::prefix(path).unwrap()
}

fn regex(expression: &str) -> PathPattern {
    PathPattern::regex(expression).unwrap()
}

fn find<'r>(router: &'r Router, host: &str, path: &str) -> Result<&'r str, Reason> {
    let host = Host::parse(HeaderValue::from_str(host).unwrap()).unwrap();
    let path = Path::new(&PathAndQuery::try_from(path).unwrap())?;
    router.find(&host, &path).map(|route| &*route.name)
}

#[test]
fn the_most_specific_host_wins() {
    let router = Router::new(&[
        rule("any", &["*"], PathPattern::Any),
        rule("com", &["*.com"], PathPattern::Any),
        rule("wildcard", &["*.example.com"], PathPattern::Any),
        rule("deep", &["*.shop.example.com"], PathPattern::Any),
        rule(
            "exact",
            &["www.example.com", "192.0.2.1", "[2001:DB8::1]"],
            PathPattern::Any,
        ),
    ]);
    let table = [
        ("www.example.com", "exact"),
        ("WWW.Example.COM", "exact"),
        ("www.example.com.", "exact"),
        ("www.example.com:8080", "exact"),
        ("192.0.2.1:80", "exact"),
        ("[2001:db8:0::1]:443", "exact"),
        ("api.example.com", "wildcard"),
        ("a.b.example.com", "wildcard"),
        ("a.shop.example.com", "deep"),
        ("shop.example.com", "wildcard"),
        ("example.com", "com"),
        ("notexample.com", "com"),
        ("com", "any"),
        ("other.org", "any"),
    ];
    for (host, name) in table {
        assert_eq!(find(&router, host, "/"), Ok(name), "{host}");
    }
}

#[test]
fn the_most_specific_path_wins() {
    let router = Router::new(&[
        rule("any", &["*"], PathPattern::Any),
        rule("image", &["*"], regex(r"\.(png|jpg)$")),
        rule("version", &["*"], regex(r"^/v\d+/.*\.png$")),
        rule("api", &["*"], prefix("/api")),
        rule("users", &["*"], prefix("/api/users/")),
        rule("login", &["*"], exact("/api/users/login")),
    ]);
    let table = [
        ("/", "any"),
        ("/apix", "any"),
        ("/API", "any"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/api/x", "api"),
        ("/api-x", "any"),
        ("/api/users", "users"),
        ("/api/users/", "users"),
        ("/api/users/7", "users"),
        ("/api/usersx", "api"),
        ("/api/users/login", "login"),
        ("/api/users/login/", "users"),
        ("/api/a.png", "api"),
        ("/v1/a.png", "image"),
        ("/v1/a.jpg?x=.gif", "image"),
        ("/api/../x", "any"),
        ("/x/%2e%2e/api/users", "users"),
        ("//api//users", "users"),
    ];
    for (path, name) in table {
        assert_eq!(find(&router, "h", path), Ok(name), "{path}");
    }
}

#[test]
fn a_host_without_a_matching_path_gives_way_to_the_next_host() {
    let router = Router::new(&[
        rule("api", &["www.example.com"], prefix("/api")),
        rule("images", &["*.example.com"], prefix("/images")),
        rule("status", &["*"], exact("/status")),
    ]);
    assert_eq!(find(&router, "www.example.com", "/api/1"), Ok("api"));
    assert_eq!(find(&router, "www.example.com", "/images/1"), Ok("images"));
    assert_eq!(find(&router, "www.example.com", "/status"), Ok("status"));
    assert_eq!(find(&router, "www.example.com", "/"), Err(Reason::NoRoute));
}

#[test]
fn an_escaped_slash_is_refused_only_where_it_could_lead_elsewhere() {
    let router = Router::new(&[
        rule("all", &["*"], PathPattern::Any),
        rule("admin", &["*"], prefix("/admin")),
    ]);
    assert_eq!(find(&router, "h", "/projects/group%2Fname"), Ok("all"));
    assert_eq!(find(&router, "h", "/admin/a%2Fb"), Ok("admin"));
    assert_eq!(
        find(&router, "h", "/admin%2Fsecrets"),
        Err(Reason::PathAmbiguous)
    );
    assert_eq!(find(&router, "h", "/%2fadmin"), Err(Reason::PathAmbiguous));
    assert_eq!(
        find(&router, "h", "/admin%5csecrets"),
        Err(Reason::PathAmbiguous)
    );
}

#[test]
fn patterns_that_cannot_match_are_refused() {
    for host in [
        "", ".", "a..b", "*", "*.", "a.*.b", "*a.com", "http://a", "a:80", "a/b", "a b", "ä.de",
        "*.[::1]", "[::1",
    ] {
        let parsed = HostPattern::parse(host);
        assert_eq!(parsed.is_ok(), host == "*", "{host:?}: {parsed:?}");
    }
    for path in [
        "",
        "api",
        "/a?b",
        "/a#b",
        "/a b",
        "/a%zz",
        "/a%00",
        "/../%2f..",
    ] {
        assert!(PathPattern::prefix(path).is_err(), "{path:?}");
        assert!(PathPattern::exact(path).is_err(), "{path:?}");
    }
    let error = PathPattern::exact("/a/../%62//c").unwrap_err().to_string();
    assert!(error.contains("write \"/b/c\""), "{error}");
    let error = PathPattern::regex("/a(b").unwrap_err().to_string();
    assert_eq!(
        error,
        "\"/a(b\" is not a regular expression: unclosed group"
    );
}

#[test]
fn a_thousand_routes_are_all_found() {
    let mut rules = Vec::new();
    for host in 0..100 {
        let name = |path: &str| format!("{host}{path}");
        let hosts = [format!("h{host}.example.com")];
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        for path in 0..4 {
            rules.push(rule(
                &name(&format!("/exact/{path}")),
                &hosts,
                exact(&format!("/exact/{path}")),
            ));
            rules.push(rule(
                &name(&format!("/prefix/{path}")),
                &hosts,
                prefix(&format!("/prefix/{path}")),
            ));
        }
        let wild = [format!("*.h{host}.example.com")];
        let wild: Vec<&str> = wild.iter().map(String::as_str).collect();
        rules.push(rule(&name(" below"), &wild, PathPattern::Any));
        rules.push(rule(&name(" numbered"), &hosts, regex(r"^/\d+$")));
    }
    assert_eq!(rules.len(), 1_000);
    let router = Router::new(&rules);
    for host in 0..100 {
        let at = format!("h{host}.example.com");
        for path in 0..4 {
            let exact = format!("/exact/{path}");
            assert_eq!(find(&router, &at, &exact), Ok(&*format!("{host}{exact}")));
            let below = format!("/prefix/{path}/deep/er");
            assert_eq!(
                find(&router, &at, &below),
                Ok(&*format!("{host}/prefix/{path}"))
            );
        }
        assert_eq!(find(&router, &at, "/123"), Ok(&*format!("{host} numbered")));
        assert_eq!(
            find(&router, &format!("x.y.{at}"), "/"),
            Ok(&*format!("{host} below"))
        );
        assert_eq!(find(&router, &at, "/prefix"), Err(Reason::NoRoute));
    }
}

/// The rules as the documentation states them: every rule is looked at, the best rank wins, of equals the first.
fn naive<'r>(rules: &'r [Rule], host: &str, path: &str) -> Option<&'r str> {
    let rank = |rule: &Rule| {
        let hosts = rule.hosts.iter().filter(|pattern| pattern.matches(host));
        let host = hosts.map(|pattern| match pattern {
            HostPattern::Exact(_) => (2, 0),
            HostPattern::Wildcard(suffix) => (1, suffix.len()),
            HostPattern::Any => (0, 0),
        });
        let path = match &rule.path {
            PathPattern::Exact(_) => (3, 0),
            PathPattern::Prefix(prefix) => (2, prefix.len()),
            PathPattern::Regex(_) => (1, 0),
            PathPattern::Any => (0, 0),
        };
        (host.max(), path)
    };
    let fits = |rule: &&Rule| {
        rule.path.matches(path) && rule.hosts.iter().any(|pattern| pattern.matches(host))
    };
    // `max_by_key` takes the last of equals.
    rules
        .iter()
        .rev()
        .filter(fits)
        .max_by_key(|rule| rank(rule))
        .map(|rule| &*rule.name)
}

fn some_host() -> impl Strategy<Value = String> {
    "([ab]\\.){0,3}[ab]"
}

fn some_path() -> impl Strategy<Value = String> {
    "(/(a|b|ab|a-)){1,4}/?"
}

fn some_rule() -> impl Strategy<Value = (Vec<HostPattern>, PathPattern)> {
    let host = prop_oneof![
        some_host(),
        some_host().prop_map(|host| format!("*.{host}")),
        Just("*".to_owned()),
    ];
    let path = prop_oneof![
        some_path().prop_map(|path| exact(&path)),
        some_path().prop_map(|path| prefix(&path)),
        some_path().prop_map(|path| prefix(&path)),
        "(\\^/a|b/|a-\\$|a)".prop_map(|expression| regex(&expression)),
        Just(PathPattern::Any),
    ];
    (
        proptest::collection::vec(
            host.prop_map(|host| HostPattern::parse(&host).unwrap()),
            1..3,
        ),
        path,
    )
}

proptest! {
    #[test]
    fn the_arranged_table_answers_as_the_naive_one(
        rules in proptest::collection::vec(some_rule(), 0..24),
        asked in proptest::collection::vec((some_host(), some_path()), 1..24),
    ) {
        let rules: Vec<Rule> = rules
            .into_iter()
            .enumerate()
            .map(|(index, (hosts, path))| Rule { name: index.to_string().into(), hosts, path, upstream: UpstreamId(index), upgrades: Vec::new() })
            .collect();
        let router = Router::new(&rules);
        for (host, path) in asked {
            prop_assert_eq!(find(&router, &host, &path).ok(), naive(&rules, &host, &path), "{} {}", host, path);
        }
    }
}
