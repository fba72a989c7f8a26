//! What somebody asks of `/explain`, as a question to the routing table.

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
        let role = match self.listener.as_deref() {
            None | Some("edge") => Role::Edge,
            Some("cluster") => Role::Cluster,
            Some(other) => return Err(format!("listener={other}: edge or cluster is expected")),
        };
        let method = self.method.as_deref().unwrap_or("GET");
        Question::parse(role, method, &self.url).map_err(|error| error.to_string())
    }
}
