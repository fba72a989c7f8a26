//! The token before the admin pages.
//!
//! Its file is followed as that of every [`FileSetting`] is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use portolan_model::Finding;
use tokio::sync::watch;

use crate::file_setting::FileSetting;

const SETTING: FileSetting = FileSetting {
    value: "the admin token",
    flag: "admin-token-file",
    reason: "UnusableAdminToken",
    failed: "the admin token cannot be read",
    meanwhile: "The token that was last read counts on until the file has another",
};

/// What callers of the admin pages must send. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The token as it stands in its file, and what is wrong with the file.
#[derive(Debug, Clone)]
pub(crate) struct Followed {
    /// The last good one.
    pub(crate) token: watch::Receiver<Token>,
    /// Why that is not what stands in the file now, if it is so.
    pub(crate) findings: watch::Receiver<Arc<Vec<Finding>>>,
}

impl Token {
    /// Reads the token from a file and follows the file from then on: another token counts a moment later, and a file
    /// that has none changes nothing.
    ///
    /// # Errors
    /// The file has no token now.
    pub(crate) fn follow(path: PathBuf) -> anyhow::Result<Followed> {
        let (token_out, token) = watch::channel(Self::read(&path)?);
        let findings = SETTING.follow(
            move || Self::read(&path),
            move |read| {
                token_out.send_if_modified(|token| {
                    let differs = *token != read;
                    *token = read;
                    differs
                })
            },
        );
        Ok(Followed { token, findings })
    }

    /// Reads the token from a file; white space around it does not count.
    ///
    /// # Errors
    /// The file cannot be read, or its token is too short to be one.
    fn read(path: &Path) -> anyhow::Result<Self> {
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
pub(super) fn guard(pages: Router, token: Option<watch::Receiver<Token>>) -> Router {
    let Some(token) = token else { return pages };
    pages.layer(from_fn(move |request: Request, next: Next| {
        let is_allowed = token.borrow().is_sent_in(request.headers());
        async move { if is_allowed { next.run(request).await } else { refusal() } }
    }))
}

fn refusal() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (StatusCode::UNAUTHORIZED, challenge, "send the admin token as Authorization: Bearer TOKEN\n")
        .into_response()
}
