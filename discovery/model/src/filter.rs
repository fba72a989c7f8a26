//! What a rule does to a message, as data. The data path compiles each into its own form.

use serde::{Deserialize, Serialize};

/// One change to a request on its way to the backend, or to the response on its way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// Takes this prefix off the path; what is left starts with a slash. The prefix has no trailing slash and is one
    /// that the rule's match guarantees. The prefix that was taken is told to the backend in `X-Forwarded-Prefix`.
    StripPrefix(String),
    /// Sends this `Host` to the backend instead of the client's own.
    RewriteHost(String),
}
