//! One request and its response, from the client's bytes to the endpoint's and back. Start reading at [`proxy`].

mod affinity;
pub(crate) mod body;
pub(crate) mod client_body;
pub(crate) mod exchange;
pub(crate) mod headers;
pub(crate) mod http2_body;
pub(crate) mod outbound;
pub(crate) mod proxy;
pub(crate) mod request;
pub(crate) mod request_id;
pub(crate) mod respond;
pub(crate) mod spare_headers;
mod strangers;
pub(crate) mod survey;
pub(crate) mod trailers;
