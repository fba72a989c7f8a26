//! The token before the admin pages.

use std::path::Path;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};

/// What callers of the admin pages must send. Never shown.
#[derive(Clone)]
pub(crate) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Reads the token from a file; white space around it does not count.
    ///
    /// # Errors
    /// The file cannot be read, or its token is too short to be one.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--admin-token-file {} cannot be read", path.display()))?;
        let token = text.trim();
        ensure!(
            token.len() >= 16,
            "--admin-token-file {}: a token of at least 16 characters is expected",
            path.display()
        );
        Ok(Self(token.to_owned()))
    }

    fn is_sent_in(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        sent.and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|sent| same(sent.as_bytes(), self.0.as_bytes()))
    }
}

/// Compares in a time that does not tell how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

/// Lets only callers with the token through; everybody where there is none.
pub(super) fn guard(pages: Router, token: Option<Token>) -> Router {
    let Some(token) = token else { return pages };
    pages.layer(from_fn(move |request: Request, next: Next| {
        let token = token.clone();
        async move { if token.is_sent_in(request.headers()) { next.run(request).await } else { refusal() } }
    }))
}

fn refusal() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, "send the admin token as Authorization: Bearer TOKEN\n")
        .into_response()
}
