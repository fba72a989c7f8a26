//! HTTP/1.1 as bytes, without a connection: what is read and written, apart from who reads and writes it.

pub(crate) mod request;
