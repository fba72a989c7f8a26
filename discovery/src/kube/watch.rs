//! Lists and watches one kind in one namespace (or in all), for ever: the only place that knows how.
//!
//! **Problem.** A watch ends all the time: every minute by agreement, and whenever a server, a network or a right goes
//! away. What was learned must then stay, what was missed must be found, and nothing may ask in a hot loop.
//!
//! **Choice.** A round is: a complete picture if there is none to go on from (a streaming list where the API server has
//! them, a paged list where not), then a watch from its version. The picture is gathered aside and reported in one
//! piece together with what is no longer in it, so that a relist never shows an empty or half picture. A failed watch goes
//! on from the last version seen, unless that may mean nothing any more (below). `kube::runtime::watcher` is not used:
//! it has no fallback from streaming lists, steps over an event that it cannot decode, and one malformed object
//! ends its list.
//!
//! **Silence.** The server is asked to end each watch after [`WatchTimings::watch`] and sends a bookmark just before; so a
//! connection that died without a word is known after that time and a margin, 55 s. Each new watch starts at the last
//! version and costs the server next to nothing.
//!
//! **Versions** are opaque: they are handed back, and no event is judged by its own. But an API server whose store was put back
//! from a backup counts from an older version again, takes a watch from one that is still to come, and says nothing on
//! it that is older. So a picture is taken again after 410 (too old), after a loss of touch that was long enough for a
//! restore ([`WatchTimings::outage`]), and when the server itself mentions a smaller version than the one that was asked
//! for. The last is a hint and no more: where versions are no numbers it is not there.
//!
//! **A malformed object** is reported by name, its last good form stays in force, and everything else goes on.

use std::collections::BTreeSet;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, header};
use kube::Client;
use kube::core::params::{ListParams, WatchParams};
use kube::core::request::Request as Ask;
use portolan_model::ResourceRef;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::backoff::{Backoff, BackoffTimings, random_between};
use super::decode::{Line, Page, decode_line, decode_page, reference};
use super::lines::Lines;
use super::metrics::KindMetrics;
use super::request::{self, Failure};

/// Objects on one page of a paged list.
const PAGE: u32 = 500;

/// How long each step may take; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct WatchTimings {
    /// For the head of an answer, and for a whole page of a list.
    pub answer: Duration,
    /// Between two objects of a streaming list.
    pub quiet: Duration,
    /// After this long the server ends a watch, at the latest.
    pub watch: Duration,
    /// After this long beyond, the connection is taken for dead.
    pub margin: Duration,
    /// After a loss of touch of this length the last version is not trusted, and a complete picture is taken.
    pub outage: Duration,
    /// The waits between attempts.
    pub backoff: BackoffTimings,
}

impl Default for WatchTimings {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            quiet: Duration::from_secs(10),
            watch: Duration::from_secs(50),
            margin: Duration::from_secs(5),
            outage: Duration::from_secs(1),
            backoff: BackoffTimings::default(),
        }
    }
}

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The kind, as in a [`ResourceRef`].
    pub(crate) kind: Arc<str>,
    /// The path of the collection: `/api/v1/namespaces/shop/services`.
    pub(crate) path: String,
    /// Which fields an object must have.
    pub(crate) fields: Option<String>,
    /// Whether only the objects' metadata is read, and so only that is asked for.
    pub(crate) metadata_only: bool,
}

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Report<K> {
    /// The complete picture: everything there is, what is gone since the last report, and what could not be read (whose
    /// last good form stays).
    Listed { objects: Vec<K>, gone: Vec<ResourceRef>, malformed: Vec<Malformed> },
    /// One object as it is now.
    Applied(K),
    /// One object is gone.
    Deleted(ResourceRef),
    /// One object as it is now cannot be read; its last good form stays.
    Malformed(Malformed),
    /// The watch is open: what changes is heard.
    Listening,
    /// The watch is not open, for this reason; it is tried again.
    Lost(Failure),
}

/// An object that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) resource: ResourceRef,
    /// Where in it reading stopped, if that is known.
    pub(crate) field: String,
    pub(crate) error: String,
}

impl Malformed {
    pub(crate) fn new(resource: ResourceRef, field: &str, error: &str) -> Self {
        let field = if field == "." { "" } else { field };
        Self { resource, field: field.to_owned(), error: request::shortened(error) }
    }
}

/// Who is told. The watch ends when nobody listens any more.
pub(crate) trait Observer<K>: Send {
    /// Takes a report on what was observed at that instant.
    fn report(
        &mut self,
        report: Report<K>,
        observed: Instant,
    ) -> impl Future<Output = Result<(), Closed>> + Send;
}

/// Nobody listens any more.
#[derive(Debug)]
pub(crate) struct Closed;

/// One watch; [`Watch::run`] is its life.
pub(crate) struct Watch<K, O> {
    client: Client,
    target: Target,
    timings: WatchTimings,
    metrics: KindMetrics,
    observer: O,
    /// From here a watch goes on; none when a picture is needed.
    version: Option<String>,
    /// What was reported and is not gone.
    known: BTreeSet<ResourceRef>,
    /// Whether the next picture is asked for as a streaming list.
    streaming: Streaming,
    listening: bool,
    /// When the server was last heard, while it is out of touch.
    untouched_since: Option<Instant>,
    /// The sort of the last failure, while it lasts.
    trouble: Option<&'static str>,
    kind: PhantomData<fn() -> K>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streaming {
    Try,
    /// The last attempt brought no end: a server that does not know them, or one in trouble. One paged list decides.
    NotNow,
    /// The server does not have them.
    Never,
}

/// Why a round ended.
enum Stop {
    Failed(Failure),
    Closed,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl<K, O> Watch<K, O>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Send,
    O: Observer<K>,
{
    pub(crate) fn new(
        client: Client,
        target: Target,
        timings: WatchTimings,
        metrics: KindMetrics,
        observer: O,
    ) -> Self {
        Self {
            client,
            target,
            timings,
            metrics,
            observer,
            version: None,
            known: BTreeSet::new(),
            streaming: Streaming::Try,
            listening: false,
            untouched_since: None,
            trouble: None,
            kind: PhantomData,
        }
    }

    /// Lists, watches, and begins again, until nobody listens any more. Dropping the future ends it at once.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.timings.backoff);
        loop {
            let failure = match self.round(&mut backoff).await {
                Ok(()) => continue,
                Err(Stop::Closed) => return,
                Err(Stop::Failed(failure)) => failure,
            };
            let wait = backoff.next(&failure);
            if self.lost(failure, wait).await.is_err() {
                return;
            }
            sleep(wait).await;
        }
    }

    async fn round(&mut self, backoff: &mut Backoff) -> Result<(), Stop> {
        let started = Instant::now();
        // Spread, so that not all watches of all replicas begin anew together.
        let length = random_between(self.timings.watch.mul_f64(0.8), self.timings.watch);
        if self.untouched_since.is_some_and(|since| since.elapsed() >= self.timings.outage) {
            self.version = None;
        }
        let mut lines = match self.version.clone() {
            Some(version) => self.open(&self.watch_params(length), &version).await?,
            None => match self.picture(length).await? {
                Some(lines) => lines,
                // The paged list is done; the next round watches.
                None => return Ok(()),
            },
        };
        self.untouched_since = None;
        if !self.listening {
            self.listening = true;
            self.trouble = None;
            self.metrics.listening();
            self.observer.report(Report::Listening, Instant::now()).await?;
            info!("watch is open");
        }
        let heard = self.listen(&mut lines, started + length + self.timings.margin, backoff).await;
        if started.elapsed() > self.timings.quiet {
            backoff.reset();
        }
        heard?;
        match started.elapsed() < length / 2 {
            // A server that shuts down does so, and one that does it all the time must not be asked in a loop.
            true => Err(Failure::Ended.into()),
            false => Ok(()),
        }
    }

    /// Gathers everything and reports it. Gives the stream to go on with if it was a streaming list.
    async fn picture(&mut self, length: Duration) -> Result<Option<Lines>, Stop> {
        let mut gathered = Gathered::default();
        if self.streaming == Streaming::Try {
            let result = self.stream_picture(length, &mut gathered).await;
            if let Err(failure) = &result {
                self.streaming = match failure {
                    failure if failure.is_unsupported() => Streaming::Never,
                    Failure::TimedOut(_) | Failure::Ended | Failure::Garbled(_) => Streaming::NotNow,
                    Failure::Unreachable(_) | Failure::Answered { .. } | Failure::WentBack { .. } => {
                        Streaming::Try
                    }
                };
                if self.streaming == Streaming::Never {
                    debug!(%failure, "no streaming lists here, falling back to paged lists");
                    return Ok(None);
                }
            }
            let lines = result?;
            self.listed(gathered, "streaming").await?;
            return Ok(Some(lines));
        }
        let result = self.page_picture(&mut gathered).await;
        if self.streaming == Streaming::NotNow {
            // Both ways failed: the server is in trouble, which says nothing about streaming lists.
            self.streaming = if result.is_ok() { Streaming::Never } else { Streaming::Try };
        }
        result?;
        self.listed(gathered, "paged").await?;
        Ok(None)
    }

    async fn stream_picture(&self, length: Duration, gathered: &mut Gathered<K>) -> Result<Lines, Failure> {
        let mut lines = self.open(&self.watch_params(length).initial_events(), "").await?;
        loop {
            let next = timeout(self.timings.quiet, lines.next()).await;
            let line = next.map_err(|_| Failure::TimedOut(self.timings.quiet))??.ok_or(Failure::Ended)?;
            match decode_line(&self.target.kind, line)? {
                Line::Blank => {}
                Line::Applied(object) => gathered.objects.push(object),
                // Not before the end of the initial events, says the API; taken by its meaning if it comes.
                Line::Deleted { resource, .. } => {
                    gathered.objects.retain(|held| self.reference(held) != resource);
                }
                Line::Malformed { malformed, .. } => gathered.malformed.push(malformed),
                Line::Failed(failure) => return Err(failure),
                Line::Bookmark { version, initial_events_end } => {
                    gathered.version = version;
                    if initial_events_end {
                        return Ok(lines);
                    }
                }
            }
        }
    }

    async fn page_picture(&self, gathered: &mut Gathered<K>) -> Result<(), Failure> {
        let mut continue_token = None;
        loop {
            let params = ListParams {
                field_selector: self.target.fields.clone(),
                limit: Some(PAGE),
                continue_token,
                ..ListParams::default()
            };
            let request = self.ask(|ask| ask.list(&params), "PartialObjectMetadataList")?;
            let bytes = request::fetch_bytes(&self.client, request, self.timings.answer).await?;
            let page: Page<K> = decode_page(&self.target.kind, &bytes)?;
            gathered.objects.extend(page.objects);
            gathered.malformed.extend(page.malformed);
            gathered.version = page.version;
            continue_token = page.continue_token;
            if continue_token.is_none() {
                return Ok(());
            }
        }
    }

    async fn listed(&mut self, gathered: Gathered<K>, how: &str) -> Result<(), Stop> {
        if gathered.version.is_empty() {
            return Err(Failure::Garbled("a list without a resourceVersion".into()).into());
        }
        let observed = Instant::now();
        let Gathered { objects, malformed, version } = gathered;
        let mut present: BTreeSet<_> = objects.iter().map(|object| self.reference(object)).collect();
        // What cannot be read is there all the same: it keeps its last good form, if it had one.
        present.extend(
            malformed.iter().filter(|it| self.known.contains(&it.resource)).map(|it| it.resource.clone()),
        );
        let gone = self.known.difference(&present).cloned().collect();
        debug!(objects = objects.len(), malformed = malformed.len(), how, "listed");
        self.metrics.listed(how, malformed.len());
        self.known = present;
        self.version = Some(version);
        self.observer.report(Report::Listed { objects, gone, malformed }, observed).await?;
        Ok(())
    }

    /// Passes on what changes until the stream ends.
    async fn listen(
        &mut self,
        lines: &mut Lines,
        deadline: Instant,
        backoff: &mut Backoff,
    ) -> Result<(), Stop> {
        let started = Instant::now();
        let asked = self.version.clone();
        let mut heard_at = started;
        loop {
            let next = timeout_at(deadline, lines.next()).await;
            let observed = Instant::now();
            if next.is_err() {
                // It was dead before it was found to be.
                self.untouched_since = Some(heard_at);
            }
            let Some(line) = next.map_err(|_| Failure::TimedOut(observed - started))?? else { return Ok(()) };
            heard_at = observed;
            let report = match decode_line(&self.target.kind, line)? {
                Line::Blank => continue,
                Line::Failed(failure) => return Err(failure.into()),
                Line::Bookmark { version, .. } => {
                    self.heard("bookmark", version);
                    None
                }
                Line::Applied(object) => {
                    self.known.insert(self.reference(&object));
                    self.heard("applied", object.meta().resource_version.clone().unwrap_or_default());
                    Some(Report::Applied(object))
                }
                Line::Deleted { resource, version } => {
                    self.known.remove(&resource);
                    self.heard("deleted", version);
                    Some(Report::Deleted(resource))
                }
                Line::Malformed { malformed, version } => {
                    // The version counts: else the same object would come again with every new watch.
                    self.heard("malformed", version);
                    self.metrics.malformed(1);
                    Some(Report::Malformed(malformed))
                }
            };
            if let Some(report) = report {
                self.observer.report(report, observed).await?;
            }
            if let Some(failure) = went_back(asked.as_deref(), self.version.as_deref()) {
                return Err(failure.into());
            }
            backoff.reset();
        }
    }

    fn heard(&mut self, event: &str, version: String) {
        self.metrics.heard(event);
        if !version.is_empty() {
            self.version = Some(version);
        }
    }

    async fn lost(&mut self, failure: Failure, wait: Duration) -> Result<(), Closed> {
        if failure.spoils_version() {
            self.version = None;
        }
        if failure.is_loss_of_touch() {
            self.untouched_since.get_or_insert_with(Instant::now);
        }
        // Once for each sort of trouble; what repeats is for those who look closer.
        if self.trouble.replace(failure.label()) == Some(failure.label()) {
            debug!(%failure, ?wait, "watch failed again");
        } else {
            warn!(%failure, ?wait, "watch failed, it is tried again");
        }
        self.listening = false;
        self.metrics.lost(&failure);
        self.observer.report(Report::Lost(failure), Instant::now()).await
    }

    async fn open(&self, params: &WatchParams, version: &str) -> Result<Lines, Failure> {
        let request = self.ask(|ask| ask.watch(params, version), "PartialObjectMetadata")?;
        let response = request::send(&self.client, request, self.timings.answer).await?;
        Ok(Lines::new(response.into_body()))
    }

    fn watch_params(&self, length: Duration) -> WatchParams {
        WatchParams {
            label_selector: None,
            field_selector: self.target.fields.clone(),
            timeout: Some(u32::try_from(length.as_secs()).unwrap_or(u32::MAX).max(1)),
            bookmarks: true,
            send_initial_events: false,
        }
    }

    fn ask(
        &self,
        build: impl FnOnce(&Ask) -> Result<Request<Vec<u8>>, kube::core::request::Error>,
        metadata_kind: &str,
    ) -> Result<Request<Vec<u8>>, Failure> {
        let mut request = build(&Ask::new(self.target.path.clone()))
            .map_err(|error| Failure::Garbled(format!("the request cannot be written: {error}")))?;
        let accept = match self.target.metadata_only {
            // Servers that cannot do it send the whole object, which is read just as well.
            true => format!("application/json;as={metadata_kind};g=meta.k8s.io;v=v1,application/json"),
            false => "application/json".into(),
        };
        let accept = HeaderValue::try_from(accept).expect("media types are visible ASCII");
        request.headers_mut().insert(header::ACCEPT, accept);
        Ok(request)
    }

    fn reference(&self, object: &K) -> ResourceRef {
        reference(&self.target.kind, object.meta())
    }
}

/// Whether the server mentions a smaller version than it was asked for, as far as versions can be compared.
fn went_back(asked: Option<&str>, heard: Option<&str>) -> Option<Failure> {
    let number = |version: Option<&str>| version?.parse::<u64>().ok();
    let (asked, heard) = (number(asked)?, number(heard)?);
    (heard < asked).then_some(Failure::WentBack { asked, heard })
}

/// A picture in the making.
struct Gathered<K> {
    objects: Vec<K>,
    malformed: Vec<Malformed>,
    version: String,
}

impl<K> Default for Gathered<K> {
    fn default() -> Self {
        Self { objects: Vec::new(), malformed: Vec::new(), version: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_compared() {
        let back = |asked, heard| went_back(Some(asked), Some(heard)).is_some();
        assert!(back("100", "99") && back("1000", "999"));
        assert!(!back("100", "100") && !back("99", "100") && !back("999", "1000"));
        assert!(!back("b", "a") && !back("100", "a") && !back("a", "1") && !back("1", ""));
        assert_eq!(went_back(None, Some("1")), None);
    }
}
