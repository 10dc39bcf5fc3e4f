//! Chains as they come from authorities, from people who put them together by hand, and from openssl.

#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use shared::certificate::{Chain, KeyKind, Unusable};

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// A leaf, its intermediate, the root, as PEM.
fn three() -> [String; 3] {
    let root = CertifiedIssuer::self_signed(authority("root"), key()).unwrap();
    let middle = CertifiedIssuer::signed_by(authority("middle"), key(), &root).unwrap();
    let leaf = params("leaf", &["www.example.com", "*.shop.example.com"])
        .signed_by(&key(), &middle)
        .unwrap();
    [leaf.pem(), middle.pem(), root.pem()]
}

/// Days since 1 January 2026.
fn day(days: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600 + days * 86_400)
}

fn doubts(pem: &str, names: &[&str], now: SystemTime) -> Vec<String> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let chain = Chain::from_pem(pem.as_bytes()).unwrap();
    chain
        .doubts(&names, now)
        .into_iter()
        .map(|doubt| doubt.message)
        .collect()
}

fn openssl(arguments: &[&str]) -> Vec<u8> {
    let done = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl is installed");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    done.stdout
}

#[test]
fn a_good_chain_is_described_and_beyond_doubt() {
    let [leaf, middle, root] = three();
    for pem in [
        format!("{leaf}{middle}"),
        format!("{leaf}{middle}{root}"),
        leaf.clone(),
    ] {
        assert_eq!(
            doubts(
                &pem,
                &[
                    "www.example.com",
                    "*.shop.example.com",
                    "a.shop.example.com"
                ],
                day(100)
            ),
            Vec::<String>::new()
        );
    }
    let chain = Chain::from_pem(format!("{leaf}{middle}").as_bytes()).unwrap();
    let described = chain.leaf();
    assert_eq!(
        (&*described.subject, &*described.issuer, described.key),
        ("CN=leaf", "CN=middle", KeyKind::EcdsaP256)
    );
    assert_eq!(described.names, ["www.example.com", "*.shop.example.com"]);
    assert_eq!(
        (described.not_before, described.not_after),
        (1_767_225_600, 1_767_225_600 + 365 * 86_400)
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leaf.pem");
    std::fs::write(&file, &leaf).unwrap();
    let printed = openssl(&[
        "x509",
        "-in",
        file.to_str().unwrap(),
        "-noout",
        "-fingerprint",
        "-sha256",
    ]);
    let printed = String::from_utf8(printed).unwrap();
    let fingerprint = printed.trim().split('=').next_back().unwrap();
    assert_eq!(
        described.fingerprint,
        fingerprint.replace(':', "").to_lowercase()
    );
    assert_eq!(
        described.to_string(),
        format!(
            "www.example.com, *.shop.example.com (ECDSA P-256, issued by CN=middle, expires 2027-01-01, sha256 {}...)",
            &described.fingerprint[..16]
        )
    );
    assert_eq!(chain.descriptions()[1].subject, "CN=middle");
}

#[test]
fn times_are_told_before_they_hurt() {
    let [leaf, ..] = three();
    for (now, said) in [
        (
            day(0) - Duration::from_secs(1),
            Some("the certificate (CN=leaf) is not valid before 2026-01-01"),
        ),
        (day(0), None),
        (day(350), None),
        (
            day(355),
            Some("the certificate (CN=leaf) expires on 2027-01-01, in 10 days"),
        ),
        (
            day(364),
            Some("the certificate (CN=leaf) expires on 2027-01-01, in 1 day"),
        ),
        (
            day(365) - Duration::from_secs(7200),
            Some("the certificate (CN=leaf) expires on 2027-01-01, in 2 h"),
        ),
        (
            day(366),
            Some("the certificate (CN=leaf) expired on 2027-01-01"),
        ),
    ] {
        let expected: Vec<String> = said.map(str::to_owned).into_iter().collect();
        assert_eq!(doubts(&leaf, &[], now), expected);
    }
    // Certificates for six days are renewed with two or three to go: half a life's notice would be given all their lives.
    let mut short = params("short", &["a.test"]);
    short.not_after = date_time_ymd(2026, 1, 7);
    let short = short.self_signed(&key()).unwrap().pem();
    assert_eq!(doubts(&short, &[], day(4)), Vec::<String>::new());
    assert_eq!(doubts(&short, &[], day(5)).len(), 1);
}

#[test]
fn chains_that_do_not_lead_to_each_other_are_told_apart() {
    let [leaf, middle, root] = three();
    let [_, other, _] = three();
    let now = day(100);
    assert_eq!(
        doubts(&format!("{leaf}{root}{middle}"), &[], now)[0],
        "wrong order: the certificate (CN=leaf) was issued by certificate 3 (CN=middle), not by certificate 2 (CN=root)"
    );
    // The same name, another key: only the signature tells.
    assert_eq!(
        doubts(&format!("{leaf}{other}"), &[], now),
        ["broken chain: certificate 2 (CN=middle) did not issue the certificate (CN=leaf)"]
    );
    assert_eq!(
        doubts(&format!("{leaf}{middle}{root}{other}"), &[], now),
        ["certificate 3 (CN=root) is a root, and certificate 4 (CN=middle) follows it"]
    );
    // An authority that says where its certificate is to be had is not a root of one's own.
    let issuer = CertifiedIssuer::self_signed(authority("R3"), key()).unwrap();
    let mut lone = params("lone", &["a.test"]);
    // SEQUENCE { SEQUENCE { OID caIssuers, [6] "http://a" } }
    let access = b"\x30\x16\x30\x14\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x02\x86\x08http://a";
    lone.custom_extensions
        .push(CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 5, 5, 7, 1, 1],
            access.to_vec(),
        ));
    let lone = lone.signed_by(&key(), &issuer).unwrap().pem();
    assert_eq!(
        doubts(&lone, &[], now),
        ["only the leaf is in it, without the certificate of its issuer (CN=R3)"]
    );
    assert_eq!(
        doubts(&format!("{lone}{}", issuer.pem()), &[], now),
        Vec::<String>::new()
    );
}

#[test]
fn names_and_uses_are_compared_with_what_is_asked_of_it() {
    let [leaf, ..] = three();
    assert_eq!(
        doubts(&leaf, &["example.com", "a.b.shop.example.com", "*.example.com"], day(100)),
        ["example.com", "a.b.shop.example.com", "*.example.com"].map(|name| format!(
            "{name:?} of `names` is not in the certificate, which is for www.example.com, *.shop.example.com"
        ))
    );
    let mut client = params("client", &["a.test"]);
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = client.self_signed(&key()).unwrap().pem();
    assert_eq!(
        doubts(&client, &[], day(100)),
        ["the certificate is not for servers (extendedKeyUsage without serverAuth)"]
    );
}

#[test]
fn what_no_client_could_use_is_refused_in_words_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let refused = |pem: &[u8]| Chain::from_pem(pem).unwrap_err();

    let made = |key: &str, bits: &str, more: &[&str]| {
        let (key, csr) = (path(key), path("csr"));
        let bits = format!("rsa_keygen_bits:{bits}");
        openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            &bits,
            "-out",
            &key,
        ]);
        openssl(&[
            "req",
            "-new",
            "-key",
            &key,
            "-subj",
            "/CN=old.test",
            "-out",
            &csr,
        ]);
        let mut arguments = vec!["x509", "-req", "-in", &csr, "-signkey", &key, "-days", "3"];
        arguments.extend(more);
        openssl(&arguments)
    };
    assert_eq!(
        refused(&made("v1.key", "2048", &[])),
        Unusable::OldVersion("CN=old.test".to_owned())
    );
    let extensions = path("extensions");
    std::fs::write(&extensions, "subjectAltName = DNS:old.test\n").unwrap();
    let weak = made("weak.key", "1024", &["-extfile", &extensions]);
    assert_eq!(
        refused(&weak).to_string(),
        "certificate 1 of it (CN=old.test) has an RSA key of 1024 bits"
    );
    let sha1 = made("sha1.key", "2048", &["-extfile", &extensions, "-sha1"]);
    let chain = Chain::from_pem(&sha1).unwrap();
    assert_eq!(chain.leaf().key, KeyKind::Rsa(2048));
    let doubts = chain.doubts(&[], SystemTime::now());
    assert!(doubts.iter().any(|doubt| doubt.message.contains("SHA-1")));

    let [leaf, ..] = three();
    assert_eq!(refused(b""), Unusable::Empty);
    assert_eq!(
        refused(&std::fs::read(path("v1.key")).unwrap()),
        Unusable::KeyOnly
    );
    let der = Chain::from_pem(leaf.as_bytes()).unwrap().der()[0].to_vec();
    assert_eq!(refused(&der), Unusable::Der);
    assert_eq!(refused(leaf.repeat(17).as_bytes()), Unusable::TooMany(17));
    let cut = &leaf[..leaf.len() / 2];
    assert_eq!(
        refused(cut.as_bytes()).to_string(),
        "broken PEM: a section has no END line"
    );
    let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        refused(format!("{leaf}{other}").as_bytes()),
        Unusable::Broken { number: 2, .. }
    ));
}
