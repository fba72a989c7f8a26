//! The certificate of the listeners with TLS, from its two files.
//!
//! They are followed as every [`FileSetting`] is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use portolan_model::Finding;
use portolan_proxy::{Certificate, ServedCertificate};
use tokio::sync::watch;

use crate::file_setting::FileSetting;
use crate::settings::Settings;

const SETTING: FileSetting = FileSetting {
    value: "the certificate",
    flag: "tls-cert",
    reason: "UnusableCertificate",
    failed: "the certificate cannot be renewed",
    meanwhile: "The certificate that was last read is shown until the files have another",
};

/// The certificate as it stands in its files, and what is wrong with them.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    /// The last good one.
    pub(crate) served: ServedCertificate,
    /// Why that is not what stands in the files now, if it is so.
    pub(crate) findings: watch::Receiver<Arc<Vec<Finding>>>,
}

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Reads the certificate that the settings name, if they name one, to find out whether it can be served.
///
/// # Errors
/// Says which file is wrong, and how.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    Files::of(settings).map(|files| files.read()).transpose()?;
    Ok(())
}

/// Reads the certificate that the settings name, if they name one, and follows its files from then on: another one is
/// shown from a moment later on, and files that make no certificate change nothing.
///
/// # Errors
/// Says which file is wrong now, and how.
pub(crate) fn follow(settings: &Settings) -> anyhow::Result<Option<Followed>> {
    Files::of(settings).map(Files::follow).transpose()
}

impl Files {
    fn of(settings: &Settings) -> Option<Self> {
        Some(Self { certificate: settings.tls_cert.clone()?, key: settings.tls_key.clone()? })
    }

    fn follow(self) -> anyhow::Result<Followed> {
        let served = ServedCertificate::new(self.read()?);
        let shown = served.clone();
        let findings = SETTING.follow(move || self.read(), move |read| show(read, &shown));
        Ok(Followed { served, findings })
    }

    fn read(&self) -> anyhow::Result<Certificate> {
        let chain = contents("tls-cert", &self.certificate)?;
        let key = contents("tls-key", &self.key)?;
        match Certificate::from_pem(&chain, &key) {
            Ok(certificate) => Ok(certificate),
            Err(error) if error.is_of_the_key() => bail!("--tls-key {}: {error}", self.key.display()),
            Err(error) => bail!("--tls-cert {}: {error}", self.certificate.display()),
        }
    }
}

fn contents(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!("--{flag} {} cannot be read: name a file in PEM that this process may read", path.display())
    })
}

/// Shows a certificate from now on. Whether it is another one.
fn show(read: Certificate, served: &ServedCertificate) -> bool {
    let differs = served.current() != read;
    if differs {
        served.replace(read);
    }
    differs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_make_no_certificate_change_nothing_and_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
        let issue = || {
            let issued = rcgen::generate_simple_self_signed(vec!["shop.test".to_owned()]).unwrap();
            std::fs::write(&files.certificate, issued.cert.pem()).unwrap();
            std::fs::write(&files.key, issued.signing_key.serialize_pem()).unwrap();
            files.read().unwrap()
        };
        let first = issue();
        let served = ServedCertificate::new(first.clone());
        let (findings, seen) = watch::channel(Arc::default());
        let second = issue();
        std::fs::remove_file(&files.key).unwrap();
        SETTING.look(files.read(), |read| show(read, &served), &findings);
        assert_eq!(served.current(), first);
        let told = seen.borrow()[0].to_string();
        assert!(told.contains("tls.key cannot be read") && told.contains("was last read"), "{told}");
        let third = issue();
        SETTING.look(files.read(), |read| show(read, &served), &findings);
        assert!(served.current() == third && third != second);
        assert!(seen.borrow().is_empty());
    }
}
