//! Requests as bytes.
//!
//! Everything is appended to one [`Outgoing`], so that a head and the first piece of its body go out in one write.

use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Malformed;
use super::framing::Framing;
use super::outgoing::Outgoing;
use crate::http::outbound::Outbound;

/// Appends the head of a request, in origin form. Its fields say how its body is framed: they are written as they are.
/// HTTP/1.1 must name a host, which an HTTP/1.0 client may leave out: then the endpoint's address is named.
pub(crate) fn request_head(request: &Outbound, endpoint: SocketAddr, out: &mut Outgoing) {
    let out = out.made();
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !request.names_host() {
        write!(out, "host: {endpoint}\r\n").expect("memory takes whatever is written to it");
    }
    fields_of(&request.headers, out);
    request.write_added(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the body of one request.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes are still to be written.
    Length(u64),
    Chunked,
    Ended,
}

impl BodyWriter {
    /// There is no body.
    pub(crate) fn none() -> Self {
        Self { state: State::Ended }
    }

    /// Writes a body as these fields of its head say.
    ///
    /// # Errors
    /// If readers may differ over it.
    pub(crate) fn of_request(headers: &HeaderMap) -> Result<Self, Malformed> {
        Framing::of_request(headers).map(Self::new)
    }

    /// Writes a body that is framed like this. One that only the end of the connection could end is none.
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) | Framing::UntilClose => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked,
        };
        Self { state }
    }

    /// Whether all of the body has been appended.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Appends a piece of the body.
    ///
    /// # Errors
    /// If there is more of it than its head says.
    pub(crate) fn data(&mut self, data: Bytes, out: &mut Outgoing) -> Result<(), Malformed> {
        match &mut self.state {
            // An empty chunk would be the last.
            _ if data.is_empty() => {}
            State::Chunked => {
                chunk_size(data.len(), out.made());
                out.append(data, b"\r\n");
            }
            State::Length(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or(Malformed::TooLarge("the body of the request"))?;
                out.append(data, b"");
            }
            State::Ended => return Err(Malformed::TooLarge("the body of the request")),
        }
        Ok(())
    }

    /// Appends the end of the body. Not to be called again.
    ///
    /// # Errors
    /// If there is less of it than its head says.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Outgoing) -> Result<(), Malformed> {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Length(0) | State::Ended => Ok(()),
            State::Length(_) => Err(Malformed::Truncated),
            State::Chunked => {
                let out = out.made();
                out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    fields_of(trailers, out);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

fn chunk_size(size: usize, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = size.max(1).ilog2() / 4 + 1;
    for digit in (0..digits).rev() {
        out.push(DIGITS[size >> (digit * 4) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

fn fields_of(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in headers {
        field(name, value, out);
    }
}

/// Appends a field.
pub(crate) fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + ": \r\n".len());
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use http::Request;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::body::{BodyReader, Piece};
    use super::*;

    fn written(out: &Outgoing) -> Vec<u8> {
        out.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn head(request: http::request::Builder) -> String {
        let mut out = Outgoing::default();
        let request = Outbound::from(request.body(()).unwrap().into_parts().0);
        request_head(&request, ([192, 0, 2, 1], 80).into(), &mut out);
        String::from_utf8(written(&out)).unwrap()
    }

    fn writer(fields: &[(&'static str, &'static str)]) -> Result<BodyWriter, Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        BodyWriter::of_request(&headers)
    }

    #[test]
    fn a_head_is_written_in_origin_form() {
        let request = Request::put("http://a.example/b?c=d").header("host", "a").header("x", "\u{e9}");
        assert_eq!(head(request), "PUT /b?c=d HTTP/1.1\r\nhost: a\r\nx: \u{e9}\r\n\r\n");
        assert_eq!(head(Request::options("*").header("host", "")), "OPTIONS * HTTP/1.1\r\nhost: \r\n\r\n");
        assert_eq!(head(Request::get("/")), "GET / HTTP/1.1\r\nhost: 192.0.2.1:80\r\n\r\n");
    }

    #[test]
    fn trailers_end_a_body() {
        let mut out = Outgoing::default();
        let mut body = writer(&[("transfer-encoding", "chunked")]).unwrap();
        body.data(Bytes::new(), &mut out).unwrap();
        body.data(Bytes::from_static(&[b'x'; 16]), &mut out).unwrap();
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "a".parse().unwrap())]);
        body.end(Some(&trailers), &mut out).unwrap();
        assert!(body.is_ended());
        assert_eq!(written(&out), b"10\r\nxxxxxxxxxxxxxxxx\r\n0\r\netag: a\r\n\r\n");
    }

    #[test]
    fn a_body_is_as_long_as_its_head_says() {
        for (pieces, all_taken, ended) in [
            (&["hel", "lo"][..], true, Ok(())),
            (&["hel"], true, Err(Malformed::Truncated)),
            (&["hello", "!"], false, Ok(())),
        ] {
            let mut out = Outgoing::default();
            let mut body = writer(&[("content-length", "5")]).unwrap();
            let taken = pieces.iter().all(|piece| body.data(Bytes::from(*piece), &mut out).is_ok());
            assert_eq!((taken, body.end(None, &mut out)), (all_taken, ended), "{pieces:?}");
        }
        assert!(writer(&[("content-length", "0")]).unwrap().is_ended());
        assert!(writer(&[]).unwrap().is_ended());
        assert!(writer(&[("content-length", "5"), ("content-length", "5")]).is_err());
        assert!(writer(&[("content-length", "5"), ("transfer-encoding", "chunked")]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(
            pieces in vec(prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 16380..16390)], 0..5),
        ) {
            let mut wire = BytesMut::new();
            let mut out = Outgoing::default();
            let mut body = writer(&[("transfer-encoding", "chunked")]).unwrap();
            for piece in &pieces {
                if !out.has_room() {
                    wire.extend_from_slice(&written(&out));
                    out = Outgoing::default();
                }
                body.data(Bytes::from(piece.clone()), &mut out).unwrap();
            }
            if !out.has_room() {
                wire.extend_from_slice(&written(&out));
                out = Outgoing::default();
            }
            body.end(None, &mut out).unwrap();
            wire.extend_from_slice(&written(&out));
            let mut reader = BodyReader::new(Framing::Chunked);
            let mut data = Vec::new();
            while let Piece::Data(bytes) = reader.take(&mut wire).unwrap().unwrap() {
                data.extend_from_slice(&bytes);
            }
            prop_assert_eq!(data, pieces.concat());
            prop_assert!(wire.is_empty());
        }
    }
}
