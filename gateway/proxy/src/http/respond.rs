//! Answers of our own. The only place that knows status codes.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use serde::Serialize;

use super::body::Body;
use super::headers::X_REQUEST_ID;
use super::request_id::RequestId;
use super::survey::Values;
use crate::error::{Failure, Reason};

/// Says why the gateway itself answered.
const X_PORTOLAN_REASON: HeaderName = HeaderName::from_static("x-portolan-reason");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How the client wants to hear of a failure; read from the request before that is taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    form: Form,
    version: Version,
    has_body: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Text,
    Grpc,
}

#[derive(Serialize)]
struct Told<'a> {
    status: u16,
    reason: &'a str,
    message: &'a str,
    request_id: &'a str,
}

impl Manner {
    /// Reads it from a request of this version with these values.
    pub(crate) fn of(version: Version, values: &Values<'_>, has_body: bool) -> Self {
        Self { form: form(values), version, has_body }
    }

    /// The version of HTTP that the client speaks.
    pub(crate) fn version(self) -> Version {
        self.version
    }
}

/// The status that stands for a reason.
pub(crate) fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::BadRequest | Reason::ClientReset => StatusCode::BAD_REQUEST,
        Reason::NoRoute | Reason::UnknownPort | Reason::TargetForm => StatusCode::NOT_FOUND,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::TargetTooLong => StatusCode::URI_TOO_LONG,
        Reason::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
        Reason::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        // Never sent, because nobody is there to read it; nginx's word for it in logs.
        Reason::ClientClosed => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Reason::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
        Reason::ConnectFailed | Reason::UpstreamReset | Reason::UpstreamProtocol => StatusCode::BAD_GATEWAY,
        Reason::NoEndpoints | Reason::ConnectionLimit | Reason::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Reason::ConnectTimeout
        | Reason::ResponseTimeout
        | Reason::DeadlineExceeded
        | Reason::StreamIdleTimeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::LoopDetected => StatusCode::LOOP_DETECTED,
    }
}

/// Whether what follows on the connection cannot be trusted, so that it is closed after the answer.
fn closes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest
            | Reason::ClientReset
            | Reason::MethodNotAllowed
            | Reason::RequestTimeout
            | Reason::BodyTooLarge
            | Reason::HeadersTooLarge
            | Reason::TargetTooLong
            | Reason::ExpectationFailed
            | Reason::UnknownTransferCoding
            | Reason::Draining
    )
}

/// gRPC's word for a status (grpc.github.io, "HTTP to gRPC Status Code Mapping", and what its clients retry).
fn grpc_status(status: StatusCode) -> u8 {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => 12, // UNIMPLEMENTED
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => 8, // RESOURCE_EXHAUSTED
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,                   // DEADLINE_EXCEEDED
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14,                  // UNAVAILABLE
        status if status.is_client_error() => 13,                                         // INTERNAL
        _ => 2,                                                                           // UNKNOWN
    }
}

/// The answer to a request that failed here.
pub(crate) fn failure(failure: &Failure, manner: Manner, request_id: &RequestId) -> Response<Body> {
    let status = status(failure.reason);
    let mut response = match manner.form {
        Form::Grpc => grpc(failure, status),
        Form::Text => text(failure),
        Form::Json => json(failure, status, request_id),
    };
    if manner.form != Form::Grpc {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    headers.insert(X_PORTOLAN_REASON, HeaderValue::from_static(failure.reason.as_str()));
    headers.insert(X_REQUEST_ID, request_id.as_value());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if failure.reason == Reason::MethodNotAllowed {
        headers
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    // A body that is not read to its end leaves the connection in the middle of a message.
    if manner.version != Version::HTTP_2 && (manner.has_body || closes(failure.reason)) {
        close(headers);
    }
    response
}

/// The answer to a head that did not become a request, as HTTP/1.1 writes it; the connection closes behind it.
pub(crate) fn refusal(refused: &Failure) -> Bytes {
    let manner = Manner { form: Form::Json, version: Version::HTTP_11, has_body: true };
    let response = failure(refused, manner, &RequestId::new());
    let Body::Own(body) = response.body() else { return Bytes::new() };
    let status = response.status();
    let mut written = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    for (name, value) in response.headers() {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            written.extend_from_slice(piece);
        }
    }
    written.extend_from_slice(b"\r\n");
    written.extend_from_slice(body);
    written.into()
}

/// The answer to a head over HTTP/2 that did not become a request.
pub(crate) fn refusal_over_http2(refused: &Failure) -> Response<Body> {
    let manner = Manner { form: Form::Json, version: Version::HTTP_2, has_body: false };
    failure(refused, manner, &RequestId::new())
}

/// The answer to a request that is for the gateway itself (`OPTIONS *`, `Max-Forwards: 0`).
pub(crate) fn ourselves(request: &Parts) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    if request.method == http::Method::TRACE {
        // Only the request line: the header fields may carry secrets, and need not come back.
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("message/http"));
        *response.body_mut() = Body::Own(format!("TRACE {} HTTP/1.1\r\n\r\n", request.uri).into());
    }
    response
}

/// Asks the client to use another connection from now on.
pub(crate) fn close(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
}

fn form(values: &Values<'_>) -> Form {
    fn text(value: Option<&HeaderValue>) -> &str {
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
    if text(values.content_type).starts_with("application/grpc") {
        return Form::Grpc;
    }
    let accept = text(values.accept);
    if accept.contains("text/") && !accept.contains("json") { Form::Text } else { Form::Json }
}

fn json(failure: &Failure, status: StatusCode, request_id: &RequestId) -> Response<Body> {
    let told = Told {
        status: status.as_u16(),
        reason: failure.reason.as_str(),
        message: &failure.message,
        request_id: &request_id.as_text(),
    };
    let mut body = serde_json::to_vec(&told).expect("a struct of texts and a number is valid JSON");
    // For people at a terminal.
    body.push(b'\n');
    own("application/json", body.into())
}

fn text(failure: &Failure) -> Response<Body> {
    own("text/plain; charset=utf-8", format!("{failure}\n").into())
}

fn own(content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Own(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A response that consists of its trailers alone, which is how gRPC tells of a failure.
fn grpc(failure: &Failure, status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(grpc_status(status))));
    if let Ok(message) = HeaderValue::from_str(&failure.message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::survey::Survey;
    use super::*;

    fn manner(name: HeaderName, value: &'static str) -> Manner {
        let mut request = http::Request::new(());
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        let (_, values) = Survey::with_values(request.headers());
        Manner::of(Version::HTTP_11, &values, false)
    }

    #[test]
    fn the_form_follows_the_request() {
        for (name, value, expected) in [
            (header::ACCEPT, "*/*", Form::Json),
            (header::ACCEPT, "text/html, */*", Form::Text),
            (header::ACCEPT, "text/plain, application/json", Form::Json),
            (header::CONTENT_TYPE, "application/grpc+proto", Form::Grpc),
        ] {
            assert_eq!(manner(name, value).form, expected, "{value}");
        }
    }

    #[test]
    fn the_reason_stands_in_header_and_body_and_grpc_gets_its_own_status() {
        let id = RequestId::Given(HeaderValue::from_static("r1"));
        let told = Failure::new(Reason::NoEndpoints, "nobody is \"there\"");
        let response = failure(&told, manner(header::ACCEPT, "*/*"), &id);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["x-portolan-reason"], "no_endpoints");
        let Body::Own(body) = response.body() else { panic!("a body of our own") };
        assert_eq!(
            body,
            "{\"status\":503,\"reason\":\"no_endpoints\",\"message\":\"nobody is \\\"there\\\"\",\"request_id\":\"r1\"}\n"
        );
        let response = failure(&told, manner(header::CONTENT_TYPE, "application/grpc"), &id);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &HeaderValue::from_static("14"))
        );
    }

    #[test]
    fn every_reason_has_an_error_status() {
        for reason in Reason::ALL {
            let status = status(reason);
            assert!(status.is_client_error() || status.is_server_error(), "{reason:?}");
        }
    }
}
