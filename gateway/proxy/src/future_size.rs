//! How large the futures on the way of a request are, pinned: they are moved and kept for each connection and request,
//! and a value that lives over one more await makes them grow unseen.

use std::rc::Rc;

use http::Request;

use crate::http::client_body::ClientBody;
use crate::http::proxy::forward;
use crate::listener::Client;

/// The size of the future that a function makes, without making it.
pub(crate) fn future_size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

/// A future may be as large as it is and a little more, for small changes; much smaller, and the limit is to follow.
#[track_caller]
pub(crate) fn assert_size(what: &str, size: usize, limit: usize) {
    assert!(
        size <= limit,
        "{what} is {size} bytes and may be {limit}: find what lives over an await and need not, or box what is seldom \
         needed; if it must be, raise the limit"
    );
    assert!(size * 5 >= limit * 4, "{what} is only {size} bytes: lower its limit of {limit}");
}

#[test]
fn forwarding_a_request() {
    let forwarding = |(client, request): (Rc<Client>, Request<ClientBody>)| forward(client, request);
    assert_size("what forwards a request", future_size(forwarding), 2992);
}
