//! `/metrics` as a scraper sees it: every series the configuration bounds is there from the start, and says what it means.

use std::collections::{BTreeMap, BTreeSet};

use l7_proxy::observe::metrics::MEANINGS;

use crate::backend::Backend;
use crate::client::{self, Connection};
use crate::proxy::{Proxy, eventually};

/// The samples of a scrape, by series.
fn scrape(proxy: &Proxy) -> BTreeMap<String, f64> {
    let text = proxy.metrics();
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn start(app: &Backend, more: &str) -> Proxy {
    let key = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).expect("certificate");
    let folder = tempfile::tempdir().expect("folder").keep();
    std::fs::write(folder.join("a.pem"), key.cert.pem()).expect("write");
    std::fs::write(folder.join("a.key"), key.signing_key.serialize_pem()).expect("write");
    let proxy = Proxy::start(&format!(
        r#"
        [[listeners]]
        name = "web"
        address = "{{address}}:8080"
        max_connections = 100
        [[listeners]]
        name = "secure"
        address = "{{address}}:8443"
        protocol = "https"
        proxy_protocol = {{ trusted = ["10.9.9.9/32"] }}
        [[certificates]]
        certificate = "{folder}/a.pem"
        key = "{folder}/a.key"
        [upstreams.app]
        backends = [{{ address = "{}" }}]
        [upstreams.gone]
        backends = [{{ address = "{{address}}:1" }}]
        [[routes]]
        name = "app"
        path = {{ prefix = "/" }}
        hosts = ["a"]
        upstream = "app"
        [[routes]]
        name = "gone"
        hosts = ["gone"]
        upstream = "gone"
        {more}
        "#,
        app.address,
        folder = folder.display(),
    ));
    std::fs::remove_dir_all(folder).expect("remove");
    proxy
}

#[test]
fn every_metric_is_there_from_the_start_and_says_what_it_means() {
    let app = Backend::start("app");
    let proxy = start(&app, "");
    let text = proxy.metrics();
    let of = |word: &str| -> BTreeSet<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word));
        lines.filter_map(|rest| rest.split(' ').next()).collect()
    };
    let (typed, helped) = (of("# TYPE "), of("# HELP "));
    assert_eq!(typed, helped, "each has both");
    let described: BTreeSet<&str> = MEANINGS.iter().map(|(_, name, _)| *name).collect();
    let missing: Vec<_> = described.difference(&typed).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for name in [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "weir_build_info",
    ] {
        assert!(typed.contains(name), "{name}");
    }
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    proxy.await_metric(
        "weir_build_info",
        &["tier=\"l7\"", &version, "commit="],
        1.0,
    );
    proxy.await_metric("weir_l7_connections_limit", &["web"], 100.0);
}

#[test]
fn what_goes_wrong_adds_no_series_but_counts_up_from_0() {
    let app = Backend::start("app");
    let proxy = start(&app, "");
    let before = scrape(&proxy);
    for request in [
        "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: nowhere\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: gone\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = client::raw(proxy.web(), request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 "), "{request}: {answer}");
    }
    // Not TLS.
    let _ = client::raw(proxy.at(8443), b"GET / HTTP/1.1\r\n\r\n");
    eventually("all are counted", || {
        proxy.metric("weir_l7_tls_handshakes_total", &["failed"]) == 1.0
            && proxy.metric("weir_l7_requests_total", &["web"]) == 6.0
    });
    let after = scrape(&proxy);
    let series = |scrape: &BTreeMap<String, f64>| scrape.keys().cloned().collect::<BTreeSet<_>>();
    let new: Vec<_> = series(&after)
        .difference(&series(&before))
        .cloned()
        .collect();
    assert_eq!(new, Vec::<String>::new());
    for (metric, labels) in [
        (
            "weir_l7_answered_by_proxy_total",
            r#"{listener="web",reason="no_route"}"#,
        ),
        (
            "weir_l7_answered_by_proxy_total",
            r#"{listener="web",reason="connect_failed"}"#,
        ),
        (
            "weir_l7_framing_violations_total",
            r#"{listener="web",kind="repeated_length"}"#,
        ),
        ("weir_l7_responses_total", r#"{listener="web",code="404"}"#),
        ("weir_l7_responses_total", r#"{listener="web",code="502"}"#),
    ] {
        let series = format!("{metric}{labels}");
        assert_eq!(
            (before.get(&series), after.get(&series)),
            (Some(&0.0), Some(&1.0)),
            "{series}"
        );
    }
    let errors: f64 = after
        .iter()
        .filter(|(series, _)| {
            series.starts_with("weir_l7_upstream_errors_total") && series.contains("gone")
        })
        .map(|(_, value)| value)
        .sum();
    assert_eq!(errors, 1.0);
}

#[test]
fn each_backend_has_its_requests_latency_and_bytes() {
    let app = Backend::start("app");
    let proxy = start(&app, "");
    let mut connection = Connection::open(proxy.web());
    connection.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    connection.send(&"x".repeat(1000));
    assert_eq!(connection.read().map(|response| response.status), Some(200));
    let size = connection
        .get("a", "/big/5000")
        .map(|response| response.body.len());
    assert_eq!(size, Some(5000));
    assert_eq!(
        connection
            .get("a", "/slow/300")
            .map(|response| response.status),
        Some(200)
    );
    let backend = app.address.to_string();
    let value =
        |name: &str, more: &str| proxy.metric(name, &[&format!("backend=\"{backend}\""), more]);
    eventually("the requests are counted", || {
        value("weir_l7_backend_requests_total", "2xx") == 3.0
    });
    assert_eq!(value("weir_l7_backend_sent_bytes_total", ""), 1000.0);
    assert!(value("weir_l7_backend_received_bytes_total", "") >= 5000.0);
    let name = "weir_l7_backend_response_duration_seconds";
    assert_eq!(value(&format!("{name}_count"), ""), 3.0);
    let slow = value(&format!("{name}_sum"), "");
    assert!((0.3..5.0).contains(&slow), "{slow}");
    assert_eq!(value(&format!("{name}_bucket"), "le=\"0.25\""), 2.0);
}

#[test]
fn a_worker_that_works_is_seen_to() {
    let app = Backend::start("app");
    let proxy = start(&app, "");
    let busy = || proxy.metric("weir_l7_worker_time_seconds", &["busy"]);
    eventually("a first look", || {
        proxy.metric("weir_l7_worker_time_seconds", &["idle"]) > 1.0
    });
    let before = busy();
    assert!(proxy.metric("weir_l7_worker_busy_ratio", &["worker=\"0\""]) < 0.5);
    let mut connection = Connection::open(proxy.web());
    for _ in 0..500 {
        assert_eq!(
            connection.get("a", "/echo").map(|response| response.status),
            Some(200)
        );
    }
    eventually("it took time", || busy() > before + 0.02);
}
