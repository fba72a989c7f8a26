//! Which rule and endpoints a request would take, and why the others not.

use http::{HeaderMap, Method, Uri};
use portolan_model::{ClusterId, Role, RouteId};
use serde::Serialize;
use tokio::time::Instant;

use super::compile::{CompiledRoute, CompiledRule};
use super::matching::Miss;
use super::view::{ClusterView, EndpointView};
use super::{NoMatch, RequestView, RoutingTable};
use crate::cluster::{Cluster, verdicts};
use crate::http::request::path_fault;

/// So many of the rules that were passed over are told; the rest is counted.
const MOST_PASSED_OVER: usize = 20;

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

/// Why a text is no question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuestion {
    /// The URL is not one.
    #[error("{0:?} is not a URL; write http://HOST/PATH, or /PATH for a request without a known host")]
    Url(String),
    /// The method is not one.
    #[error("{0:?} is not a method; write it as in GET")]
    Method(String),
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
    /// Rules that match but rank later, and those that nearly match, nearest first.
    pub passed_over: Vec<PassedOver>,
    /// How many more rules were passed over.
    pub more_passed_over: usize,
}

/// A cluster that may answer.
#[derive(Debug, Serialize)]
pub struct BackendReport {
    /// Its name.
    pub cluster: ClusterId,
    /// Its share of the rule's requests, relative to the others.
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
    pub fn explain(&self, question: &Question, now: Instant) -> Explanation {
        if let Some(refusal) = question.refusal() {
            return Explanation {
                summary: refusal,
                generation: self.generation(),
                route: None,
                rule: None,
                backends: Vec::new(),
                passed_over: Vec::new(),
                more_passed_over: 0,
            };
        }
        let found = self.find_http(question.role, &question.view());
        let rule = found.ok();
        let backends = rule.iter().flat_map(|rule| rule.backends());
        let backends =
            backends.map(|(cluster, weight)| BackendReport::of(cluster, weight, now)).collect::<Vec<_>>();
        let (passed_over, more_passed_over) = self.passed_over(question, rule.map(|rule| &**rule));
        Explanation {
            summary: summary(found.map(|rule| &**rule), &backends),
            generation: self.generation(),
            route: rule.map(|rule| rule.route.clone()),
            rule: rule.map(|rule| rule.number),
            backends,
            passed_over,
            more_passed_over,
        }
    }

    fn passed_over(&self, question: &Question, answers: Option<&CompiledRule>) -> (Vec<PassedOver>, usize) {
        let is_other = |rule: &CompiledRule| answers.is_none_or(|answers| answers.order(rule).is_ne());
        let mut others = Vec::new();
        for route in &self.routes.all {
            for rule in route.rules.iter().filter(|rule| is_other(rule)) {
                others.push((Distance::of(route, rule, question), rule));
            }
        }
        others.sort_by(|(a, rule_a), (b, rule_b)| a.steps.cmp(&b.steps).then_with(|| rule_a.order(rule_b)));
        let total = others.len();
        let told =
            others.into_iter().filter(|(distance, _)| distance.steps < Distance::FAR).take(MOST_PASSED_OVER);
        let told = told.map(|(distance, rule)| PassedOver {
            route: rule.route.clone(),
            rule: rule.number,
            why: distance.why(answers),
        });
        let told = told.collect::<Vec<_>>();
        let more = total - told.len();
        (told, more)
    }
}

fn summary(found: Result<&CompiledRule, NoMatch>, backends: &[BackendReport]) -> String {
    let rule = match found {
        Err(NoMatch::NoRoute) => return "404: no route matches".to_owned(),
        Err(NoMatch::UnknownPort) => return "404: the host is known, but not with this port".to_owned(),
        Ok(rule) => rule,
    };
    let usable = backends.iter().filter(|backend| backend.weight > 0).flat_map(|backend| &backend.endpoints);
    let usable = usable.filter(|endpoint| endpoint.usable).count();
    let name = title(rule);
    match usable {
        0 => format!("503: {name} matches, but none of its endpoints may get the request"),
        1 => format!("{name} answers, by 1 endpoint"),
        _ => format!("{name} answers, by one of {usable} endpoints"),
    }
}

fn title(rule: &CompiledRule) -> String {
    format!("rule {} of route {}", rule.number, rule.route)
}

impl BackendReport {
    fn of(cluster: &Cluster, weight: u32, now: Instant) -> Self {
        let verdicts = verdicts(&cluster.state(), now);
        let endpoints = ClusterView::of(cluster, now).endpoints.into_iter().zip(verdicts);
        let endpoints = endpoints.map(|(endpoint, (usable, why))| EndpointReport { endpoint, usable, why });
        Self { cluster: cluster.id().clone(), weight, endpoints: endpoints.collect() }
    }
}

// === impl Question ===

impl Question {
    /// The question about a request of this method to this URL: absolute, or a path alone for a request whose host
    /// does not matter.
    ///
    /// # Errors
    /// The URL or the method is not one.
    pub fn parse(role: Role, method: &str, url: &str) -> Result<Self, InvalidQuestion> {
        let uri = url.parse::<Uri>().map_err(|_| InvalidQuestion::Url(url.to_owned()))?;
        if uri.path().is_empty() && uri.host().is_none() {
            return Err(InvalidQuestion::Url(url.to_owned()));
        }
        Ok(Self {
            role,
            host: uri.host().map(|host| host.trim_end_matches('.').to_ascii_lowercase()),
            port: uri.port_u16(),
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| InvalidQuestion::Method(method.to_owned()))?,
            path: if uri.path().is_empty() { "/".to_owned() } else { uri.path().to_owned() },
            query: uri.query().map(str::to_owned),
            headers: HeaderMap::new(),
        })
    }

    /// What the listener answers before it looks for a route, where it does not take such a request.
    fn refusal(&self) -> Option<String> {
        if self.method == Method::CONNECT {
            return Some("405: CONNECT is not served here".to_owned());
        }
        path_fault(&self.path).map(|fault| format!("400: {fault}"))
    }

    /// The question as the table sees a request. At a cluster listener one that names a host is taken for a request
    /// through the gateway as a proxy, which only routes of that host may answer.
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            named_only: self.role == Role::Cluster && self.host.is_some(),
            host: self.host.as_deref(),
            port: self.port,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

// === impl Distance ===

/// How far a rule is from answering.
struct Distance {
    /// 0 for one that matches but ranks later.
    steps: u32,
    misses: Vec<String>,
}

impl Distance {
    /// A rule that misses both host and path has nothing to do with the request.
    const FAR: u32 = 8;

    fn of(route: &CompiledRoute, rule: &CompiledRule, question: &Question) -> Self {
        let mut distance = Self { steps: 0, misses: Vec::new() };
        if !route.said.roles.contains(question.role) {
            distance.add(3, format!("its route is not reachable at {} listeners", name_of(question.role)));
        }
        distance.measure_host(route, question);
        distance.measure_rest(rule, question);
        distance
    }

    fn why(self, answers: Option<&CompiledRule>) -> String {
        match (self.misses.is_empty(), answers) {
            (false, _) => self.misses.join("; "),
            (true, Some(answers)) => format!("it matches, too, but {} comes first", title(answers)),
            (true, None) => "it matches, but the port does not belong to the host".to_owned(),
        }
    }

    fn add(&mut self, steps: u32, miss: String) {
        self.steps += steps;
        self.misses.push(miss);
    }

    fn measure_host(&mut self, route: &CompiledRoute, question: &Question) {
        let hosts = &route.said.hosts;
        if hosts.is_empty() {
            return;
        }
        let asked = question.host.as_deref().unwrap_or_default();
        let mut of_host = hosts.iter().filter(|host| host.host.matches(asked)).peekable();
        if of_host.peek().is_none() {
            self.add(4, format!("its hosts do not include {asked:?}"));
        } else if !of_host.any(|host| host.port.matches(question.port)) {
            let port = question.port.map_or("no port".to_owned(), |port| format!("port {port}"));
            self.add(2, format!("its host {asked:?} is not meant with {port}"));
        }
    }

    fn measure_rest(&mut self, rule: &CompiledRule, question: &Question) {
        let request = question.view();
        let misses = rule.matches.iter().map(|alternative| alternative.miss(&request)).collect::<Vec<_>>();
        if misses.is_empty() {
            self.add(Self::FAR, "none of its matches could be compiled (see the findings)".to_owned());
        } else if misses.iter().all(Option::is_some) {
            // The alternative that came furthest tells most.
            let nearest = misses.into_iter().flatten().min_by_key(|miss| u32::from(*miss == Miss::Path));
            match nearest {
                Some(Miss::Method) => self.add(1, format!("its method is not {}", request.method)),
                Some(Miss::Header(name)) => self.add(1, format!("header field {name} is not as it asks")),
                Some(Miss::Query(name)) => self.add(1, format!("query parameter {name} is not as it asks")),
                Some(Miss::Path) | None => self.add(4, format!("its path does not match {}", request.path)),
            }
        }
    }
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::Edge => "edge",
        Role::Cluster => "cluster",
    }
}
