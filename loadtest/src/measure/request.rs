//! Requests as they go over the wire, made once.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use super::Plan;

/// One request of the mix.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The method.
    pub method: Method,
    /// A path with its query.
    pub path: Uri,
    /// Fields beside `host` and `content-length`.
    pub headers: HeaderMap,
    /// The body; empty sends none.
    pub body: Bytes,
    /// Its share, relative to the others.
    pub weight: f64,
}

/// The same, ready to be written.
#[derive(Debug)]
pub(super) struct Wired {
    /// Head and body for HTTP/1.1.
    pub(super) bytes: Vec<u8>,
    /// Whether the answer has no body.
    pub(super) is_head: bool,
    /// The head for HTTP/2.
    pub(super) head: http::Request<()>,
    pub(super) body: Bytes,
}

impl Shot {
    /// A GET of this path.
    ///
    /// # Panics
    /// If it is no path.
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.parse().expect("the caller passes a valid path"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            weight: 1.0,
        }
    }

    pub(super) fn wired(&self, plan: &Plan, close: bool) -> Wired {
        Wired {
            bytes: self.bytes(plan, close),
            is_head: self.method == Method::HEAD,
            head: self.head(plan),
            body: self.body.clone(),
        }
    }

    /// A method that comes with a body says how long it is, also when there is none.
    fn length(&self) -> Option<usize> {
        let carries = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        (carries || !self.body.is_empty()).then_some(self.body.len())
    }

    fn bytes(&self, plan: &Plan, close: bool) -> Vec<u8> {
        let path = self.path.path_and_query().map_or("/", |path| path.as_str());
        let mut bytes = format!("{} {path} HTTP/1.1\r\n", self.method).into_bytes();
        let mut field = |name: &str, value: &[u8]| {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        };
        field("host", plan.authority.as_bytes());
        for (name, value) in &self.headers {
            field(name.as_str(), value.as_bytes());
        }
        if let Some(length) = self.length() {
            field("content-length", length.to_string().as_bytes());
        }
        if close {
            field("connection", b"close");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn head(&self, plan: &Plan) -> http::Request<()> {
        let mut request = http::Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        let scheme = if plan.tls.is_some() { "https" } else { "http" };
        let path = self.path.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("{scheme}://{}{path}", plan.authority)
            .parse()
            .expect("an authority and a path that were parsed make a URL");
        *request.headers_mut() = self.headers.clone();
        if let Some(length) = self.length() {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        request
    }
}
