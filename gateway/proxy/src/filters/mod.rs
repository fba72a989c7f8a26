//! What a rule does to a message: the model says what, each file here how.
//!
//! A chain is a slice of the model's own enum and is dispatched statically. None of today's filters waits for
//! anything, so a chain has no await point, and none touches the response.

mod rewrite_host;
mod strip_prefix;

use portolan_model::Filter;

use crate::http::outbound::Outbound;

/// Runs a rule's filters on a request, in their order.
pub(crate) fn on_request(chain: &[Filter], request: &mut Outbound) {
    for filter in chain {
        match filter {
            Filter::StripPrefix(prefix) => strip_prefix::apply_request(prefix, request),
            Filter::RewriteHost(host) => rewrite_host::apply_request(host, &mut request.parts),
        }
    }
}
