//! The routing table: which rule answers a request.
//!
//! [`RoutingTable::compile`] makes an immutable table of a snapshot; the [`Publisher`] swaps it in; a worker reads it
//! through an `arc_swap::Cache` and asks [`RoutingTable::find_http`]. Indices by host and path only narrow the
//! candidates: of the rules that match whole, the one of the lowest [`portolan_model::Rank`] wins, whatever the index
//! found first.

mod compile;
mod explain;
mod hosts;
mod matching;
mod paths;
mod publisher;
mod routing_table;
mod view;

#[cfg(test)]
mod tests;

pub use compile::CompiledRule;
pub use explain::{BackendReport, EndpointReport, Explanation, InvalidQuestion, PassedOver, Question};
pub use publisher::{Publication, Published, Publisher};
pub use routing_table::{NoMatch, RequestView, RoutingTable};
pub use view::{Census, ClusterView, EndpointView, RouteView, RuleView, TableView};
