//! What somebody asks of `/explain`, as a question to the routing table.

use http::{HeaderMap, Method, Uri};
use portolan_model::Role;
use portolan_proxy::table::Question;
use serde::Deserialize;

/// The query of `/explain`.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    url: String,
    method: Option<String>,
    listener: Option<String>,
}

impl Asked {
    /// The question, or what is wrong with the query.
    pub(super) fn question(&self) -> Result<Question, String> {
        let uri: Uri = self
            .url
            .parse()
            .map_err(|error| format!("url={}: {error}; http://HOST/PATH or /PATH is expected", self.url))?;
        let method = self.method.as_deref().unwrap_or("GET");
        let method = method
            .parse::<Method>()
            .map_err(|_| format!("method={method}: a method such as GET is expected"))?;
        let role = match self.listener.as_deref() {
            None | Some("edge") => Role::Edge,
            Some("cluster") => Role::Cluster,
            Some(other) => return Err(format!("listener={other}: edge or cluster is expected")),
        };
        Ok(Question {
            role,
            host: uri.host().map(str::to_ascii_lowercase),
            port: uri.port_u16(),
            method,
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            headers: HeaderMap::new(),
        })
    }
}
