//! The token in a file, as the kubelet keeps it: read anew for each request.
//!
//! A token that was revoked, because the key of the API server was changed, is replaced in its file at any moment and
//! without notice, and a watch must go on with the new one at its next attempt. The file is short and in memory, and
//! there is a request every few seconds: nothing is gained by keeping what was read.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};

/// A file with a bearer token. Clones share the last good one.
#[derive(Debug, Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
    /// What was read last: it counts while the file cannot be read.
    last: Arc<Mutex<HeaderValue>>,
}

impl TokenFile {
    /// Reads the token for the first time.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub(super) fn read(path: impl Into<PathBuf>) -> Result<Self, String> {
        let path = path.into();
        let last = Arc::new(Mutex::new(header(&path)?));
        Ok(Self { path, last })
    }

    /// The request with the token as it stands in the file now.
    pub(super) fn sign<B>(&self, mut request: Request<B>) -> Request<B> {
        request.headers_mut().insert(AUTHORIZATION, self.current());
        request
    }

    fn current(&self) -> HeaderValue {
        let read = header(&self.path);
        // Nothing panics while it is held, and each value in it is whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(token) => *last = token,
            Err(why) => tracing::debug!(why, "the token that was last read is used on"),
        }
        last.clone()
    }
}

fn header(path: &PathBuf) -> Result<HeaderValue, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the token file {} cannot be read: {error}", path.display()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(format!("the token file {} is empty", path.display()));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| format!("the token file {} does not hold a token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_the_token_of_its_time_and_a_bad_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let problem = TokenFile::read(&path).unwrap_err();
        assert!(problem.contains("token cannot be read: No such file"), "{problem}");
        std::fs::write(&path, "one\n").unwrap();
        let file = TokenFile::read(&path).unwrap();
        let sent = || {
            let request = file.clone().sign(Request::new(()));
            request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
        };
        assert_eq!(sent(), "Bearer one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(sent(), "Bearer two");
        for nonsense in ["", " \n", "a\nb"] {
            std::fs::write(&path, nonsense).unwrap();
            assert_eq!(sent(), "Bearer two", "{nonsense:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sent(), "Bearer two");
    }
}
