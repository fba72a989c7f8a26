//! HTTP/2 (RFC 9113) as bytes, without a socket: frames ([`frame`]), heads ([`hpack`]), what a request's head says
//! ([`head`]), windows ([`flow`]), streams ([`stream`]), what a client may do how often ([`allowance`]), and what all of
//! it makes of a client's connection ([`connection`]): bytes go in, requests come out, answers go in, bytes come out.

mod allowance;
pub(crate) mod connection;
mod flow;
pub(crate) mod frame;
mod head;
pub(crate) mod hpack;
mod output;
mod settings;
mod stream;

use std::cell::RefCell;
use std::rc::Rc;

pub(crate) use self::connection::Connection;
pub(crate) use self::frame::ErrorCode;
pub(crate) use self::settings::Settings;

/// A connection as the bodies of its requests and its answers hold it. A borrow lasts for one call, and no call polls
/// anything else.
pub(crate) type Shared = Rc<RefCell<Connection>>;
