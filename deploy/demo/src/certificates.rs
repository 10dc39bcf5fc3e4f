//! A certificate authority of the demo's own, and a certificate for each host the L7 nodes serve.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// File stem and DNS names of each certificate.
pub const HOSTS: [(&str, &[&str]); 3] = [
    ("shop", &["shop.weir.test"]),
    ("api", &["api.weir.test"]),
    ("static", &["*.static.weir.test"]),
];

/// Writes `ca.pem`, and `<stem>.pem` with `<stem>.key` for each of [`HOSTS`], into `directory`.
pub fn issue(directory: &Path) -> Result<()> {
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "Weir demo CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    write(&directory.join("ca.pem"), &authority_certificate.pem())?;
    let issuer = Issuer::new(authority, authority_key);
    for (stem, names) in HOSTS {
        let mut host = CertificateParams::new(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        host.distinguished_name.push(DnType::CommonName, names[0]);
        host.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        host.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        host.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = host.signed_by(&key, &issuer)?;
        write(&directory.join(format!("{stem}.pem")), &certificate.pem())?;
        write_secret(&directory.join(format!("{stem}.key")), &key.serialize_pem())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("chmod {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_gets_a_certificate_and_a_private_key_only_root_can_read() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        issue(directory.path()).unwrap();
        assert!(directory.path().join("ca.pem").exists());
        for (stem, _) in HOSTS {
            let certificate =
                fs::read_to_string(directory.path().join(format!("{stem}.pem"))).unwrap();
            assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"));
            let key = directory.path().join(format!("{stem}.key"));
            assert!(fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
            assert_eq!(
                fs::metadata(&key).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }
}
