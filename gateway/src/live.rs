//! Settings that change while the gateway runs.
//!
//! The ConfigMap is read as the configuration file was: what it says of `live` settings takes effect at once, what it
//! says of `startup` settings becomes a finding, and a text that cannot be read changes nothing and is a finding too.

use std::sync::Arc;

use portolan_model::{Finding, ResourceRef};
use tokio::sync::watch;

use crate::settings::{self, ConfigFile, Flags, Settings};

/// What the user said before it was resolved: needed again whenever the file's part of it changes.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    /// The flags of the command line.
    pub(crate) flags: Flags,
    /// The configuration file as it was at the start.
    pub(crate) file: ConfigFile,
}

/// The settings in force, and what could not be taken from the last change.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    /// The settings in force.
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    /// What in the ConfigMap could not be honoured.
    pub(crate) findings: watch::Receiver<Arc<Vec<Finding>>>,
}

impl Live {
    /// What follows from the settings in force, followed as they change.
    pub(crate) fn map<T: Send + Sync + 'static>(
        &self,
        translate: impl Fn(&Settings) -> T + Send + 'static,
    ) -> watch::Receiver<Arc<T>> {
        self.map_with(watch::channel(()).1, move |settings, ()| translate(settings))
    }

    /// What follows from the settings in force and something else that changes.
    pub(crate) fn map_with<U: Send + Sync + 'static, T: Send + Sync + 'static>(
        &self,
        mut other: watch::Receiver<U>,
        translate: impl Fn(&Settings, &U) -> T + Send + 'static,
    ) -> watch::Receiver<Arc<T>> {
        let mut settings = self.settings.clone();
        let first = translate(&settings.borrow_and_update(), &other.borrow_and_update());
        let (sender, receiver) = watch::channel(Arc::new(first));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok(()) = settings.changed() => {}
                    Ok(()) = other.changed() => {}
                    else => break,
                }
                let next = translate(&settings.borrow_and_update(), &other.borrow_and_update());
                sender.send_replace(Arc::new(next));
            }
            // The last settings hold for good: keep the channel open for whoever waits on it.
            sender.closed().await;
        });
        receiver
    }
}

/// A ConfigMap, and the texts of its key as they change.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The ConfigMap, for findings.
    pub(crate) map: ResourceRef,
    /// The texts; none while there is no such ConfigMap or key.
    pub(crate) texts: watch::Receiver<Option<Arc<str>>>,
    /// The right to read it, if that is missing.
    pub(crate) rights: watch::Receiver<Arc<Vec<Finding>>>,
}

/// Follows a ConfigMap. Without one the settings stay as they started.
pub(crate) fn follow(started: Settings, said: Said, followed: Option<Followed>) -> Live {
    let (settings_out, settings) = watch::channel(Arc::new(started.clone()));
    let (findings_out, findings) = watch::channel(Arc::default());
    if let Some(Followed { map, mut texts, .. }) = followed {
        tokio::spawn(async move {
            while texts.changed().await.is_ok() {
                let text = texts.borrow_and_update().clone();
                let (taken, found) = match text {
                    Some(text) => take(&started, &said, &map, &text),
                    None => (None, vec![missing(&map)]),
                };
                for finding in &found {
                    tracing::warn!(%finding, "the ConfigMap cannot be honoured as it is");
                }
                findings_out.send_replace(Arc::new(found));
                if let Some(taken) = taken {
                    settings_out.send_if_modified(|current| {
                        let differs = **current != taken;
                        if differs {
                            tracing::info!("live settings changed");
                            *current = Arc::new(taken);
                        }
                        differs
                    });
                }
            }
        });
    }
    Live { settings, findings }
}

/// The settings that a text of the ConfigMap leads to (none if it cannot be read), and what in it cannot be honoured.
fn take(started: &Settings, said: &Said, map: &ResourceRef, text: &str) -> (Option<Settings>, Vec<Finding>) {
    let unreadable = |problem: settings::Problem| {
        let message = format!("{problem} (the settings in force stay as they were)");
        Finding::error(map, "data[\"portolan.yaml\"]", "InvalidSetting", message)
    };
    let file = match ConfigFile::parse("portolan.yaml", text) {
        Ok(file) => file,
        Err(problem) => return (None, vec![unreadable(problem)]),
    };
    let wanted = match settings::resolve(&said.flags, &crate::variable, &file) {
        Ok(wanted) => wanted,
        Err(problems) => return (None, problems.into_iter().map(unreadable).collect()),
    };
    let needs_restart = |name: &'static str| {
        let message =
            format!("{name} takes effect at the next start only: restart the gateway to use the new value");
        Finding::warning(map, format!("data[\"portolan.yaml\"].{name}"), "RestartNeeded", message)
    };
    let findings = started.startup_differences(&wanted).into_iter().map(needs_restart).collect();
    (Some(started.with_live_of(&wanted)), findings)
}

/// Without the ConfigMap what was last in force stays so.
fn missing(map: &ResourceRef) -> Finding {
    let message = format!(
        "there is no ConfigMap {} with a key portolan.yaml in namespace {}: the settings in force stay as they were, \
         and no change of them is seen. Create it (deploy/base has one), or run without the setting config-map",
        map.name, map.namespace
    );
    Finding::warning(map, "data[\"portolan.yaml\"]", "MissingConfigMap", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Expose;

    fn started() -> (Settings, Said) {
        let said = Said { flags: Flags::default(), file: ConfigFile::default() };
        (settings::resolve(&said.flags, &|_| None, &said.file).unwrap(), said)
    }

    #[tokio::test]
    async fn a_live_setting_takes_effect_and_a_startup_setting_is_a_finding() {
        let (settings, said) = started();
        let (texts, followed) = watch::channel(None);
        let (_, rights) = watch::channel(Arc::default());
        let map = ResourceRef::new("ConfigMap", "service-discovery", "portolan");
        let mut live = follow(settings, said, Some(Followed { map, texts: followed, rights }));
        texts.send_replace(Some("expose: all\nworkers: 3".into()));
        live.settings.changed().await.unwrap();
        assert_eq!(live.settings.borrow_and_update().expose, Expose::All);
        let findings = live.findings.borrow_and_update().clone();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].reason, "RestartNeeded");
        assert_eq!(findings[0].field, "data[\"portolan.yaml\"].workers");

        texts.send_replace(Some("expose: everything".into()));
        live.findings.changed().await.unwrap();
        let findings = live.findings.borrow_and_update().clone();
        assert!(findings[0].message.contains("\"everything\" cannot be used"), "{}", findings[0]);
        assert_eq!(live.settings.borrow().expose, Expose::All, "the last good settings stay");

        texts.send_replace(None);
        live.findings.changed().await.unwrap();
        assert_eq!(live.findings.borrow_and_update()[0].reason, "MissingConfigMap");
        assert_eq!(live.settings.borrow().expose, Expose::All, "the last good settings stay");

        texts.send_replace(Some("expose: annotated".into()));
        live.settings.changed().await.unwrap();
        assert!(live.findings.borrow_and_update().is_empty());
    }
}
