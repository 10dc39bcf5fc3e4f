//! HTTP through the chain: hosts, paths, protocol versions, certificates, bodies, forwarded headers.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use demo::chain::Chain;
use demo::topology::{APPS, CLIENT, L4, L7};
use e2e::Curl;

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    (
        "requests_reach_the_upstream_of_their_host_and_path",
        by_host_and_path,
    ),
    ("http_1_1_and_http_2_are_spoken_over_tls", versions),
    ("tls_1_2_and_1_3_are_spoken", tls_versions),
    ("the_certificate_follows_the_server_name", certificates),
    ("an_unknown_host_is_refused_by_l7_itself", unknown_host),
    (
        "clients_are_described_and_forged_descriptions_are_not_believed",
        forwarded,
    ),
    ("hop_by_hop_headers_stay_on_their_hop", hop_by_hop),
    (
        "large_bodies_arrive_byte_for_byte_in_both_directions",
        large_bodies,
    ),
    ("every_method_and_status_passes", methods_and_statuses),
    (
        "connections_are_kept_alive_and_spread_over_every_node",
        spread,
    ),
];

fn by_host_and_path(chain: &mut Chain) -> Result<()> {
    let text = include_str!("../../../../deploy/demo/config/requests.json");
    let requests: Vec<serde_json::Value> = serde_json::from_str(text)?;
    for request in &requests {
        let field = |name: &str| request[name].as_str().unwrap_or_default();
        for scheme in ["http", "https"] {
            let mut curl = Curl::new(chain.lab());
            if request["method"].is_string() {
                curl = curl.with(&["--request", field("method"), "--data", field("body")]);
            }
            let url = format!("{scheme}://{}{}", field("host"), field("path"));
            let answer = curl.get(&url)?;
            ensure!(answer.status == 200, "{url}: status {}", answer.status);
            let seen = serde_json::to_value(answer.seen()?)?;
            for (name, value) in request["expect"].as_object().context("expect")? {
                ensure!(
                    &seen[name] == value,
                    "{url}: {name} is {}, expected {value}",
                    seen[name]
                );
            }
        }
    }
    Ok(())
}

fn versions(chain: &mut Chain) -> Result<()> {
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = Curl::new(chain.lab())
            .with(&[option])
            .get("https://api.weir.test/v1/x")?;
        ensure!(
            (answer.status, answer.version.as_str()) == (200, version),
            "{option}: {answer:?}"
        );
        ensure!(
            answer.seen()?.host == "api.weir.test",
            "{option}: the application saw another host"
        );
    }
    Ok(())
}

fn tls_versions(chain: &mut Chain) -> Result<()> {
    for version in ["1.2", "1.3"] {
        let range = [
            format!("--tlsv{version}"),
            "--tls-max".into(),
            version.to_owned(),
        ];
        let range: Vec<&str> = range.iter().map(String::as_str).collect();
        let answer = Curl::new(chain.lab())
            .with(&range)
            .get("https://shop.weir.test/")?;
        ensure!(answer.status == 200, "TLS {version}: {answer:?}");
    }
    let old = Curl::new(chain.lab())
        .with(&["--tlsv1.0", "--tls-max", "1.1"])
        .get("https://shop.weir.test/");
    ensure!(old.is_err(), "TLS 1.1 was spoken");
    Ok(())
}

fn certificates(chain: &mut Chain) -> Result<()> {
    // curl verifies the name against the certificate, so each success means the right one came.
    for host in [
        "shop.weir.test",
        "api.weir.test",
        "a.static.weir.test",
        "b.static.weir.test",
    ] {
        let path = if host.starts_with("api") {
            "/v1/x"
        } else {
            "/x"
        };
        let answer = Curl::new(chain.lab()).get(&format!("https://{host}{path}"))?;
        ensure!(answer.status == 200, "{host}: {answer:?}");
    }
    for host in [
        "other.weir.test",
        "a.b.static.weir.test",
        "static.weir.test",
    ] {
        let answer = Curl::new(chain.lab()).get(&format!("https://{host}/"));
        ensure!(
            answer.is_err(),
            "{host} has no certificate and was answered: {answer:?}"
        );
    }
    Ok(())
}

fn unknown_host(chain: &mut Chain) -> Result<()> {
    let answer = Curl::new(chain.lab()).get("http://nobody.weir.test/")?;
    ensure!(answer.status == 404, "status {}", answer.status);
    ensure!(
        answer.seen().is_err(),
        "an application answered: {answer:?}"
    );
    let answer = Curl::new(chain.lab()).get("http://api.weir.test/not/routed")?;
    ensure!(
        answer.status == 404,
        "status {} for a path nobody serves",
        answer.status
    );
    Ok(())
}

fn forwarded(chain: &mut Chain) -> Result<()> {
    let forged = [
        "X-Forwarded-For: 192.0.2.66",
        "X-Real-IP: 192.0.2.66",
        "X-Forwarded-Proto: gopher",
        "X-Forwarded-Host: evil",
    ];
    for scheme in ["http", "https"] {
        let mut curl = Curl::new(chain.lab());
        for header in forged {
            curl = curl.with(&["--header", header]);
        }
        let seen = curl.get(&format!("{scheme}://shop.weir.test/"))?.seen()?;
        let header = |name: &str| {
            seen.headers
                .get(name)
                .map(String::as_str)
                .unwrap_or_default()
        };
        ensure!(
            header("x-forwarded-proto") == scheme,
            "X-Forwarded-Proto: {}",
            header("x-forwarded-proto")
        );
        ensure!(
            header("x-forwarded-host") == "shop.weir.test",
            "X-Forwarded-Host: {}",
            header("x-forwarded-host")
        );
        // FULLNAT hides the client; L4 tells L7 who it is.
        for name in ["x-real-ip", "x-forwarded-for"] {
            ensure!(
                header(name) == CLIENT.to_string(),
                "{name}: {}",
                header(name)
            );
        }
        ensure!(seen.host == "shop.weir.test", "Host: {}", seen.host);
        ensure!(
            !seen
                .headers
                .values()
                .any(|value| value.contains("192.0.2.66")),
            "{:?}",
            seen.headers
        );
    }
    Ok(())
}

fn hop_by_hop(chain: &mut Chain) -> Result<()> {
    let headers = [
        "Connection: X-Private, keep-alive",
        "X-Private: 1",
        "TE: gzip",
        "Proxy-Connection: keep-alive",
        "X-Public: 2",
    ];
    let mut curl = Curl::new(chain.lab());
    for header in headers {
        curl = curl.with(&["--header", header]);
    }
    let seen = curl.get("http://shop.weir.test/")?.seen()?;
    for name in ["x-private", "te", "proxy-connection"] {
        ensure!(
            !seen.headers.contains_key(name),
            "{name} was passed on: {:?}",
            seen.headers
        );
    }
    ensure!(
        seen.headers.get("x-public").map(String::as_str) == Some("2"),
        "{:?}",
        seen.headers
    );
    Ok(())
}

fn large_bodies(chain: &mut Chain) -> Result<()> {
    const DOWN: usize = 24 << 20;
    const UP: usize = 6 << 20;
    for scheme in ["http", "https"] {
        let answer =
            Curl::new(chain.lab()).get(&format!("{scheme}://shop.weir.test/bytes?n={DOWN}"))?;
        ensure!(
            answer.body.len() == DOWN,
            "{scheme}: {} of {DOWN} bytes",
            answer.body.len()
        );
        let wrong = answer
            .body
            .iter()
            .enumerate()
            .position(|(i, byte)| usize::from(*byte) != i % 251);
        ensure!(wrong.is_none(), "{scheme}: byte {wrong:?} differs");
    }
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&vec![b'x'; UP])?;
    for version in ["--http1.1", "--http2"] {
        let data = format!("@{}", file.path().display());
        let seen = Curl::new(chain.lab())
            .with(&[version, "--data-binary", &data])
            .get("https://api.weir.test/v1/up")?
            .seen()?;
        ensure!(
            seen.body_bytes == UP,
            "{version}: the application got {} of {UP} bytes",
            seen.body_bytes
        );
    }
    Ok(())
}

fn methods_and_statuses(chain: &mut Chain) -> Result<()> {
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = Curl::new(chain.lab())
            .with(&["--request", method])
            .get("http://shop.weir.test/m")?;
        ensure!(
            answer.seen()?.method == method,
            "{method} arrived as another"
        );
    }
    let head = Curl::new(chain.lab())
        .with(&["--head"])
        .get("http://shop.weir.test/")?;
    ensure!(head.status == 200 && head.body.is_empty(), "HEAD: {head:?}");
    for status in [201, 301, 404, 418, 500, 503] {
        let answer =
            Curl::new(chain.lab()).get(&format!("http://shop.weir.test/status?code={status}"))?;
        ensure!(
            answer.status == status,
            "{status} arrived as {}",
            answer.status
        );
        ensure!(
            answer.seen()?.path == "/status",
            "the body of a {status} got lost"
        );
    }
    Ok(())
}

fn spread(chain: &mut Chain) -> Result<()> {
    // Several transfers of one curl call use one connection.
    let output = Curl::new(chain.lab())
        .with(&[
            "--write-out",
            "connects %{num_connects}\\n",
            "--output",
            "/dev/null",
            "http://shop.weir.test/a",
        ])
        .with(&[
            "--output",
            "/dev/null",
            "http://shop.weir.test/b",
            "--output",
            "/dev/null",
        ])
        .command("http://shop.weir.test/c")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let connects: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("connects "))
        .collect();
    ensure!(
        connects == ["1", "0", "0"],
        "connections opened per request: {connects:?}"
    );

    let created = |chain: &Chain| -> Result<Vec<u64>> {
        L4.iter().map(|node| chain.flows_created(node)).collect()
    };
    let before = created(chain)?;
    let mut served = BTreeSet::new();
    for _ in 0..60 {
        let seen = Curl::new(chain.lab())
            .get("http://shop.weir.test/")?
            .seen()?;
        let peer = match seen.peer.ip() {
            std::net::IpAddr::V4(peer) => demo::topology::node_at(peer).unwrap_or("?"),
            std::net::IpAddr::V6(_) => "?",
        };
        served.extend([seen.app, peer.to_owned()]);
    }
    let all: BTreeSet<String> = L7.into_iter().chain(APPS).map(String::from).collect();
    ensure!(served == all, "served by {served:?}");
    let after = created(chain)?;
    ensure!(
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after > before),
        "flows created by {L4:?}: {before:?}, 60 connections later {after:?}"
    );
    Ok(())
}
