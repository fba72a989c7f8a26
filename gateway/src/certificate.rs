//! The certificate of the listeners with TLS, from its two files.
//!
//! They are looked at again and again, as the token of the admin pages is, for the same reason: the kubelet swaps a
//! mounted Secret by a symbolic link.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portolan_model::{Finding, ResourceRef};
use portolan_proxy::{Certificate, ServedCertificate};
use tokio::sync::watch;

use crate::settings::Settings;

/// From one look at the files to the next.
const LOOK: Duration = Duration::from_secs(2);

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
        let (findings_out, findings) = watch::channel(Arc::default());
        let followed = Followed { served: served.clone(), findings };
        tokio::spawn(async move {
            while !findings_out.is_closed() {
                tokio::time::sleep(LOOK).await;
                let files = self.clone();
                match tokio::task::spawn_blocking(move || files.read()).await {
                    Ok(read) => take(read, &served, &findings_out),
                    Err(error) => tracing::error!(%error, "reading the certificate panicked"),
                }
            }
        });
        Ok(followed)
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

fn take(
    read: anyhow::Result<Certificate>,
    served: &ServedCertificate,
    findings: &watch::Sender<Arc<Vec<Finding>>>,
) {
    let found = match read {
        Ok(read) => {
            if served.current() != read {
                served.replace(read);
                tracing::info!("the certificate has changed");
            }
            None
        }
        Err(error) => Some(unusable(&error)),
    };
    findings.send_if_modified(|findings| {
        let differs = findings.first() != found.as_ref();
        if differs {
            if let Some(finding) = &found {
                tracing::warn!(%finding, "the certificate cannot be renewed");
            }
            *findings = Arc::new(found.into_iter().collect());
        }
        differs
    });
}

fn unusable(error: &anyhow::Error) -> Finding {
    let setting = ResourceRef::new("Setting", "", "tls-cert");
    let message =
        format!("{error:#}. The certificate that was last read is shown until the files have another");
    Finding::warning(&setting, "tls-cert", "UnusableCertificate", message)
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
        take(files.read(), &served, &findings);
        assert_eq!(served.current(), first);
        let told = seen.borrow()[0].to_string();
        assert!(told.contains("tls.key cannot be read") && told.contains("was last read"), "{told}");
        let third = issue();
        take(files.read(), &served, &findings);
        assert!(served.current() == third && third != second);
        assert!(seen.borrow().is_empty());
    }
}
