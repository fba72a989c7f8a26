//! A setting whose value stands in files of its own, as the admin token and the certificate do.
//!
//! The files are looked at again and again: the kubelet swaps a mounted Secret by a symbolic link, of which a watch of
//! the files themselves would not hear.

use std::sync::Arc;
use std::time::Duration;

use portolan_model::{Finding, ResourceRef};
use tokio::sync::watch;

/// From one look at the files to the next.
const LOOK: Duration = Duration::from_secs(2);

/// How people are told of such a setting.
#[derive(Debug)]
pub(crate) struct FileSetting {
    /// What its value is, with its article: `the admin token`.
    pub(crate) value: &'static str,
    /// The flag, without its dashes, that names the file.
    pub(crate) flag: &'static str,
    /// The reason of the finding when the files have no value.
    pub(crate) reason: &'static str,
    /// The line in the log for that.
    pub(crate) failed: &'static str,
    /// What holds meanwhile, as a sentence without its stop.
    pub(crate) meanwhile: &'static str,
}

impl FileSetting {
    /// Reads again and again; `take` puts a value that was read into its place, and tells whether it is another one.
    /// Returns why the value in place is not what stands in the files, if it is so. Ends when nobody holds that any more.
    pub(crate) fn follow<T: Send + 'static>(
        &'static self,
        read: impl Fn() -> anyhow::Result<T> + Clone + Send + 'static,
        take: impl Fn(T) -> bool + Send + 'static,
    ) -> watch::Receiver<Arc<Vec<Finding>>> {
        let (findings_out, findings) = watch::channel(Arc::default());
        tokio::spawn(async move {
            while !findings_out.is_closed() {
                tokio::time::sleep(LOOK).await;
                match tokio::task::spawn_blocking(read.clone()).await {
                    Ok(read) => self.look(read, &take, &findings_out),
                    Err(error) => tracing::error!(%error, "reading {} panicked", self.value),
                }
            }
        });
        findings
    }

    /// What one look at the files leads to.
    pub(crate) fn look<T>(
        &self,
        read: anyhow::Result<T>,
        take: impl Fn(T) -> bool,
        findings: &watch::Sender<Arc<Vec<Finding>>>,
    ) {
        let found = match read {
            Ok(read) => {
                if take(read) {
                    tracing::info!("{} has changed", self.value);
                }
                None
            }
            Err(error) => Some(self.unusable(&error)),
        };
        findings.send_if_modified(|findings| {
            let differs = findings.first() != found.as_ref();
            if differs {
                if let Some(finding) = &found {
                    tracing::warn!(%finding, "{}", self.failed);
                }
                *findings = Arc::new(found.into_iter().collect());
            }
            differs
        });
    }

    fn unusable(&self, error: &anyhow::Error) -> Finding {
        let setting = ResourceRef::new("Setting", "", self.flag);
        Finding::warning(&setting, self.flag, self.reason, format!("{error:#}. {}", self.meanwhile))
    }
}
