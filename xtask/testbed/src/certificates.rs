//! A throw-away certificate authority, the API server's certificate, the administrator's, and the key that signs
//! ServiceAccount tokens.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Writes `ca.crt`, `api.{crt,key}`, `kubelet.{crt,key}`, `admin.{crt,key}` and `sa.{key,pub}` into `folder`.
///
/// `addresses` are those at which clients call the API server, `node` is the one at which it calls the kubelet.
pub(crate) fn write(folder: &Path, addresses: &[IpAddr], node: IpAddr) -> Result<()> {
    fs::create_dir_all(folder)?;
    let ca = authority()?;
    fs::write(folder.join("ca.crt"), ca.certificate)?;

    let mut names = vec!["localhost".to_owned(), "kubernetes.default.svc".to_owned()];
    names.extend(addresses.iter().map(IpAddr::to_string));
    let mut api = CertificateParams::new(names)?;
    api.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    sign(folder, "api", api, ExtendedKeyUsagePurpose::ServerAuth, &ca.issuer)?;

    let mut kubelet = CertificateParams::new([node.to_string()])?;
    kubelet.distinguished_name.push(DnType::CommonName, "kubelet");
    sign(folder, "kubelet", kubelet, ExtendedKeyUsagePurpose::ServerAuth, &ca.issuer)?;

    let mut admin = CertificateParams::default();
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    admin.distinguished_name.push(DnType::CommonName, "admin");
    sign(folder, "admin", admin, ExtendedKeyUsagePurpose::ClientAuth, &ca.issuer)?;

    write_token_key(folder)
}

/// Writes `sa.{key,pub}`, with which ServiceAccount tokens are signed and known, into `folder`.
pub(crate) fn write_token_key(folder: &Path) -> Result<()> {
    let tokens = KeyPair::generate()?;
    fs::write(folder.join("sa.key"), tokens.serialize_pem())?;
    fs::write(folder.join("sa.pub"), tokens.public_key_pem())?;
    Ok(())
}

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Result<Authority> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "portolan-test-ca");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key).context("cannot sign the authority's certificate")?.pem();
    Ok(Authority { certificate, issuer: Issuer::new(params, key) })
}

fn sign(
    folder: &Path,
    name: &str,
    mut params: CertificateParams,
    purpose: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer).with_context(|| format!("cannot sign {name}.crt"))?;
    fs::write(folder.join(format!("{name}.crt")), certificate.pem())?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}
