//! One answer.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::watch;

use super::{End, Mode, Switches};

const X_UPSTREAM: HeaderName = HeaderName::from_static("x-upstream");
const X_VERSION: HeaderName = HeaderName::from_static("x-version");
/// The longest body that is asked for by a request.
const LONGEST_BODY: u64 = 64 << 20;

/// Makes the answers of one upstream.
#[derive(Debug)]
pub(super) struct Answerer {
    name: HeaderValue,
    version: HeaderValue,
    small: Bytes,
    switches: Arc<Switches>,
    end: watch::Sender<End>,
}

/// A connection that is to end without an answer, or with a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// With a reset.
    Reset,
    /// With a plain close.
    Close,
}

/// A whole body, or one that breaks off.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Whole(Full<Bytes>),
    Cut { begun: Option<Bytes>, promised: u64, sent: bool },
}

impl Answerer {
    pub(super) fn new(name: &str, version: &str, switches: Arc<Switches>, end: watch::Sender<End>) -> Self {
        let small = format!("{}\n", json!({ "upstream": name, "version": version })).into();
        // What no field can hold is still in the body.
        let field = |text| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("(unprintable)"));
        Self { name: field(name), version: field(version), small, switches, end }
    }

    /// Answers a request that came in at the address `local`.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        local: SocketAddr,
    ) -> Result<Response<AnswerBody>, Dropped> {
        let (head, mut body) = request.into_parts();
        let mut received = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Dropped::Close)?;
            received += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        match (&head.method, head.uri.path()) {
            (_, "/healthz" | "/readyz") => return Ok(self.health(self.switches.is_ready())),
            (_, "/livez") => return Ok(self.health(self.switches.is_healthy())),
            (&Method::PUT, "/crash") => return self.crash().await,
            (&Method::PUT, "/switches") => return Ok(self.turn(head.uri.query().unwrap_or_default())),
            _ => {}
        }
        self.switches.count_request();
        let latency = self.switches.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let content = self.content(&head, received, local);
        match self.switches.failure() {
            None => Ok(self.response(StatusCode::OK, content)),
            Some(Mode::Status(status)) => Ok(self.response(
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                content,
            )),
            Some(Mode::Reset) => Err(Dropped::Reset),
            Some(Mode::CutBody) => Ok(self.cut(&content)),
            Some(Mode::Hang) => std::future::pending().await,
        }
    }

    fn health(&self, good: bool) -> Response<AnswerBody> {
        if good {
            self.response(StatusCode::OK, Bytes::from_static(b"ok\n"))
        } else if self.switches.is_healthy() {
            self.response(StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"not ready\n"))
        } else {
            self.response(StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"sick\n"))
        }
    }

    /// No answer: the server ends, and this connection with it.
    async fn crash(&self) -> Result<Response<AnswerBody>, Dropped> {
        self.end.send_replace(End::Crash);
        std::future::pending().await
    }

    fn turn(&self, query: &str) -> Response<AnswerBody> {
        match self.switches.turn(query) {
            Ok(()) => self.response(StatusCode::OK, Bytes::from_static(b"turned\n")),
            Err(error) => self.response(StatusCode::BAD_REQUEST, format!("{error:#}\n").into()),
        }
    }

    fn content(&self, head: &http::request::Parts, received: u64, local: SocketAddr) -> Bytes {
        let query = head.uri.query().unwrap_or_default();
        if query.split('&').any(|part| part == "echo") {
            return self.echo(head, received, local);
        }
        let asked = query.split('&').find_map(|part| part.strip_prefix("body=")?.parse::<u64>().ok());
        match asked.unwrap_or_else(|| self.switches.body_bytes()).min(LONGEST_BODY) {
            0 => self.small.clone(),
            size => vec![b'.'; usize::try_from(size).unwrap_or(0)].into(),
        }
    }

    fn echo(&self, head: &http::request::Parts, received: u64, local: SocketAddr) -> Bytes {
        let fields: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| {
                [name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()]
            })
            .collect();
        let echo = json!({
            "upstream": String::from_utf8_lossy(self.name.as_bytes()),
            "version": String::from_utf8_lossy(self.version.as_bytes()),
            "local": local,
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "path": head.uri.path(),
            "headers": fields,
            "body_bytes": received,
        });
        format!("{echo}\n").into()
    }

    fn response(&self, status: StatusCode, content: Bytes) -> Response<AnswerBody> {
        self.with_body(status, AnswerBody::Whole(Full::new(content)))
    }

    fn cut(&self, content: &Bytes) -> Response<AnswerBody> {
        let half = content.slice(..content.len() / 2);
        self.with_body(
            StatusCode::OK,
            AnswerBody::Cut { begun: Some(half), promised: content.len() as u64, sent: false },
        )
    }

    fn with_body(&self, status: StatusCode, body: AnswerBody) -> Response<AnswerBody> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(X_UPSTREAM, self.name.clone());
        headers.insert(X_VERSION, self.version.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Cut { begun, sent, .. } => match begun.take() {
                Some(begun) => Poll::Ready(Some(Ok(Frame::data(begun)))),
                // What has begun is flushed while nothing more comes; only then may the body fail.
                None if !*sent => {
                    *sent = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(Some(Err(Dropped::Close))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Cut { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Cut { promised, .. } => SizeHint::with_exact(*promised),
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the switches ask for no answer")
    }
}

impl std::error::Error for Dropped {}
