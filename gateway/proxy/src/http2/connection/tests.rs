//! Sessions with a client that is played by hand, and by chance.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::frame::{FrameHeader, HEADER, MAX_PAYLOAD};
use super::super::hpack::Lacking;
use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LIMITS: Limits = Limits { max_bytes: 4096, max_fields: 20 };
const SETTINGS: Settings =
    Settings { max_streams: 10, stream_window: 20_000, connection_window: 70_000, max_head_bytes: 4096 };
/// `:method GET, :scheme https, :path /, :authority` with the value `a`, kept.
const GET: &[u8] = &[0x82, 0x87, 0x84, 0x41, 1, b'a'];
const POST: &[u8] = &[0x83, 0x87, 0x84, 0x41, 1, b'a'];

/// A frame that has been written to the client.
type Written = (Kind, u8, u32, Vec<u8>);

struct Session {
    connection: Connection,
}

impl Session {
    /// A connection whose client has said its settings; what that is answered with has been read.
    fn new() -> Self {
        let mut session = Self::silent();
        session.say(&[PREFACE, &frame(Kind::Settings, 0, 0, &[])].concat());
        let said: Vec<_> = session.heard().into_iter().map(|(kind, flags, ..)| (kind, flags)).collect();
        assert_eq!(said, [(Kind::Settings, 0), (Kind::WindowUpdate, 0), (Kind::Settings, 1)]);
        session
    }

    fn silent() -> Self {
        let connection = Connection::new(SETTINGS, LIMITS, Rc::default(), Instant::now());
        Self { connection }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.connection.receive(bytes).unwrap();
    }

    /// Says something that the connection does not survive.
    fn breaks(&mut self, bytes: &[u8]) -> ErrorCode {
        let broken = self.connection.receive(bytes).unwrap_err();
        let (kind, _, stream, payload) = self.heard().pop().unwrap();
        assert_eq!((kind, stream), (Kind::GoAway, 0));
        assert_eq!(frame::number(&payload[4..]), Some(broken.code as u32));
        broken.code
    }

    fn heard(&mut self) -> Vec<Written> {
        let output = self.connection.output();
        let mut bytes = output.waiting().to_vec();
        output.advance(bytes.len());
        let mut frames = Vec::new();
        while let Some(header) = FrameHeader::read(&bytes) {
            let rest = bytes.split_off(HEADER + header.length);
            frames.push((header.kind, header.flags, header.stream, bytes.split_off(HEADER)));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        frames
    }

    fn ask(&mut self, stream: u32) -> Asked {
        self.say(&frame(Kind::Headers, 5, stream, GET));
        self.connection.take_request().unwrap()
    }

    fn post(&mut self, stream: u32) -> Asked {
        self.say(&frame(Kind::Headers, 4, stream, POST));
        self.connection.take_request().unwrap()
    }

    fn body(&mut self, asked: &Asked) -> Poll<Piece> {
        self.connection.poll_body(asked.place, asked.stream, &Context::from_waker(Waker::noop()))
    }

    fn answer(&mut self, asked: &Asked, body: &'static [u8]) {
        self.connection.send_head(
            asked.place,
            StatusCode::OK,
            &HeaderMap::new(),
            &Lacking::default(),
            body.is_empty(),
        );
        if !body.is_empty() {
            let mut piece = Bytes::from_static(body);
            assert_eq!(self.connection.send_data(asked.place, &mut piece, true), Sent::Whole);
        }
        self.connection.free(asked.place);
    }
}

fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(kind, flags, stream, payload, &mut out);
    out
}

fn reset(frames: &[Written]) -> Option<(u32, u32)> {
    let found = frames.iter().find(|(kind, ..)| *kind == Kind::ResetStream);
    found.map(|(_, _, stream, payload)| (*stream, frame::number(payload).unwrap()))
}

#[tokio::test]
async fn a_request_is_answered() {
    let mut session = Session::new();
    let asked = session.ask(1);
    assert_eq!(asked.head.as_ref().unwrap().uri, "/");
    assert!(asked.body.is_none());
    session.answer(&asked, b"hello");
    assert_eq!(session.heard(), [(Kind::Headers, 4, 1, vec![0x88]), (Kind::Data, 1, 1, b"hello".to_vec())]);
    assert_eq!(session.connection.streams.taken(), 0);
}

#[tokio::test]
async fn a_body_is_given_in_pieces_and_its_room_given_back() {
    let mut session = Session::new();
    let asked = session.post(1);
    assert_eq!(asked.body, Some(None));
    assert!(session.body(&asked).is_pending());
    session.say(&frame(Kind::Data, 0, 1, &[b'x'; 9_000]));
    session.say(&frame(Kind::Data, 8, 1, &[&[99][..], &[b'y'; 400], &[0; 99]].concat()));
    let Poll::Ready(Piece::Data(data)) = session.body(&asked) else { panic!("there is data") };
    assert_eq!(data.len(), 9_400);
    assert_eq!(session.heard(), [], "that was less than half of a window");
    session.say(&frame(Kind::Data, 0, 1, &[b'x'; 1_000]));
    session.say(&frame(Kind::Headers, 5, 1, &[0, 1, b'a', 1, b'b']));
    let Poll::Ready(Piece::Data(_)) = session.body(&asked) else { panic!("there is data") };
    let Poll::Ready(Piece::End(Some(trailers))) = session.body(&asked) else { panic!("there are trailers") };
    assert_eq!(trailers["a"], "b");
    assert!(matches!(session.body(&asked), Poll::Ready(Piece::End(None))));
}

#[tokio::test]
async fn no_more_comes_than_there_is_room_for() {
    let mut session = Session::new();
    let asked = session.post(1);
    session.say(&frame(Kind::Data, 0, 1, &[0; 16_000]));
    session.say(&frame(Kind::Data, 0, 1, &[0; 4_001]));
    assert_eq!(reset(&session.heard()), Some((1, ErrorCode::FlowControlError as u32)));
    assert_eq!(session.connection.take_touched(), Some(asked.place));
    assert!(matches!(session.body(&asked), Poll::Ready(Piece::BrokeOff)));
    // What was held of it no longer takes any of the connection's window.
    assert_eq!(session.connection.memory().0, 0);
    session.connection.free(asked.place);
    for stream in [3, 5, 7] {
        session.post(stream);
        session.say(&frame(Kind::Data, 0, stream, &[0; 16_000]));
    }
    assert_eq!(session.breaks(&frame(Kind::Data, 0, 7, &[0; 4_000])), ErrorCode::FlowControlError);
}

#[tokio::test]
async fn an_answer_waits_for_its_window_and_for_the_connections() {
    let mut session = Session::new();
    session.say(&frame(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 5]));
    let asked = session.ask(1);
    session.connection.send_head(asked.place, StatusCode::OK, &HeaderMap::new(), &Lacking::default(), false);
    let mut piece = Bytes::from_static(b"hello, world");
    assert_eq!(session.connection.send_data(asked.place, &mut piece, true), Sent::Waits);
    assert_eq!(session.heard().pop().unwrap(), (Kind::Data, 0, 1, b"hello".to_vec()));
    assert_eq!(session.connection.take_next_in_line(), None);
    session.say(&frame(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 2]));
    assert_eq!(session.connection.take_next_in_line(), Some(asked.place));
    assert_eq!(session.connection.send_data(asked.place, &mut piece, true), Sent::Waits);
    // Settings move the windows of streams that are open.
    session.say(&frame(Kind::Settings, 0, 0, &[0, 4, 0, 1, 0, 0]));
    assert_eq!(session.connection.take_next_in_line(), Some(asked.place));
    let mut long = Bytes::from(vec![b'x'; 100_000]);
    assert_eq!(session.connection.send_data(asked.place, &mut long, true), Sent::Waits);
    let sent: usize = session.heard().iter().map(|(_, _, _, payload)| payload.len()).sum();
    assert!(sent < 65_600 && long.len() < 40_000, "{sent}, {}", long.len());
    // Its own window has room, the connection's has not.
    session.say(&frame(Kind::WindowUpdate, 0, 1, &[0, 1, 0, 0]));
    session.connection.send_data(asked.place, &mut long, true);
    assert_eq!(session.connection.take_next_in_line(), None);
    session.say(&frame(Kind::WindowUpdate, 0, 0, &[0, 1, 0, 0]));
    assert_eq!(session.connection.take_next_in_line(), Some(asked.place));
    assert_eq!(session.connection.send_data(asked.place, &mut long, true), Sent::Whole);
}

#[tokio::test]
async fn a_full_output_makes_answers_wait_in_turn() {
    let mut session = Session::new();
    session.say(&frame(Kind::Settings, 0, 0, &[0, 4, 0, 10, 0, 0]));
    session.say(&frame(Kind::WindowUpdate, 0, 0, &[0, 10, 0, 0]));
    let asked = [session.ask(1), session.ask(3)];
    let mut pieces = [(); 2].map(|()| Bytes::from(vec![0; 200_000]));
    for (asked, piece) in asked.iter().zip(&mut pieces) {
        assert_eq!(session.connection.send_data(asked.place, piece, true), Sent::Waits);
    }
    assert!(session.connection.output().waiting().len() < 64 * 1024 + MAX_PAYLOAD + HEADER);
    assert_eq!(session.connection.take_next_in_line(), None);
    for turn in [0, 1, 0, 1] {
        session.heard();
        assert_eq!(session.connection.take_next_in_line(), Some(asked[turn].place));
        assert_eq!(session.connection.send_data(asked[turn].place, &mut pieces[turn], true), Sent::Waits);
        assert_eq!(session.connection.take_next_in_line(), None, "the output is full");
    }
}

#[tokio::test]
async fn a_whole_answer_that_the_client_does_not_take_is_reset_in_the_end() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut session = Session::new();
    session.say(&frame(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 0]));
    let asked = [session.ask(1), session.ask(3), session.ask(5)];
    let mut piece = Bytes::from_static(b"answer");
    assert_eq!(session.connection.send_data(asked[0].place, &mut piece, true), Sent::Waits);
    // Of this one more is to come: its endpoint is watched.
    assert_eq!(session.connection.send_data(asked[1].place, &mut piece, false), Sent::Waits);
    let mut slow = piece.clone();
    assert_eq!(session.connection.send_data(asked[2].place, &mut slow, true), Sent::Waits);
    session.heard();
    let noticed = Instant::now() + 2 * PATIENCE;
    assert!(!session.connection.reset_stuck(noticed, PATIENCE));
    // One byte for the slow one.
    session.say(&frame(Kind::WindowUpdate, 0, 5, &[0, 0, 0, 1]));
    assert_eq!(session.connection.take_next_in_line(), Some(asked[2].place));
    assert_eq!(session.connection.send_data(asked[2].place, &mut slow, true), Sent::Waits);
    assert_eq!(session.heard(), [(Kind::Data, 0, 5, b"a".to_vec())]);
    assert!(!session.connection.reset_stuck(noticed + PATIENCE / 2, PATIENCE));
    assert!(session.connection.reset_stuck(noticed + PATIENCE, PATIENCE));
    assert_eq!(reset(&session.heard()), Some((1, ErrorCode::InternalError as u32)));
    assert_eq!(session.connection.take_touched(), Some(asked[0].place));
    assert_eq!(session.connection.take_touched(), None);
    assert!(session.connection.reset_stuck(noticed + 2 * PATIENCE, PATIENCE));
    assert_eq!(session.connection.take_touched(), Some(asked[2].place));
}

#[tokio::test]
async fn a_long_head_is_cut_into_frames() {
    let mut session = Session::new();
    let asked = session.ask(1);
    let mut headers = HeaderMap::new();
    headers.insert("x-long", HeaderValue::from_bytes(&[b'x'; 40_000]).unwrap());
    session.connection.send_head(asked.place, StatusCode::OK, &headers, &Lacking::default(), true);
    let frames: Vec<_> =
        session.heard().into_iter().map(|(kind, flags, _, payload)| (kind, flags, payload.len())).collect();
    assert_eq!(frames[..2], [(Kind::Headers, 1, MAX_PAYLOAD), (Kind::Continuation, 0, MAX_PAYLOAD)]);
    assert_eq!((frames.len(), frames[2].0, frames[2].1), (3, Kind::Continuation, 4));
}

#[tokio::test]
async fn a_rest_of_a_request_that_has_its_answer_is_not_wanted() {
    let mut session = Session::new();
    let asked = session.post(1);
    session.say(&frame(Kind::Data, 0, 1, b"some"));
    session.answer(&asked, b"enough");
    assert_eq!(reset(&session.heard()), Some((1, ErrorCode::NoError as u32)));
    session.say(&frame(Kind::Data, 0, 1, b"more"));
    session.say(&frame(Kind::Headers, 5, 1, &[0, 1, b'a', 1, b'b']));
    assert_eq!(session.heard(), [], "the client may not have known");
}

#[tokio::test]
async fn frames_have_their_places() {
    let head = |stream| frame(Kind::Headers, 5, stream, GET);
    for (before, wrong, code) in [
        (vec![], frame(Kind::Data, 1, 1, b"a"), ErrorCode::ProtocolError),
        (vec![], frame(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 1]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::ResetStream, 0, 1, &[0; 4]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::ResetStream, 0, 1, &[0; 5]), ErrorCode::FrameSizeError),
        (frame(Kind::Headers, 4, 1, POST), frame(Kind::Data, 8, 1, &[]), ErrorCode::FrameSizeError),
        (vec![], frame(Kind::Headers, 5, 2, GET), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Headers, 5, 0, GET), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Headers, 13, 1, &[9, 0x82]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Headers, 5, 1, &[0xff]), ErrorCode::CompressionError),
        (vec![], frame(Kind::Continuation, 4, 1, GET), ErrorCode::ProtocolError),
        (vec![], frame(Kind::PushPromise, 4, 1, &[0; 4]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Ping, 0, 0, &[0; 7]), ErrorCode::FrameSizeError),
        (vec![], frame(Kind::Ping, 0, 1, &[0; 8]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Settings, 0, 0, &[0; 5]), ErrorCode::FrameSizeError),
        (vec![], frame(Kind::Settings, 1, 0, &[0; 6]), ErrorCode::FrameSizeError),
        (vec![], frame(Kind::Settings, 0, 1, &[]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Settings, 0, 0, &[0, 4, 0xff, 0, 0, 0]), ErrorCode::FlowControlError),
        (vec![], frame(Kind::Priority, 0, 0, &[0; 5]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::GoAway, 0, 1, &[0; 8]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::WindowUpdate, 0, 0, &[0; 4]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::WindowUpdate, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), ErrorCode::FlowControlError),
        (vec![], frame(Kind::Unknown, 0, 0, &[0; MAX_PAYLOAD + 1]), ErrorCode::FrameSizeError),
        (head(5), head(3), ErrorCode::ProtocolError),
        ([head(5), frame(Kind::ResetStream, 0, 5, &[0; 4])].concat(), head(5), ErrorCode::StreamClosed),
        (frame(Kind::Headers, 1, 1, GET), frame(Kind::Data, 0, 1, b"a"), ErrorCode::ProtocolError),
        (frame(Kind::Headers, 1, 1, GET), frame(Kind::Continuation, 4, 3, b"a"), ErrorCode::ProtocolError),
        (frame(Kind::Headers, 4, 1, POST), frame(Kind::Data, 8, 1, &[5, 0]), ErrorCode::ProtocolError),
    ] {
        let mut session = Session::new();
        session.say(&before);
        assert_eq!(session.breaks(&wrong), code, "{wrong:?}");
        session.say(&head(7));
        assert!(session.connection.requests.len() <= 1, "nothing more is taken");
    }
    for begin in [&b"GET / HTTP/1.1"[..], &[PREFACE, &frame(Kind::Ping, 0, 0, &[0; 8])].concat()] {
        assert_eq!(Session::silent().breaks(begin), ErrorCode::ProtocolError);
    }
}

#[tokio::test]
async fn a_fault_on_a_stream_ends_that_alone() {
    let with_length = [POST, &[0x0f, 13, 1, b'5']].concat();
    for (begin, wrong, code) in [
        (vec![], frame(Kind::Headers, 5, 1, &[0x82, 0x87]), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Headers, 0x25, 1, &[&[0, 0, 0, 1, 0], GET].concat()), ErrorCode::ProtocolError),
        (vec![], frame(Kind::Headers, 5, 1, &with_length), ErrorCode::ProtocolError),
        (
            frame(Kind::Headers, 4, 1, &with_length),
            frame(Kind::Data, 1, 1, b"four"),
            ErrorCode::ProtocolError,
        ),
        (
            frame(Kind::Headers, 4, 1, &with_length),
            frame(Kind::Data, 0, 1, b"sixsix"),
            ErrorCode::ProtocolError,
        ),
        (frame(Kind::Headers, 4, 1, &with_length), frame(Kind::Headers, 5, 1, &[]), ErrorCode::ProtocolError),
        (frame(Kind::Headers, 4, 1, POST), frame(Kind::Headers, 4, 1, &[]), ErrorCode::ProtocolError),
        (frame(Kind::Headers, 4, 1, POST), frame(Kind::Headers, 5, 1, GET), ErrorCode::ProtocolError),
        (
            frame(Kind::Headers, 4, 1, POST),
            frame(Kind::WindowUpdate, 0, 1, &[0; 4]),
            ErrorCode::ProtocolError,
        ),
        (frame(Kind::Headers, 4, 1, POST), frame(Kind::Priority, 0, 1, &[0; 4]), ErrorCode::FrameSizeError),
        (frame(Kind::Headers, 5, 1, GET), frame(Kind::Data, 1, 1, b"a"), ErrorCode::StreamClosed),
        (frame(Kind::Headers, 5, 1, GET), frame(Kind::Headers, 5, 1, &[]), ErrorCode::StreamClosed),
        (
            frame(Kind::Headers, 5, 1, GET),
            frame(Kind::WindowUpdate, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            ErrorCode::FlowControlError,
        ),
    ] {
        let mut session = Session::new();
        session.say(&begin);
        session.say(&wrong);
        assert_eq!(reset(&session.heard()), Some((1, code as u32)), "{wrong:?}");
        assert!(
            session.connection.take_request().is_none(),
            "what nobody has begun with is not begun: {wrong:?}"
        );
        let asked = session.ask(3);
        session.answer(&asked, b"well");
        assert_eq!(session.heard().len(), 2);
    }
}

#[tokio::test]
async fn there_are_no_more_streams_than_allowed() {
    let mut session = Session::new();
    let asked: Vec<_> = (0..10).map(|number| session.ask(number * 2 + 1)).collect();
    session.say(&frame(Kind::Headers, 5, 21, GET));
    assert_eq!(reset(&session.heard()), Some((21, ErrorCode::RefusedStream as u32)));
    // One that was reset makes room at once, though its place is not free yet.
    session.say(&frame(Kind::ResetStream, 0, 1, &[0; 4]));
    session.ask(23);
    session.connection.free(asked[1].place);
    session.ask(25);
}

#[tokio::test]
async fn too_many_streams_are_no_offence_before_the_client_knows_the_limit() {
    let mut session = Session::new();
    let head = |number: u32| frame(Kind::Headers, 5, number * 2 + 1, GET);
    let too_many = (0..510).flat_map(head).collect::<Vec<_>>();
    session.say(&too_many);
    let heard = session.heard();
    let is_refused = |frame: &Written| frame.3 == (ErrorCode::RefusedStream as u32).to_be_bytes();
    assert_eq!((heard.len(), heard.iter().all(is_refused)), (500, true));
    session.say(&frame(Kind::Settings, 1, 0, &[]));
    let count = (510..10_000).take_while(|number| session.connection.receive(&head(*number)).is_ok()).count();
    assert_eq!(count, 100);
    // One that never says that it knows does not go on forever either.
    let mut session = Session::new();
    let count = (0..10_000).take_while(|number| session.connection.receive(&head(*number)).is_ok()).count();
    assert!(count <= 2010, "{count}");
}

#[tokio::test]
async fn what_costs_nothing_has_an_end() {
    let many = |one: Vec<u8>, most: usize| {
        let mut session = Session::new();
        session.post(1);
        let count = (0..10_000).take_while(|_| session.connection.receive(&one).is_ok()).count();
        assert_eq!(session.heard().pop().unwrap().3[7], ErrorCode::EnhanceYourCalm as u8);
        assert!(count <= most, "{count} of {one:?}");
    };
    many(frame(Kind::Settings, 0, 0, &[]), 100);
    many(frame(Kind::Ping, 0, 0, &[0; 8]), 2000);
    many(frame(Kind::Ping, 1, 0, &[0; 8]), 2000);
    many(frame(Kind::Priority, 0, 1, &[0; 5]), 2000);
    many(frame(Kind::WindowUpdate, 0, 0, &[0, 0, 0, 1]), 2000);
    many(frame(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 1]), 2000);
    many(frame(Kind::Unknown, 0, 0, &[]), 2000);
    many(frame(Kind::GoAway, 0, 0, &[0; 8]), 2000);
    many(frame(Kind::Data, 0, 1, &[]), 100);
    many(frame(Kind::Data, 8, 1, &[3, 0, 0, 0]), 100);
    many(frame(Kind::Settings, 1, 0, &[]), 2000);
}

#[tokio::test]
async fn what_costs_nothing_on_streams_that_have_ended_has_an_end() {
    let mut session = Session::new();
    let asked = session.post(1);
    session.answer(&asked, b"enough");
    let end = frame(Kind::Data, 1, 1, &[]);
    let count = (0..10_000).take_while(|_| session.connection.receive(&end).is_ok()).count();
    assert!(count <= 2000, "{count}");
    assert_eq!(session.heard().pop().unwrap().3[7], ErrorCode::EnhanceYourCalm as u8);
}

#[tokio::test]
async fn heads_that_come_too_late_have_an_end() {
    let mut session = Session::new();
    session.post(1);
    session.connection.leave();
    session.say(&frame(Kind::Ping, 1, 0, &GOING_AWAY));
    let head = |number: u32| frame(Kind::Headers, 5, number * 2 + 1, GET);
    let count = (1..10_000).take_while(|number| session.connection.receive(&head(*number)).is_ok()).count();
    assert!(count <= 2000, "{count}");
    assert_eq!(session.heard().pop().unwrap().3[7], ErrorCode::EnhanceYourCalm as u8);
}

#[tokio::test]
async fn requests_that_are_cancelled_at_once_have_an_end() {
    let mut session = Session::new();
    let mut streams = (1..).step_by(2);
    let mut cancel = |session: &mut Session| {
        let stream = streams.next().unwrap();
        let both = [frame(Kind::Headers, 5, stream, GET), frame(Kind::ResetStream, 0, stream, &[0; 4])];
        let received = session.connection.receive(&both.concat());
        assert!(session.connection.take_request().is_none(), "nobody begins with it");
        assert_eq!(session.connection.streams.taken(), 0);
        received
    };
    let count = (0..100_000).take_while(|_| cancel(&mut session).is_ok()).count();
    assert_eq!(count, 500);
    // Resets that are provoked.
    let mut session = Session::new();
    let malformed = |number: u32| frame(Kind::Headers, 5, number * 2 + 1, &[0x82]);
    let count =
        (0..100_000).take_while(|number| session.connection.receive(&malformed(*number)).is_ok()).count();
    assert_eq!(count, 100);
}

#[tokio::test]
async fn a_head_without_end_is_cut_short() {
    for payload in [&[][..], &[0; 3000]] {
        let mut session = Session::new();
        session.say(&frame(Kind::Headers, 1, 1, GET));
        let one = frame(Kind::Continuation, 0, 1, payload);
        let count = (0..100).take_while(|_| session.connection.receive(&one).is_ok()).count();
        assert!(count <= 6, "{count}");
        assert_eq!(session.heard().pop().unwrap().3[7], ErrorCode::EnhanceYourCalm as u8);
    }
}

#[tokio::test]
async fn a_head_that_is_small_on_the_wire_and_large_behind_it_is_refused() {
    let mut session = Session::new();
    // A field of 2000 bytes, kept, and then referred to as often as a frame has room for.
    let large = [GET, &[0x40, 1, b'x', 0x7f, 0xd1, 0x0e], &[b'y'; 2000]].concat();
    let bomb = [&large[..], &[0xbe; 10_000]].concat();
    session.say(&frame(Kind::Headers, 5, 1, &bomb));
    let asked = session.connection.take_request().unwrap();
    assert_eq!(asked.head.unwrap_err().reason, crate::error::Reason::HeadersTooLarge);
    // Tiny ones.
    session.say(&frame(Kind::Headers, 5, 3, &[GET, &[0x0f, 17, 1, b'c'][..], &[0x90; 2000]].concat()));
    let asked = session.connection.take_request().unwrap();
    assert_eq!(asked.head.unwrap_err().reason, crate::error::Reason::HeadersTooLarge);
}

#[tokio::test]
async fn a_connection_is_left_in_two_steps() {
    let mut session = Session::new();
    let first = session.ask(1);
    session.connection.leave();
    session.connection.leave();
    let said = session.heard();
    assert_eq!(said[0], (Kind::GoAway, 0, 0, vec![0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
    assert_eq!((said[1].0, said.len()), (Kind::Ping, 2));
    // The client has not known.
    let second = session.ask(3);
    session.answer(&first, b"one");
    session.say(&frame(Kind::Ping, 1, 0, &said[1].3));
    assert_eq!(session.heard().pop().unwrap(), (Kind::GoAway, 0, 0, vec![0, 0, 0, 3, 0, 0, 0, 0]));
    session.say(&frame(Kind::Headers, 4, 5, POST));
    session.say(&frame(Kind::Data, 1, 5, b"lost"));
    assert!(session.connection.take_request().is_none());
    assert_eq!(session.heard(), [], "it was told to ask elsewhere");
    assert!(!session.connection.is_finished());
    session.answer(&second, b"two");
    assert!(session.connection.is_finished());
}

/// What a client might say, in the right order and not.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        Just(GET.to_vec()),
        Just(POST.to_vec()),
        Just([POST, &[0x0f, 13, 2, b'2', b'0']].concat()),
        vec(any::<u8>(), 0..40),
        (0..200usize).prop_map(|length| vec![b'x'; length * 100]),
        Just(vec![0, 0, 0, 1]),
        Just(vec![0; 8]),
        Just(vec![0, 4, 0, 0, 0, 9]),
    ];
    let lawful = (0..11u8, 0..8u32, 0..5usize, payload).prop_map(|(kind, number, flags, payload)| {
        let stream = if (4..=7).contains(&kind) { 0 } else { number * 2 + 1 };
        frame(Kind::from(kind), [0, 1, 4, 5, 12][flags], stream, &payload)
    });
    let head = (0..30u32, any::<bool>()).prop_map(|(number, ends)| {
        frame(Kind::Headers, if ends { 5 } else { 4 }, number * 2 + 1, if ends { GET } else { POST })
    });
    prop_oneof![3 => lawful, 3 => head, 1 => vec(any::<u8>(), 0..30)]
}

/// Everything that came of a session: requests, bodies, and what was said to the client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    requests: Vec<(u32, bool, bool)>,
    written: Vec<u8>,
    broken: bool,
}

/// Plays a session in segments; requests are answered when `answers` says so.
fn play(bytes: &[u8], cuts: &[usize], answers: bool) -> Outcome {
    let mut connection = Connection::new(SETTINGS, LIMITS, Rc::default(), Instant::now());
    let mut outcome = Outcome::default();
    let mut open = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let length = cuts.next().map_or(rest.len(), |cut| (*cut).min(rest.len()));
        let (segment, behind) = rest.split_at(length);
        rest = behind;
        outcome.broken |= connection.receive(segment).is_err();
        while let Some(asked) = connection.take_request() {
            outcome.requests.push((asked.stream, asked.head.is_ok(), asked.body.is_some()));
            open.push(asked);
        }
        while let Some(place) = connection.take_touched() {
            open.retain(|asked| asked.place != place);
            connection.free(place);
        }
        while connection.take_next_in_line().is_some() {}
        if answers {
            for asked in &open {
                let context = Context::from_waker(Waker::noop());
                while let Poll::Ready(Piece::Data(_)) =
                    connection.poll_body(asked.place, asked.stream, &context)
                {}
            }
            if let Some(asked) = open.pop() {
                connection.send_head(
                    asked.place,
                    StatusCode::OK,
                    &HeaderMap::new(),
                    &Lacking::default(),
                    false,
                );
                connection.send_data(asked.place, &mut Bytes::from_static(b"answer"), true);
                connection.free(asked.place);
            }
        }
        let (bodies, pending) = connection.memory();
        assert!(bodies <= SETTINGS.connection_window as usize, "{bodies} bytes of bodies");
        assert!(
            pending <= LIMITS.max_bytes + 2 * MAX_PAYLOAD + HEADER,
            "{pending} bytes of a frame or a head"
        );
        assert!(connection.streams.taken() <= 20);
        let waiting = connection.output().waiting().to_vec();
        assert!(waiting.len() <= 64 * 1024 + bytes.len() * 2, "{} bytes wait", waiting.len());
        connection.output().advance(waiting.len());
        outcome.written.extend(waiting);
    }
    outcome
}

proptest! {
    #[test]
    fn anything_is_taken_in_any_segments(
        begins in any::<bool>(),
        said in vec(said(), 0..60),
        flips in vec((any::<Index>(), any::<u8>()), 0..4),
        cuts in vec(1..400usize, 1..20),
        answers in any::<bool>(),
    ) {
        let mut bytes = if begins { [PREFACE, &frame(Kind::Settings, 0, 0, &[])].concat() } else { Vec::new() };
        bytes.extend(said.concat());
        for (place, value) in flips {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        play(&bytes, &cuts, answers);
    }

    #[test]
    fn segments_make_no_difference(
        said in vec(said(), 0..60),
        cuts in vec(1..400usize, 1..20),
    ) {
        let bytes = [&[PREFACE, &frame(Kind::Settings, 0, 0, &[])].concat()[..], &said.concat()].concat();
        let (one, other) = (play(&bytes, &[1], false), play(&bytes, &cuts, false));
        // What is cancelled within a segment is never begun with; all else is the same.
        prop_assert_eq!(one.broken, other.broken);
        prop_assert!(other.requests.iter().all(|request| one.requests.contains(request)));
        let at_once = play(&bytes, &[usize::MAX], false);
        prop_assert_eq!(one.broken, at_once.broken);
    }
}

/// What a client does to the answers that it waits for.
#[derive(Debug, Clone)]
enum Whim {
    Ask {
        length: usize,
    },
    Reset(Index),
    Window {
        stream: Index,
        more: u32,
    },
    ConnectionWindow(u32),
    FirstWindow(u32),
    Read,
    /// The answer is polled though nothing was said of it.
    Poll(Index),
}

fn whim() -> impl Strategy<Value = Whim> {
    prop_oneof![
        3 => prop_oneof![0..200usize, 0..100_000usize].prop_map(|length| Whim::Ask { length }),
        1 => any::<Index>().prop_map(Whim::Reset),
        3 => (any::<Index>(), 1..20_000u32).prop_map(|(stream, more)| Whim::Window { stream, more }),
        2 => (1..60_000u32).prop_map(Whim::ConnectionWindow),
        1 => prop_oneof![Just(0), 0..100_000u32].prop_map(Whim::FirstWindow),
        2 => Just(Whim::Read),
        1 => any::<Index>().prop_map(Whim::Poll),
    ]
}

/// One answer: what is left of it here, and how the client sees it.
struct Answer {
    asked: Asked,
    rest: Bytes,
    length: usize,
    heard: usize,
    window: i64,
    ended: bool,
    done: bool,
}

/// A client that gives room as it likes, and counts it.
struct Fickle {
    session: Session,
    answers: Vec<Answer>,
    window: i64,
    first_window: i64,
}

impl Fickle {
    fn open(&mut self, index: Index) -> Option<&mut Answer> {
        let mut open: Vec<_> = self.answers.iter_mut().filter(|answer| !answer.ended).collect();
        (!open.is_empty()).then(|| open.swap_remove(index.index(open.len())))
    }

    fn act(&mut self, whim: Whim) {
        match whim {
            Whim::Ask { length } if self.answers.iter().filter(|answer| !answer.done).count() < 10 => {
                let asked = self.session.ask(self.answers.len() as u32 * 2 + 1);
                let rest = Bytes::from(vec![b'x'; length]);
                let window = self.first_window;
                self.answers.push(Answer {
                    asked,
                    rest,
                    length,
                    heard: 0,
                    window,
                    ended: false,
                    done: false,
                });
                self.poll(self.answers.len() - 1);
            }
            Whim::Ask { .. } => {}
            Whim::Reset(index) => {
                let Some(answer) = self.open(index) else { return };
                answer.ended = true;
                let frame = frame(Kind::ResetStream, 0, answer.asked.stream, &[0; 4]);
                self.session.say(&frame);
                while let Some(place) = self.session.connection.take_touched() {
                    let at = |answer: &Answer| answer.asked.place == place && !answer.done;
                    let touched = self.answers.iter().position(at).unwrap();
                    self.poll(touched);
                    assert!(self.answers[touched].done);
                }
            }
            Whim::Window { stream, more } => {
                let Some(answer) = self.open(stream) else { return };
                answer.window += i64::from(more);
                let frame = frame(Kind::WindowUpdate, 0, answer.asked.stream, &more.to_be_bytes());
                self.session.say(&frame);
            }
            Whim::ConnectionWindow(more) => {
                self.window += i64::from(more);
                self.session.say(&frame(Kind::WindowUpdate, 0, 0, &more.to_be_bytes()));
            }
            Whim::FirstWindow(size) => {
                let change = i64::from(size) - self.first_window;
                self.first_window = i64::from(size);
                self.answers.iter_mut().for_each(|answer| answer.window += change);
                let setting = [&[0, 4][..], &size.to_be_bytes()].concat();
                self.session.say(&frame(Kind::Settings, 0, 0, &setting));
            }
            Whim::Read => self.read(),
            Whim::Poll(index) => {
                let open: Vec<_> = (0..self.answers.len()).filter(|at| !self.answers[*at].done).collect();
                if !open.is_empty() {
                    self.poll(open[index.index(open.len())]);
                }
            }
        }
        self.go_on();
    }

    fn poll(&mut self, at: usize) {
        let answer = &mut self.answers[at];
        let place = answer.asked.place;
        if self.session.connection.send_data(place, &mut answer.rest, true) != Sent::Waits {
            answer.done = true;
            self.session.connection.free(place);
        }
    }

    fn go_on(&mut self) {
        while let Some(place) = self.session.connection.take_next_in_line() {
            let at = |answer: &Answer| answer.asked.place == place && !answer.done;
            let at = self.answers.iter().position(at).unwrap();
            self.poll(at);
        }
    }

    fn read(&mut self) {
        for (kind, flags, stream, payload) in self.session.heard() {
            if kind != Kind::Data {
                continue;
            }
            let answer = &mut self.answers[stream as usize / 2];
            let length = payload.len();
            answer.heard += length;
            answer.window -= length as i64;
            self.window -= length as i64;
            answer.ended |= flags & 1 == 1;
        }
    }
}

proptest! {
    #[test]
    fn every_answer_comes_to_its_end_once_there_is_room(whims in vec(whim(), 1..60)) {
        let mut client = Fickle { session: Session::new(), answers: Vec::new(), window: 65_535, first_window: 65_535 };
        for whim in whims {
            client.act(whim);
        }
        client.act(Whim::Read);
        prop_assert!(client.window >= 0);
        let missing: usize = client.answers.iter().map(|answer| answer.rest.len()).sum();
        client.act(Whim::FirstWindow(1 << 20));
        client.act(Whim::ConnectionWindow(missing as u32 + 1));
        for _ in 0..missing / 1000 + 2 {
            client.act(Whim::Read);
        }
        for answer in &client.answers {
            prop_assert!(answer.done && answer.ended);
            let is_reset = answer.heard < answer.length;
            prop_assert!(answer.heard == answer.length || is_reset && !answer.rest.is_empty());
        }
        prop_assert_eq!(client.session.connection.streams.taken(), 0);
        prop_assert!(client.session.connection.line.is_empty());
    }
}
