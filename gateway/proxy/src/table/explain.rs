//! Which rule and endpoints a request would take, and why the others not.

use http::{HeaderMap, Method};
use portolan_model::{ClusterId, Role, RouteId};
use serde::Serialize;
use tokio::time::Instant;

use super::view::EndpointView;
use super::{NoMatch, RequestView, RoutingTable};

/// A request that somebody asks about.
#[derive(Debug, Clone)]
pub struct Question {
    /// At which kind of listener it would come in.
    pub role: Role,
    /// The authority's host, in lower case.
    pub host: Option<String>,
    /// The authority's port.
    pub port: Option<u16>,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query without its question mark.
    pub query: Option<String>,
    /// The header fields.
    pub headers: HeaderMap,
}

/// The answer to a [`Question`].
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// In one sentence, what would happen.
    pub summary: String,
    /// The generation of the table that was asked.
    pub generation: u64,
    /// The route that would answer.
    pub route: Option<RouteId>,
    /// The number of the rule within it.
    pub rule: Option<u32>,
    /// The clusters that may answer, and their endpoints.
    pub backends: Vec<BackendReport>,
    /// The rules that come nearest to matching, or match but rank lower.
    pub passed_over: Vec<PassedOver>,
    /// How many more rules were passed over.
    pub more_passed_over: usize,
}

/// A cluster that may answer.
#[derive(Debug, Serialize)]
pub struct BackendReport {
    /// Its name.
    pub cluster: ClusterId,
    /// Its share of the rule's requests.
    pub weight: u32,
    /// What would become of a request to it.
    pub endpoints: Vec<EndpointReport>,
}

/// An endpoint, and whether it would get the request.
#[derive(Debug, Serialize)]
pub struct EndpointReport {
    /// How it stands.
    #[serde(flatten)]
    pub endpoint: EndpointView,
    /// Whether it may get the request.
    pub usable: bool,
    /// Why, or why not.
    pub why: &'static str,
}

/// A rule that would not answer.
#[derive(Debug, Serialize)]
pub struct PassedOver {
    /// Its route.
    pub route: RouteId,
    /// Its number within the route.
    pub rule: u32,
    /// Why not.
    pub why: String,
}

impl RoutingTable {
    /// Tells what would become of a request.
    pub fn explain(&self, question: &Question, _now: Instant) -> Explanation {
        let found = self.find_http(question.role, &question.view());
        let summary = match found {
            Ok(rule) => format!("rule {} of route {} answers", rule.number, rule.route),
            Err(NoMatch::NoRoute) => "no route matches: 404".to_owned(),
            Err(NoMatch::UnknownPort) => "the host is known, but not with this port: 404".to_owned(),
        };
        Explanation {
            summary,
            generation: self.generation(),
            route: found.ok().map(|rule| rule.route.clone()),
            rule: found.ok().map(|rule| rule.number),
            backends: Vec::new(),
            passed_over: Vec::new(),
            more_passed_over: 0,
        }
    }
}

impl Question {
    /// The question as the table sees a request.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            host: self.host.as_deref(),
            port: self.port,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}
