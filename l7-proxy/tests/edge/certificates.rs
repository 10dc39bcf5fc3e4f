//! What is wrong with certificates and keys, and what people hear of it: in `check`, at the start, in the log, in `/status` and metrics.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::proxy::{Proxy, eventually};

/// A folder of files.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().expect("folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("write");
    }

    /// `name.pem` and `name.key`, signed by itself, valid in these years.
    fn make(&self, name: &str, names: &[&str], years: (i32, i32)) {
        let key = KeyPair::generate().expect("key");
        let certificate = params(name, names, years)
            .self_signed(&key)
            .expect("signed");
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
    }
}

fn params(name: &str, names: &[&str], (from, to): (i32, i32)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// A configuration with such a table for each certificate; the keys of the first are in lines 6 and 7.
fn configuration(tables: &[&str]) -> String {
    let certificates: String = tables
        .iter()
        .map(|table| format!("[[certificates]]\n{table}\n"))
        .collect();
    format!(
        "node.id = \"l7-1\"\nlisteners = [{{ name = \"secure\", address = \"127.0.0.1:443\", protocol = \"https\" }}]\n\
         routes = [{{ upstream = \"app\" }}]\nupstreams.app.backends = [{{ address = \"127.0.0.1:1\" }}]\n{certificates}"
    )
}

fn check(folder: &Path, config: &str) -> Output {
    std::fs::write(folder.join("l7.toml"), config).expect("write");
    Command::new(env!("CARGO_BIN_EXE_l7-proxy"))
        .args(["check", "--config", "l7.toml"])
        .current_dir(folder)
        .output()
        .expect("check")
}

/// What `check` says of one certificate, and whether it lets it pass.
fn said(files: &Files, table: &str) -> (bool, String) {
    let done = check(files.0.path(), &configuration(&[table]));
    let text = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    (done.status.success(), text)
}

#[test]
fn what_makes_a_certificate_or_key_unusable_is_a_mistake_with_its_line() {
    let files = Files::new();
    files.make("good", &["a.test"], (2026, 2999));
    files.make("other", &["b.test"], (2026, 2999));
    files.make("nameless", &[], (2026, 2999));
    files.write("empty.pem", "");
    files.openssl(&[
        "pkey",
        "-in",
        "good.key",
        "-aes128",
        "-passout",
        "pass:secret",
        "-out",
        "locked.key",
    ]);
    files.openssl(&[
        "ec",
        "-in",
        "good.key",
        "-aes128",
        "-passout",
        "pass:secret",
        "-out",
        "old.key",
    ]);
    files.openssl(&[
        "pkey", "-in", "good.key", "-outform", "der", "-out", "der.key",
    ]);
    files.openssl(&[
        "x509", "-in", "good.pem", "-outform", "der", "-out", "der.pem",
    ]);
    files.openssl(&["genpkey", "-algorithm", "ed448", "-out", "ed448.key"]);
    files.openssl(&["genrsa", "-out", "weak.key", "1024"]);
    files.openssl(&[
        "req",
        "-x509",
        "-key",
        "weak.key",
        "-subj",
        "/CN=a.test",
        "-out",
        "weak.pem",
    ]);
    files.openssl(&[
        "req",
        "-new",
        "-key",
        "good.key",
        "-subj",
        "/CN=a.test",
        "-out",
        "csr",
    ]);
    files.openssl(&[
        "x509", "-req", "-in", "csr", "-signkey", "good.key", "-out", "v1.pem",
    ]);
    let authority = CertifiedIssuer::self_signed(
        {
            let mut params = params("root", &[], (2026, 2999));
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        },
        KeyPair::generate().expect("key"),
    )
    .expect("signed");
    let key = KeyPair::generate().expect("key");
    let leaf = params("leaf", &["a.test"], (2026, 2999))
        .signed_by(&key, &authority)
        .expect("signed");
    files.write("turned.pem", &format!("{}{}", authority.pem(), leaf.pem()));
    files.write("turned.key", &key.serialize_pem());

    let at_certificate = "l7.toml:6: certificates[0].certificate: ";
    let at_key = "l7.toml:7: certificates[0].key: ";
    for (certificate, key, place, message) in [
        (
            "missing.pem",
            "good.key",
            at_certificate,
            "missing.pem: can't be read: No such file or directory (os error 2)",
        ),
        (
            "good.pem",
            "missing.key",
            at_key,
            "missing.key: can't be read: No such file or directory (os error 2)",
        ),
        (
            ".",
            "good.key",
            at_certificate,
            ".: can't be read: it is a directory, not a regular file",
        ),
        (
            "empty.pem",
            "good.key",
            at_certificate,
            "empty.pem: no certificate in it — expected a PEM chain, the leaf first",
        ),
        (
            "good.key",
            "good.pem",
            at_certificate,
            "good.key: a private key and no certificate in it — are `certificate` and `key` swapped?",
        ),
        (
            "good.pem",
            "good.pem",
            at_key,
            "good.pem: a certificate and no private key in it — are `certificate` and `key` swapped?",
        ),
        (
            "der.pem",
            "good.key",
            at_certificate,
            "der.pem: is DER, not PEM — convert it: openssl x509 -inform der -in FILE -out FILE.pem",
        ),
        (
            "good.pem",
            "der.key",
            at_key,
            "der.key: is DER, not PEM — convert it: openssl pkey -inform der -in der.key -out der.key.pem",
        ),
        (
            "good.pem",
            "locked.key",
            at_key,
            "locked.key: the key is encrypted — decrypt it with openssl pkey -in locked.key -out locked.key.plain, readable by the proxy alone",
        ),
        (
            "good.pem",
            "old.key",
            at_key,
            "old.key: the key is encrypted — decrypt it with openssl pkey -in old.key -out old.key.plain, readable by the proxy alone",
        ),
        (
            "good.pem",
            "other.key",
            at_key,
            "other.key: is not the key of the certificate (CN=good) — name the key the certificate was issued for",
        ),
        (
            "good.pem",
            "ed448.key",
            at_key,
            "ed448.key: a private key of a kind that is not supported, or broken — expected RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, or Ed25519",
        ),
        (
            "turned.pem",
            "turned.key",
            at_key,
            "turned.key: is the key of certificate 2 of the chain (CN=leaf), not of the first — put the key's certificate first in the chain",
        ),
        (
            "weak.pem",
            "weak.key",
            at_certificate,
            "weak.pem: certificate 1 of it (CN=a.test) has an RSA key of 1024 bits — clients refuse less than 2048 bits: have it issued for a new key, best of all ECDSA P-256",
        ),
        (
            "v1.pem",
            "good.key",
            at_certificate,
            "v1.pem: certificate 1 of it (CN=a.test) is X.509 version 1 — clients need subjectAltName, which only version 3 has: have it issued as such",
        ),
        (
            "nameless.pem",
            "nameless.key",
            "l7.toml:5: certificates[0].names: ",
            "nameless.pem: the certificate names no server (no DNS names in subjectAltName) — write `names = [...]` or `default = true`",
        ),
    ] {
        let table = format!("certificate = {certificate:?}\nkey = {key:?}");
        assert_eq!(
            said(&files, &table),
            (false, format!("{place}{message}")),
            "{table}"
        );
    }

    // All at once, and the process does not start either.
    let config = configuration(&[
        "certificate = \"good.pem\"\nkey = \"other.key\"",
        "certificate = \"empty.pem\"\nkey = \"missing.key\"",
    ]);
    let done = check(files.0.path(), &config);
    assert_eq!(String::from_utf8_lossy(&done.stderr).lines().count(), 3);
    let started = Command::new(env!("CARGO_BIN_EXE_l7-proxy"))
        .args(["run", "--config", "l7.toml"])
        .current_dir(files.0.path())
        .output()
        .expect("run");
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(
        said.contains(&format!("{at_key}other.key: is not the key")),
        "{said}"
    );
}

#[test]
fn what_clients_will_refuse_is_a_warning_with_its_line() {
    let files = Files::new();
    files.make("old", &["a.test"], (2020, 2021));
    files.make("new", &["a.test"], (2998, 2999));
    files.make("good", &["a.test", "*.b.test"], (2026, 2999));
    let place = "warning: l7.toml:6: certificates[0].certificate: ";
    for (name, names, message) in [
        (
            "old",
            "",
            "old.pem: the certificate (CN=old) expired on 2021-01-01 — clients refuse it: renew it",
        ),
        (
            "new",
            "",
            "new.pem: the certificate (CN=new) is not valid before 2998-01-01 — clients refuse it until then; is the clock right?",
        ),
        (
            "good",
            "\nnames = [\"a.test\", \"x.b.test\", \"c.test\"]",
            "good.pem: \"c.test\" of `names` is not in the certificate, which is for a.test, *.b.test — clients that ask for it refuse the connection",
        ),
    ] {
        let table = format!("certificate = \"{name}.pem\"\nkey = \"{name}.key\"{names}");
        assert_eq!(said(&files, &table), (true, format!("{place}{message}")));
    }
    let table = "certificate = \"good.pem\"\nkey = \"good.key\"";
    assert_eq!(said(&files, table), (true, String::new()));
}

fn start(files: &Files, tables: &str, app: &Backend) -> Proxy {
    Proxy::start(&format!(
        "[[listeners]]\nname = \"secure\"\naddress = \"{{address}}:8443\"\nprotocol = \"https\"\n{}\n\
         [upstreams.app]\nbackends = [{{ address = \"{}\" }}]\n[[routes]]\nupstream = \"app\"\n",
        tables.replace("{files}", &files.0.path().display().to_string()),
        app.address
    ))
}

#[test]
fn an_expired_certificate_does_not_keep_a_node_from_starting_but_is_seen_everywhere() {
    let files = Files::new();
    files.make("old", &["a.test"], (2020, 2021));
    files.make("good", &["b.test"], (2026, 2999));
    let app = Backend::start("app");
    let proxy = start(
        &files,
        "[[certificates]]\ncertificate = \"{files}/old.pem\"\nkey = \"{files}/old.key\"\n\
         [[certificates]]\ncertificate = \"{files}/good.pem\"\nkey = \"{files}/good.key\"\n",
        &app,
    );
    eventually("the log says so", || {
        proxy.said().contains("expired on 2021-01-01")
    });
    let said = proxy.said();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(
        warnings.len(),
        1,
        "once, and nothing of the good one: {said}"
    );
    assert!(
        warnings[0].contains("l7.toml:") && warnings[0].contains("certificates[0].certificate")
    );

    let status = proxy.status();
    let [old, good] = [0, 1].map(|index| status["certificates"][index].clone());
    assert_eq!(old["subject"], "CN=old");
    assert_eq!(old["names"], serde_json::json!(["a.test"]));
    assert_eq!(old["not_after"], 1_609_459_200);
    assert_eq!(old["expires"], "2021-01-01");
    assert_eq!(old["key"], "ECDSA P-256");
    assert_eq!(old["fingerprint"].as_str().map(str::len), Some(64));
    assert!(
        old["warnings"][0]
            .as_str()
            .is_some_and(|text| text.contains("expired"))
    );
    assert_eq!(good["warnings"], serde_json::json!([]));
    let expiry = |file: &str| {
        let label = format!("certificate=\"{}\"", files.path(file).display());
        proxy.metric("weir_l7_certificate_expiry_timestamp_seconds", &[&label])
    };
    assert_eq!(expiry("old.pem"), 1_609_459_200.0);
    assert!(expiry("good.pem") > 32e9);
}

#[test]
fn a_client_that_knows_both_gets_ecdsa_though_rsa_is_named_first() {
    let files = Files::new();
    files.make("ecdsa", &["a.test"], (2026, 2999));
    files.openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "rsa.key",
        "-out",
        "rsa.pem",
        "-subj",
        "/CN=rsa",
        "-addext",
        "subjectAltName = DNS:a.test",
    ]);
    let app = Backend::start("app");
    let proxy = start(
        &files,
        "[[certificates]]\ncertificate = \"{files}/rsa.pem\"\nkey = \"{files}/rsa.key\"\n\
         [[certificates]]\ncertificate = \"{files}/ecdsa.pem\"\nkey = \"{files}/ecdsa.key\"\n",
        &app,
    );
    let served = |more: &[&str]| {
        let done = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &proxy.at(8443).to_string(),
                "-servername",
                "a.test",
            ])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .expect("openssl is installed");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("subject="));
        line.unwrap_or_default().to_owned()
    };
    for (more, subject) in [
        (&["-tls1_3"][..], "subject=CN = ecdsa"),
        (&["-tls1_2"], "subject=CN = ecdsa"),
        (
            &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"],
            "subject=CN = rsa",
        ),
        // It can verify ECDSA, but has no cipher suite with it.
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "subject=CN = rsa",
        ),
    ] {
        assert_eq!(served(more), subject, "{more:?}");
    }
}
