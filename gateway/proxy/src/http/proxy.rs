//! The handler: what happens to one request, in order. Read this file to know what the gateway does.

use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;
use portolan_model::Affinity;

use super::body::Body;
use super::client_body::ClientBody;
use super::exchange::{Exchange, InFlight};
use super::outbound::Outbound;
use super::request::{Asked, Target};
use super::survey::{Known, Survey};
use super::{affinity, headers, request, respond};
use crate::cluster::{Cluster, Pick};
use crate::error::{Failure, Reason};
use crate::filters;
use crate::listener::Client;
use crate::table::{CompiledRule, NoMatch, RequestView, RoutingTable};
use crate::upstream;

/// Answers one request of a client. Dropping the future (the client went away) cancels whatever is under way for it
/// and closes the upstream connection.
pub(crate) async fn forward(client: Rc<Client>, request: Request<ClientBody>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (survey, values) = Survey::with_values(&parts.headers);
    let in_flight = InFlight::begin(client, &parts, &values, body);
    let exchange = Rc::clone(in_flight.exchange());
    let manner = respond::Manner::of(parts.version, &values, exchange.has_upload());
    let host = values.host.cloned();
    let mut request = Outbound::from(parts);

    // The table is read once, so that the whole request sees one generation.
    let table = exchange.client.worker().table();
    let answer = match decide(&exchange, &table, &mut request, host, &survey) {
        Ok(Decision::Send(to)) => to.send(&exchange, &request).await,
        Ok(Decision::Answer(response)) => Ok(Answer::Ourselves(response)),
        Err(failure) => Err(failure),
    };
    exchange.client.worker().spare_headers.give(request.parts.headers);

    let mut response = match answer {
        Ok(Answer::Upstream(sent, affinity)) => relay(in_flight, sent, &affinity),
        Ok(Answer::Ourselves(response)) => own(in_flight, response, None),
        Err(failure) => {
            let response = respond::failure(&failure, manner, &exchange.request_id());
            own(in_flight, response, Some(failure.reason))
        }
    };
    // What is left of a refused upload stands in the way of the next request.
    if (exchange.client.is_closing() || exchange.upload_is_refused()) && manner.version() != Version::HTTP_2 {
        respond::close(response.headers_mut());
    }
    response
}

/// Who is to answer.
enum Decision<'a> {
    Send(Destination<'a>),
    Answer(Response<Body>),
}

/// Where a request goes.
struct Destination<'a> {
    cluster: &'a Arc<Cluster>,
    affinity: Affinity,
    key: Option<affinity::Key>,
}

/// Who has answered.
enum Answer {
    Upstream(upstream::Sent, Affinity),
    Ourselves(Response<Body>),
}

impl Destination<'_> {
    /// Gets an endpoint's response, at the first attempt or a later one.
    async fn send(self, exchange: &Rc<Exchange>, request: &Outbound) -> Result<Answer, Failure> {
        let key = self.key.as_ref().map(affinity::Key::as_key);
        let sent = upstream::send(exchange, self.cluster, key, request).await?;
        Ok(Answer::Upstream(sent, self.affinity))
    }
}

/// Reads what is asked, finds who answers it, and makes the request one for an endpoint.
fn decide<'a>(
    exchange: &Exchange,
    table: &'a RoutingTable,
    request: &mut Outbound,
    host: Option<HeaderValue>,
    survey: &Survey,
) -> Result<Decision<'a>, Failure> {
    let client = &exchange.client;
    let worker = client.worker();
    let live = worker.live();

    // 1. What is asked, in one unambiguous form.
    let parts = &mut request.parts;
    if parts.version == Version::HTTP_2 {
        client.speaks_http2();
    }
    request::check_size(parts, survey, worker.config().max_head_bytes)?;
    let role = client.listening.listener.role;
    let target = match request::normalise(parts, host, survey, role, &live)? {
        Asked::Answer => return Ok(Decision::Answer(respond::ourselves(parts))),
        Asked::Forward(target) => target,
    };
    let signature = live.via.then_some(worker.signature());
    if survey.has(Known::Via) && signature.is_some_and(|signature| signature.is_in(&parts.headers)) {
        return Err(Failure::new(Reason::LoopDetected, "the request has passed this gateway before"));
    }

    // 2. Which rule and cluster answer it.
    exchange.note(|record| record.generation = table.generation());
    let rule = find(table, client, parts, &target)?;
    let cluster = rule.backend(worker.random()).ok_or_else(no_backend)?;
    exchange.routed(worker.series(rule, cluster));

    // 3. What the endpoint gets to see.
    let affinity = policy_affinity(exchange, cluster);
    let client_address = client.peer.client(&parts.headers, &live);
    let key = affinity::Key::read(&affinity, client_address, &parts.headers);
    let has_body = exchange.has_upload();
    headers::prepare_request(request, survey, has_body, &client.peer, &target, signature);
    exchange.note(|record| {
        record.client = client_address;
        record.request_id = request.added.request_id.clone();
    });
    filters::on_request(&rule.filters, request);
    Ok(Decision::Send(Destination { cluster, affinity, key }))
}

fn find<'a>(
    table: &'a RoutingTable,
    client: &Client,
    parts: &Parts,
    target: &Target,
) -> Result<&'a Arc<CompiledRule>, Failure> {
    let view = RequestView {
        host: target.host(),
        port: target.port,
        named_only: target.is_absolute,
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    table.find_http(client.listening.listener.role, &view).map_err(|no_match| match no_match {
        NoMatch::NoRoute => Failure::new(Reason::NoRoute, "no route matches this host and path"),
        NoMatch::UnknownPort => Failure::new(Reason::UnknownPort, "the service has no such port"),
    })
}

fn no_backend() -> Failure {
    Failure::new(Reason::NoEndpoints, "the route has no backend that could answer")
}

/// The affinity that the cluster asks for. The balancer's copy of the policy is looked at first, because it is this
/// worker's own; it can be one change behind, which costs one request its affinity.
fn policy_affinity(exchange: &Exchange, cluster: &Arc<Cluster>) -> Affinity {
    let balancers = exchange.client.worker().balancers.borrow();
    match balancers.policy(cluster) {
        Some(policy) => policy.affinity.clone(),
        None => cluster.state().policy.affinity.clone(),
    }
}

/// Turns an endpoint's response into the client's; the body flows from here on by itself, with everything in it that
/// must last until its end.
fn relay(in_flight: InFlight, sent: upstream::Sent, affinity: &Affinity) -> Response<Body> {
    let (mut head, survey, body, connection, pick) = sent.into_parts();
    let exchange = in_flight.exchange();
    let worker = exchange.client.worker();
    let signature = worker.live().via.then_some(worker.signature());
    headers::prepare_response(&mut head, &survey, signature);
    if let Some(cookie) = affinity_cookie(affinity, &pick) {
        head.headers.append(http::header::SET_COOKIE, cookie);
    }
    exchange.note(|record| record.status = head.status.as_u16());
    exchange.answered(head.status.is_client_error() || head.status.is_server_error());
    if head.status == StatusCode::RESET_CONTENT && !body.is_ended() {
        // It cannot have a body (RFC 9110 section 15.3.6); one that came is left to the endpoint, with its connection.
        head.headers.remove(http::header::CONTENT_LENGTH);
        in_flight.complete();
        return Response::from_parts(head, Body::Empty);
    }
    Response::from_parts(head, Body::relay(in_flight, connection, body, pick))
}

/// The cookie that brings the client back to this endpoint, where it did not bring one that did.
fn affinity_cookie(affinity: &Affinity, pick: &Pick) -> Option<HeaderValue> {
    match affinity {
        Affinity::Cookie(name) if !pick.by_affinity() => {
            let token = pick.endpoint().affinity_token();
            HeaderValue::try_from(format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax")).ok()
        }
        Affinity::Cookie(_) | Affinity::None | Affinity::ClientIp | Affinity::Header(_) => None,
    }
}

/// Sends an answer of our own; the record ends with it.
fn own(in_flight: InFlight, response: Response<Body>, reason: Option<Reason>) -> Response<Body> {
    let exchange = in_flight.exchange();
    exchange.note(|record| {
        record.status = response.status().as_u16();
        record.reason = reason;
    });
    exchange.sent(response.body().size_hint().lower() as usize);
    in_flight.complete();
    response
}
