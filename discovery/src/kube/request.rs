//! One request to the API server and what can go wrong with it.
//!
//! The client's own `Api` drops the response's header fields and has no time-outs, and a watch of it hides the bytes
//! that prove the connection lives. So requests go out as they are, here, and every failure becomes one type.

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

/// The largest answer that is not a stream. A page of 500 full slices is about 15 MB.
const MAX_ANSWER: usize = 256 << 20;

/// Of an error's text this much is kept.
const MAX_MESSAGE: usize = 300;

/// Why the API server did not give what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the API server gave no answer within {0:?}")]
    TimedOut(Duration),
    #[error("the API server answered {code}: {message}")]
    Answered { code: u16, message: String, retry_after: Option<Duration> },
    #[error("the API server's answer makes no sense: {0}")]
    Garbled(String),
    #[error("the watch ended before its time")]
    Ended,
    #[error("the API server is at version {heard} where it had been at {asked}: its store was put back")]
    WentBack { asked: u64, heard: u64 },
}

impl Failure {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Answered { code, .. } => Some(*code),
            Self::Unreachable(_)
            | Self::TimedOut(_)
            | Self::Garbled(_)
            | Self::Ended
            | Self::WentBack { .. } => None,
        }
    }

    /// Whether a right is missing (or the credentials are not believed).
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// Whether the credentials are not believed: a token that has run out or whose key was changed, until a new one is
    /// in its file.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.code() == Some(401)
    }

    /// Whether somebody has to do something first: grant a right, create a namespace.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(403 | 404))
    }

    /// Whether the server wants to be asked less.
    pub(crate) fn is_throttling(&self) -> bool {
        self.code() == Some(429)
    }

    /// Whether the version asked for is too old.
    pub(crate) fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether a watch from the last version makes no sense any more.
    pub(crate) fn spoils_version(&self) -> bool {
        self.is_gone() || matches!(self, Self::WentBack { .. })
    }

    /// Whether the API server was not there to answer; a refusal is an answer.
    pub(crate) fn is_loss_of_touch(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut(_) | Self::Garbled(_) | Self::Ended => true,
            Self::Answered { code, .. } => *code >= 500,
            Self::WentBack { .. } => false,
        }
    }

    /// Whether no such object (or kind) exists.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the request as such was not understood: what an API server without streaming lists says to one.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self.code(), Some(400 | 405 | 406 | 422 | 501))
    }

    /// When the server wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            Self::Unreachable(_)
            | Self::TimedOut(_)
            | Self::Garbled(_)
            | Self::Ended
            | Self::WentBack { .. } => None,
        }
    }

    /// A word for the metric's label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut(_) => "timed_out",
            Self::Garbled(_) => "garbled",
            Self::Ended => "ended",
            Self::WentBack { .. } => "went_back",
            Self::Answered { code: 401, .. } => "unauthenticated",
            Self::Answered { code: 403, .. } => "denied",
            Self::Answered { code: 410, .. } => "expired",
            Self::Answered { code: 429, .. } => "throttled",
            Self::Answered { code: 500..=599, .. } => "server_error",
            Self::Answered { .. } => "refused",
        }
    }
}

/// Sends `request` and gives the answer once its head says success.
pub(crate) async fn send(
    client: &Client,
    request: Request<Vec<u8>>,
    limit: Duration,
) -> Result<Response<Body>, Failure> {
    let deadline = Instant::now() + limit;
    let answer = timeout_at(deadline, client.send(request.map(Body::from))).await;
    let response = answer.map_err(|_| Failure::TimedOut(limit))?.map_err(|error| unreachable(&error))?;
    if response.status().is_success() {
        return Ok(response);
    }
    let (status, retry_after) = (response.status(), retry_after(response.headers()));
    // A body that cannot be read must not hide the status.
    let body = timeout_at(deadline, read(response.into_body())).await;
    Err(answered(status, &body.ok().and_then(Result::ok).unwrap_or_default(), retry_after))
}

/// Sends `request` and reads the whole answer as JSON.
pub(crate) async fn fetch<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
    limit: Duration,
) -> Result<T, Failure> {
    let bytes = fetch_bytes(client, request, limit).await?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::Garbled(error.to_string()))
}

/// Sends `request` and reads the whole answer.
pub(crate) async fn fetch_bytes(
    client: &Client,
    request: Request<Vec<u8>>,
    limit: Duration,
) -> Result<Vec<u8>, Failure> {
    let deadline = Instant::now() + limit;
    let response = send(client, request, limit).await?;
    timeout_at(deadline, read(response.into_body())).await.map_err(|_| Failure::TimedOut(limit))?
}

/// The failure that an error object inside a watch stands for.
pub(crate) fn from_status(status: &kube::core::Status) -> Failure {
    let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    Failure::Answered {
        code: status.code,
        message: shortened(&status.message),
        retry_after: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
    }
}

async fn read(mut body: Body) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreachable(&error))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > MAX_ANSWER {
                return Err(Failure::Garbled(format!("it is larger than {MAX_ANSWER} bytes")));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes)
}

/// The failure that an error of the client stands for.
pub(crate) fn unreachable(error: &kube::Error) -> Failure {
    // The client's own word in front ("ServiceError") says nothing to whoever reads it.
    Failure::Unreachable(match error {
        kube::Error::Service(inner) => causes(inner.as_ref()),
        other => causes(other),
    })
}

/// The failure that an error of one call of an `Api` stands for.
pub(crate) fn from_call(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => from_status(status),
        other => unreachable(other),
    }
}

fn answered(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Failure {
    match serde_json::from_slice::<kube::core::Status>(body) {
        Ok(said) if !said.message.is_empty() => {
            let said = from_status(&said);
            let retry_after = retry_after.or(said.retry_after());
            match said {
                Failure::Answered { message, .. } => {
                    Failure::Answered { code: status.as_u16(), message, retry_after }
                }
                other => other,
            }
        }
        Ok(_) | Err(_) => Failure::Answered {
            code: status.as_u16(),
            message: shortened(String::from_utf8_lossy(body).trim()),
            retry_after,
        },
    }
}

/// `Retry-After` in seconds; the API server never writes a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// An error with its causes: "client error (Connect)" alone tells nobody anything.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    shortened(&text)
}

pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_keeps_its_code_whatever_its_body_is() {
        let forbidden =
            br#"{"kind":"Status","status":"Failure","message":"services is forbidden","code":403}"#;
        for (code, body, message) in [
            (403, &forbidden[..], "services is forbidden"),
            (502, b"<html>bad gateway</html>", "<html>bad gateway</html>"),
            (500, b"", ""),
            (429, br#"{"kind":"Status","message":""}"#, r#"{"kind":"Status","message":""}"#),
            (422, b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            let status = StatusCode::from_u16(code).unwrap();
            let expected = Failure::Answered { code, message: message.into(), retry_after: None };
            assert_eq!(answered(status, body, None), expected);
        }
    }

    #[test]
    fn retry_after_comes_from_the_header_or_the_status() {
        let header = HeaderMap::from_iter([(http::header::RETRY_AFTER, "3".parse().unwrap())]);
        assert_eq!(retry_after(&header), Some(Duration::from_secs(3)));
        let date = HeaderMap::from_iter([(
            http::header::RETRY_AFTER,
            "Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap(),
        )]);
        assert_eq!(retry_after(&date), None);
        let body = br#"{"message":"busy","details":{"retryAfterSeconds":5}}"#;
        let failure = answered(StatusCode::TOO_MANY_REQUESTS, body, None);
        assert_eq!(failure.retry_after(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = "ü".repeat(1000);
        assert_eq!(shortened(&text).chars().count(), MAX_MESSAGE + 1);
        assert_eq!(shortened("short"), "short");
    }
}
