//! Reading answers of HTTP/1.1 as they come in pieces, without keeping more than a head that is not complete yet.

use httparse::Status;

use crate::chunked::Chunk;

/// The longest head that is read.
const LONGEST_HEAD: usize = 64 << 10;
/// The most fields in a head.
const MOST_FIELDS: usize = 100;

/// The answers on one connection, one after the other.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The beginning of a head, kept until the rest is there.
    pending: Vec<u8>,
    state: State,
    answer: Answer,
}

/// What an answer said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether the connection ends with it.
    pub(super) close: bool,
}

/// Where in an answer the reader is.
#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of the body are to come.
    Length(u64),
    /// Everything until the end of the connection.
    UntilClose,
    Chunk(Chunk),
}

/// How far a head says that its body goes.
#[derive(Debug)]
struct Head {
    status: u16,
    close: bool,
    length: Option<u64>,
    chunked: bool,
    http10: bool,
}

impl Answers {
    /// Whether nothing of an answer has come yet.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.state, State::Head) && self.pending.is_empty()
    }

    /// Takes what came in. Gives the answer once it is complete: then the next one may begin.
    ///
    /// # Errors
    /// If this is not HTTP, or more than was asked for.
    pub(super) fn feed(&mut self, bytes: &[u8], answers_head: bool) -> Result<Option<Answer>, &'static str> {
        let mut kept;
        let mut bytes = bytes;
        if !self.pending.is_empty() {
            kept = std::mem::take(&mut self.pending);
            kept.extend_from_slice(bytes);
            bytes = &kept;
        }
        while matches!(self.state, State::Head) {
            if bytes.is_empty() {
                return Ok(None);
            }
            let Some((head, length)) = Head::parse(bytes)? else {
                if bytes.len() > LONGEST_HEAD {
                    return Err("the head of the answer is too long");
                }
                self.pending = bytes.to_vec();
                return Ok(None);
            };
            bytes = &bytes[length..];
            // Answers of 1xx come before the one that counts. 101 would be the last word in HTTP, and is not asked for.
            if head.status >= 200 {
                self.begin(&head, answers_head)?;
            }
        }
        let rest = self.body(bytes)?;
        let complete = matches!(self.state, State::Length(0));
        if complete && rest > 0 {
            return Err("more than the answer");
        }
        if complete {
            self.state = State::Head;
            return Ok(Some(self.answer));
        }
        Ok(None)
    }

    /// The connection has ended: the answer, if that is how it was to end.
    pub(super) fn end(&mut self) -> Option<Answer> {
        matches!(self.state, State::UntilClose).then(|| {
            self.state = State::Head;
            self.answer
        })
    }

    fn begin(&mut self, head: &Head, answers_head: bool) -> Result<(), &'static str> {
        let bodiless = answers_head || head.status == 204 || head.status == 304;
        self.state = match (bodiless, head.chunked, head.length) {
            (true, _, _) => State::Length(0),
            (_, true, Some(_)) => return Err("both content-length and transfer-encoding"),
            (_, true, None) => State::Chunk(Chunk::START),
            (_, false, Some(length)) => State::Length(length),
            (_, false, None) => State::UntilClose,
        };
        let until_close = matches!(self.state, State::UntilClose);
        self.answer = Answer { status: head.status, close: head.close || head.http10 || until_close };
        Ok(())
    }

    /// Goes over bytes of the body; gives how many are beyond it.
    fn body(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        match &mut self.state {
            State::Head => Ok(bytes.len()),
            State::UntilClose => Ok(0),
            State::Length(left) => {
                let taken = (*left).min(bytes.len() as u64);
                *left -= taken;
                Ok(bytes.len() - taken as usize)
            }
            State::Chunk(chunk) => match chunk.feed(bytes, &mut 0)? {
                None => Ok(0),
                Some(taken) => {
                    self.state = State::Length(0);
                    Ok(bytes.len() - taken)
                }
            },
        }
    }
}

impl Head {
    /// The head at the beginning of these bytes with its length, once it is complete.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err("the answer is not HTTP/1.1"),
        };
        let mut head = Self {
            status: response.code.unwrap_or(0),
            close: false,
            length: None,
            chunked: false,
            http10: response.version == Some(0),
        };
        for field in response.headers.iter() {
            head.take(field)?;
        }
        Ok(Some((head, length)))
    }

    fn take(&mut self, field: &httparse::Header<'_>) -> Result<(), &'static str> {
        // The lengths tell most fields apart without comparing.
        match field.name.len() {
            10 if field.name.eq_ignore_ascii_case("connection") => {
                self.close |= field.value.eq_ignore_ascii_case(b"close");
            }
            14 if field.name.eq_ignore_ascii_case("content-length") => {
                let length = std::str::from_utf8(field.value).ok().and_then(|text| text.trim().parse().ok());
                self.length = Some(length.ok_or("the content-length is no number")?);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                self.chunked = field.value.eq_ignore_ascii_case(b"chunked");
                if !self.chunked {
                    return Err("a transfer-encoding other than chunked");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds it in pieces of this size.
    fn read(text: &str, piece: usize) -> Result<Option<Answer>, &'static str> {
        let mut answers = Answers::default();
        for bytes in text.as_bytes().chunks(piece) {
            if let Some(answer) = answers.feed(bytes, false)? {
                return Ok(Some(answer));
            }
        }
        Ok(answers.end())
    }

    #[test]
    fn answers_end_where_they_say_however_they_are_cut() {
        for (text, status, close) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", 200, false),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, false),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200, true),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\n.", 201, false),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200, false),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA;x=1\r\n0123456789\r\n00\r\nt: v\r\n\r\n",
                200,
                false,
            ),
            ("HTTP/1.1 503 Busy\r\n\r\nuntil the end", 503, true),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, true),
        ] {
            for piece in 1..=text.len() {
                assert_eq!(
                    read(text, piece),
                    Ok(Some(Answer { status, close })),
                    "{text:?} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (text, why) in [
            ("SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", "both"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nok", "more than"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n", "without a size"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "without a size"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nok", "longer than its size"),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                "more than 16 digits",
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", "other than chunked"),
        ] {
            let error = read(text, text.len()).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let mut answers = Answers::default();
        let answer = answers.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true).unwrap();
        assert_eq!(answer, Some(Answer { status: 200, close: false }));
        assert!(answers.is_fresh());
    }
}
