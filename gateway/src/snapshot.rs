//! The snapshot file of this gateway: what it is taken from, how it is read at the start and kept.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use portolan_discovery::Store;
use portolan_discovery::snapshot_file::{self, FileMetrics, Keeper, LastPicture, Refusal};
use prometheus::Registry;

use crate::live::Live;
use crate::origin::Findings;
use crate::settings::{Expose, Settings};

/// So long may the source take before the file's picture is shown. A source that answers mostly does within a tenth of
/// it, and a start is then as it would be without a file.
const GRACE: Duration = Duration::from_secs(1);

/// The file, as it was found at the start.
#[derive(Debug)]
pub(crate) struct Snapshot {
    path: PathBuf,
    max_age: Duration,
    place: Place,
    found: Result<Option<LastPicture>, Refusal>,
}

/// What the picture is of, as far as settings do not tell.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The source's name.
    pub(crate) source: &'static str,
    /// The API server's address, or the folder.
    pub(crate) of: String,
    /// The watched namespaces, in order; none for all.
    pub(crate) namespaces: Vec<String>,
    /// The one that counts as our own.
    pub(crate) default_namespace: String,
}

impl Snapshot {
    /// Reads the file of the settings, where they name one.
    pub(crate) async fn read(settings: &Settings, place: Place) -> Option<Self> {
        let path = settings.snapshot_file.clone()?;
        let (max_age, origin) = (settings.snapshot_max_age, place.origin(settings));
        let file = path.clone();
        let found = tokio::task::spawn_blocking(move || snapshot_file::read(&file, &origin, max_age)).await;
        // Whatever is in the file: a gateway that ended here would do so at each restart.
        let found = found.unwrap_or_else(|panic| Err(Refusal::Garbled(panic.to_string())));
        Some(Self { path, max_age, place, found })
    }

    /// Has the store show the picture that was found, if its source does not answer. What remains keeps the file.
    pub(crate) fn restore(
        self,
        store: &mut Store,
        live: &Live,
        registry: &Registry,
    ) -> anyhow::Result<Findings> {
        let Self { path, max_age, place, found } = self;
        let metrics = FileMetrics::register(registry)
            .context("the metrics of the snapshot file have names of their own")?;
        let source = place.source;
        let origin = live.map(move |settings| place.origin(settings));
        let keeper = Keeper::new(path, max_age, store.subscribe(), origin, metrics);
        match found {
            Ok(Some(picture)) => {
                keeper.found(&picture.taken);
                store.restore(source, picture, GRACE);
            }
            Ok(None) => tracing::info!("there is no snapshot file yet"),
            Err(refusal) => keeper.refused(&refusal),
        }
        let findings = keeper.findings();
        tokio::spawn(keeper.run());
        Ok(findings)
    }
}

impl Place {
    /// Everything that decides which routes are made, and who may reach them. Settings that only say how a request is
    /// served (balancing, time-outs, zones) are left out: the picture has them as they were, and the source corrects
    /// them.
    fn origin(&self, settings: &Settings) -> snapshot_file::Origin {
        let Self { source, of, namespaces, default_namespace } = self;
        let expose = match settings.expose {
            Expose::Annotated => "annotated",
            Expose::All => "all",
        };
        let namespaces = if namespaces.is_empty() { "all".to_owned() } else { namespaces.join(", ") };
        [
            (*source, of.as_str()),
            ("namespaces", &namespaces),
            ("default-namespace", default_namespace),
            ("cluster-domain", &settings.cluster_domain),
            ("expose", expose),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}
