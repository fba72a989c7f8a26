//! The pages and what they read from.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, header};
use portolan_discovery::snapshot_file::Taken;
use portolan_discovery::{Discovered, SourceStatus};
use portolan_model::Finding;
use portolan_proxy::{ListenerState, ProxyView};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::explain;

/// Everything that the pages show.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) discovered: Discovered,
    pub(crate) proxy: ProxyView,
    pub(crate) registry: Registry,
    /// Who reports findings: the store, the data path, the settings, and who lacks a right.
    pub(crate) finding_sources: Vec<watch::Receiver<Arc<Vec<Finding>>>>,
    /// Set for good once the gateway drains: readiness fails from then on.
    pub(crate) draining: watch::Receiver<bool>,
}

impl View {
    /// Whether each listener that was asked for accepts. Before the first table none is asked for.
    fn listeners(&self) -> Vec<Open> {
        let open = |state: &ListenerState| matches!(state, ListenerState::Bound { .. });
        let listeners = self.proxy.listeners();
        let listeners = listeners.borrow();
        listeners.iter().map(|it| Open { bind: it.listener.bind, open: open(&it.state) }).collect()
    }

    /// Every finding there is, each once.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let all: BTreeSet<Finding> =
            self.finding_sources.iter().flat_map(|source| source.borrow().to_vec()).collect();
        all.into_iter().collect()
    }
}

/// `/livez`, `/readyz`, `/metrics`.
pub(super) fn status(view: Arc<View>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(view)
}

/// `/table`, `/findings`, `/explain`.
pub(super) fn admin(view: Arc<View>) -> Router {
    Router::new()
        .route(
            "/table",
            get(|State(view): State<Arc<View>>| async move {
                Json(view.proxy.table().view(Instant::now())).into_response()
            }),
        )
        .route("/findings", get(|State(view): State<Arc<View>>| async move { Json(view.findings()) }))
        .route("/explain", get(answer))
        .with_state(view)
}

/// The body of `/readyz`: staleness is a detail here, never a failure.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    draining: bool,
    /// Whether the workers use a table made of every required source's first full picture, or of a restored one.
    table: bool,
    listeners: Vec<Open>,
    sources: Vec<Source>,
    /// Where the table comes from while it is from the snapshot file.
    restored: Option<Restored>,
}

#[derive(Serialize)]
struct Restored {
    /// When the picture was last known to be right.
    at: String,
    age_seconds: u64,
    generation: u64,
    version: String,
}

impl From<&Taken> for Restored {
    fn from(taken: &Taken) -> Self {
        Self {
            at: taken.at.to_string(),
            age_seconds: taken.age().as_secs(),
            generation: taken.generation,
            version: taken.version.clone(),
        }
    }
}

#[derive(Serialize)]
struct Open {
    bind: SocketAddr,
    open: bool,
}

#[derive(Serialize)]
struct Source {
    name: &'static str,
    required: bool,
    synced: bool,
    fresh: bool,
    seconds_since_last_change: Option<u64>,
}

impl From<&SourceStatus> for Source {
    fn from(status: &SourceStatus) -> Self {
        let SourceStatus { name, required, synced, fresh, last_change } = *status;
        Self {
            name,
            required,
            synced,
            fresh,
            seconds_since_last_change: last_change.map(|at| at.elapsed().as_secs()),
        }
    }
}

async fn ready(State(view): State<Arc<View>>) -> Response {
    let draining = *view.draining.borrow();
    let table = view.discovered.is_ready() && *view.proxy.publishing().borrow() > 0;
    let listeners = view.listeners();
    let all_open =
        listeners.len() == view.proxy.table().listeners().count() && listeners.iter().all(|it| it.open);
    let ready = table && all_open && !draining;
    let sources = view.discovered.sources.borrow().iter().map(Source::from).collect();
    let restored = view.discovered.restored.borrow().as_deref().map(Restored::from);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, draining, table, listeners, sources, restored })).into_response()
}

async fn metrics(State(view): State<Arc<View>>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&view.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written as text");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn answer(State(view): State<Arc<View>>, Query(asked): Query<explain::Asked>) -> Response {
    match asked.question() {
        Ok(question) => Json(view.proxy.explain(&question)).into_response(),
        Err(message) => (StatusCode::BAD_REQUEST, format!("{message}\n")).into_response(),
    }
}
