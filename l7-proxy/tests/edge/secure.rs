//! TLS: certificates by name, versions, protocols, and what is not TLS at all.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::backend::Backend;
use crate::client;
use crate::proxy::Proxy;

struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new(named: &[(&str, &[&str])]) -> Certificates {
        let folder = tempfile::tempdir().expect("folder");
        for (file, names) in named {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).expect("certificate");
            std::fs::write(folder.path().join(format!("{file}.pem")), made.cert.pem())
                .expect("write");
            std::fs::write(
                folder.path().join(format!("{file}.key")),
                made.signing_key.serialize_pem(),
            )
            .expect("write");
        }
        Certificates { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn start(certificates: &Certificates, tables: &str, app: &Backend) -> Proxy {
    Proxy::start(&start_text(certificates, tables, app))
}

/// `tables` begins with what else is said of the TLS listener.
fn start_text(certificates: &Certificates, tables: &str, app: &Backend) -> String {
    format!(
        r#"
        [[listeners]]
        name = "plain"
        address = "{{address}}:8080"
        [[listeners]]
        name = "secure"
        address = "{{address}}:8443"
        protocol = "https"
        header_timeout = "1s"
        {}
        [upstreams.app]
        backends = [{{ address = "{}" }}]
        [[routes]]
        name = "all"
        hosts = ["*"]
        upstream = "app"
        "#,
        tables.replace("{certificates}", &certificates.path().display().to_string()),
        app.address
    )
}

const TWO: &str = r#"
    [[certificates]]
    certificate = "{certificates}/one.pem"
    key = "{certificates}/one.key"
    [[certificates]]
    certificate = "{certificates}/wild.pem"
    key = "{certificates}/wild.key"
"#;

fn two() -> (Proxy, Backend, Certificates) {
    let certificates = Certificates::new(&[("one", &["one.test"]), ("wild", &["*.wild.test"])]);
    let app = Backend::start("app");
    let proxy = start(&certificates, TWO, &app);
    (proxy, app, certificates)
}

/// curl to `https://name/echo`, trusting only that certificate.
fn fetch(
    proxy: &Proxy,
    certificates: &Certificates,
    name: &str,
    file: &str,
    more: &[&str],
) -> (i32, String) {
    let address = proxy.at(8443);
    let resolve = format!("{name}:8443:{}", address.ip());
    let ca = certificates.path().join(format!("{file}.pem"));
    let url = format!("https://{name}:8443/echo");
    let mut arguments = vec![
        "--resolve",
        &resolve,
        "--cacert",
        ca.to_str().expect("path"),
        "--write-out",
        "\n%{http_code} %{http_version}",
        &url,
    ];
    arguments.extend(more);
    client::curl(&arguments)
}

#[test]
fn each_name_gets_its_certificate_over_both_protocols() {
    let (proxy, _app, certificates) = two();
    for (name, file) in [("one.test", "one"), ("a.wild.test", "wild")] {
        for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
            let (code, text) = fetch(&proxy, &certificates, name, file, &[flag]);
            assert_eq!(code, 0, "{name} {flag}: {text}");
            assert!(
                text.ends_with(&format!("\n200 {version}")),
                "{name} {flag}: {text}"
            );
            assert!(
                text.contains("x-forwarded-proto: https")
                    && text.contains(&format!("host: {name}:8443\r\n")),
                "{text}"
            );
        }
    }
    let entry = proxy.logged(|entry| entry["scheme"] == "https" && entry["version"] == "HTTP/2.0");
    assert_eq!(entry["status"], 200);
    assert!(proxy.metric("weir_l7_tls_handshakes_total", &["full"]) >= 4.0);
}

#[test]
fn an_unknown_name_without_a_default_certificate_gets_an_alert() {
    let (proxy, _app, certificates) = two();
    let (code, text) = fetch(&proxy, &certificates, "other.test", "one", &[]);
    assert_eq!(code, 35, "{text}");
    assert!(proxy.metric("weir_l7_tls_handshakes_total", &["failed"]) >= 1.0);
}

#[test]
fn an_alert_says_that_the_name_is_what_is_wrong() {
    let (proxy, _app, _certificates) = two();
    for version in ["-tls1_2", "-tls1_3"] {
        for name in [&["-servername", "other.test"][..], &["-noservername"]] {
            let text = s_client(&proxy, &[&[version], name].concat());
            assert!(
                text.contains("SSL alert number 112"),
                "{version} {name:?}: {text}"
            );
        }
    }
    let said = proxy.said();
    for why in [
        "no certificate for \"other.test\", and no default",
        "the client names no server, and there is no default certificate",
    ] {
        assert!(said.contains(why), "{said}");
    }
    assert!(proxy.metric("weir_l7_tls_handshakes_total", &["failed"]) >= 4.0);
}

#[test]
fn the_default_certificate_serves_unknown_names() {
    let certificates = Certificates::new(&[("one", &["one.test"])]);
    let app = Backend::start("app");
    let table = "[[certificates]]\ncertificate = \"{certificates}/one.pem\"\nkey = \"{certificates}/one.key\"\ndefault = true\n";
    let proxy = start(&certificates, table, &app);
    let (code, text) = fetch(&proxy, &certificates, "other.test", "one", &["--insecure"]);
    assert!(code == 0 && text.contains("\n200 "), "{text}");
}

fn s_client(proxy: &Proxy, arguments: &[&str]) -> String {
    let child = Command::new("openssl")
        .args(["s_client", "-connect", &proxy.at(8443).to_string()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("openssl is installed");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"GET /echo HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n")
        .expect("write");
    let done = child.wait_with_output().expect("output");
    format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    )
}

#[test]
fn versions_1_2_and_1_3_are_spoken_and_older_ones_are_not() {
    let (proxy, _app, _certificates) = two();
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let text = s_client(&proxy, &[flag, "-servername", "one.test", "-ign_eof"]);
        assert!(
            text.contains(version) && text.contains("HTTP/1.1 200 OK"),
            "{flag}: {text}"
        );
    }
    let text = s_client(
        &proxy,
        &[
            "-tls1_1",
            "-cipher",
            "ALL:@SECLEVEL=0",
            "-servername",
            "one.test",
        ],
    );
    assert!(!text.contains("HTTP/1.1 200"), "{text}");
}

#[test]
fn a_session_is_resumed_by_its_ticket_on_whichever_worker() {
    let (proxy, _app, certificates) = two();
    let session = certificates.path().join("session");
    let session = session.to_str().expect("path");
    let first = s_client(
        &proxy,
        &[
            "-tls1_2",
            "-servername",
            "one.test",
            "-sess_out",
            session,
            "-ign_eof",
        ],
    );
    assert!(first.contains("New, "), "{first}");
    for _ in 0..8 {
        let again = s_client(
            &proxy,
            &[
                "-tls1_2",
                "-servername",
                "one.test",
                "-sess_in",
                session,
                "-ign_eof",
            ],
        );
        assert!(
            again.contains("Reused, ") && again.contains("HTTP/1.1 200 OK"),
            "{again}"
        );
    }
    assert!(proxy.metric("weir_l7_tls_handshakes_total", &["resumed"]) >= 8.0);
}

#[test]
fn a_session_goes_on_after_a_rest() {
    let (proxy, _app, _certificates) = two();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-servername", "one.test", version])
            .args(["-connect", &proxy.at(8443).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut input = child.stdin.take().expect("stdin");
        for last in ["", "", "Connection: close\r\n"] {
            let request = format!("GET /name HTTP/1.1\r\nHost: one.test\r\n{last}\r\n");
            input.write_all(request.as_bytes()).expect("write");
            // Longer than a connection needs to come to rest.
            std::thread::sleep(Duration::from_millis(2_500));
        }
        let done = child.wait_with_output().expect("output");
        let text = String::from_utf8_lossy(&done.stdout);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
    }
    let connections = proxy.metric("weir_l7_connections_total", &["secure"]);
    assert_eq!(connections, 2.0);
}

#[test]
fn over_the_limit_a_client_gets_an_alert_and_no_handshake() {
    let certificates = Certificates::new(&[("one", &["one.test"])]);
    let app = Backend::start("app");
    let table = "max_connections = 1\n[[certificates]]\ncertificate = \"{certificates}/one.pem\"\nkey = \"{certificates}/one.key\"\n";
    let config = start_text(&certificates, table, &app);
    let proxy = Proxy::start(&config);
    let _kept = client::connect(proxy.at(8443));
    crate::proxy::eventually("it is open", || {
        proxy.metric("weir_l7_connections{", &["secure"]) == 1.0
    });
    let text = s_client(&proxy, &["-servername", "one.test"]);
    assert!(text.contains("alert internal error"), "{text}");
    proxy.await_metric("weir_l7_tls_handshakes_total", &[], 0.0);
    let entry = proxy.logged(|entry| entry["reason"] == "connection_limit");
    assert_eq!(entry["listener"], "secure");
}

#[test]
fn hostile_hellos_cost_only_their_own_connection() {
    let (mut proxy, _app, certificates) = two();
    let hello = b"\x16\x03\x01\xff\xff\x01\x00\xff\xfb\x03\x03";
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        hello,
        &[0xff; 4096],
        b"\x15\x03\x01\x00\x02\x02\x28",
    ];
    for bytes in cases {
        let mut stream = client::connect(proxy.at(8443));
        stream.write_all(bytes).expect("write");
        let mut answer = Vec::new();
        // An alert or a closed connection, within the handshake's time.
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer[0] == 0x15,
            "{bytes:?}: {answer:?}"
        );
    }
    // And one that says nothing.
    let mut silent = client::connect(proxy.at(8443));
    let mut nothing = Vec::new();
    let _ = silent.read_to_end(&mut nothing);
    assert!(nothing.is_empty());
    assert!(proxy.alive());
    drop(client::connect(proxy.at(8443)));
    crate::proxy::eventually("a client that left is counted as such", || {
        proxy.metric("weir_l7_tls_handshakes_total", &["abandoned"]) >= 1.0
    });
    assert!(proxy.metric("weir_l7_tls_handshakes_total", &["timeout"]) >= 1.0);
    assert!(proxy.metric("weir_l7_tls_handshakes_total", &["failed"]) >= 3.0);
    let (code, text) = fetch(&proxy, &certificates, "one.test", "one", &[]);
    assert!(code == 0 && text.contains("\n200 2"), "{text}");
}

#[test]
fn http2_carries_many_streams_at_once_and_whole_bodies() {
    let (proxy, _app, certificates) = two();
    let done = Command::new("h2load")
        .args([
            "--requests=2000",
            "--clients=4",
            "--max-concurrent-streams=16",
        ])
        .arg(format!("--connect-to={}", proxy.at(8443)))
        .arg("https://one.test/echo")
        .output()
        .expect("h2load is installed");
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        text.contains("2000 succeeded, 0 failed, 0 errored"),
        "{text}"
    );
    let url_path = "/big/5000000";
    let (code, text) = fetch(
        &proxy,
        &certificates,
        "one.test",
        "one",
        &[
            "--url",
            &format!("https://one.test:8443{url_path}"),
            "--output",
            "/dev/null",
            "--output",
            "/dev/null",
            "--write-out",
            "%{size_download}",
        ],
    );
    assert!(code == 0 && text.contains("5000000"), "{text}");
}

#[test]
fn a_broken_certificate_is_reported_by_check() {
    let certificates = Certificates::new(&[("one", &["one.test"]), ("other", &["other.test"])]);
    let path = certificates.path().display();
    let config = format!(
        "[node]\nid = \"l7-1\"\n[[listeners]]\nname = \"secure\"\naddress = \"127.0.0.1:443\"\nprotocol = \"https\"\n\
         [[certificates]]\ncertificate = \"{path}/one.pem\"\nkey = \"{path}/other.key\"\n\
         [[certificates]]\ncertificate = \"{path}/missing.pem\"\nkey = \"{path}/one.key\"\n\
         [upstreams.app]\nbackends = [{{ address = \"127.0.0.1:1\" }}]\n[[routes]]\nname = \"all\"\nhosts = [\"*\"]\nupstream = \"app\"\n"
    );
    let file = certificates.path().join("l7.toml");
    std::fs::write(&file, config).expect("write");
    let done = Command::new(env!("CARGO_BIN_EXE_l7-proxy"))
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .expect("check");
    let text = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{text}");
    assert!(
        text.contains("other.key") && text.contains("missing.pem"),
        "{text}"
    );
}
