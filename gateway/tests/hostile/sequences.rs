//! Sound requests of every kind behind each other on one connection, sent at once: each gets its own answer, in order, and
//! what is not sound behind them is refused, whatever came before.

use crate::case::Case;
use crate::notation::{self, Step};

/// Each kind: its name, what it comes to, and a request; `@` in its target stands for its number.
const SOUND: [(&str, &str, &str); 14] = [
    ("GET", "NORM", "GET /@ HTTP/1.1⏎Host: ok.test⏎⏎"),
    ("HEAD", "NORM", "HEAD /@ HTTP/1.1⏎Host: ok.test⏎⏎"),
    ("an empty line and GET", "NORM", "⏎GET /@ HTTP/1.1⏎Host: ok.test⏎⏎"),
    ("GET with a length", "NORM", "GET /@ HTTP/1.1⏎Host: ok.test⏎Content-Length: 7⏎⏎GET / H"),
    ("POST", "NORM", "POST /@ HTTP/1.1⏎Host: ok.test⏎Content-Length: 5⏎⏎hello"),
    ("POST of nothing", "NORM", "POST /@ HTTP/1.1⏎Host: ok.test⏎Content-Length: 0⏎⏎"),
    ("a large POST", "NORM", "POST /@ HTTP/1.1⏎Host: ok.test⏎Content-Length: 70000⏎⏎«70000×p»"),
    ("chunks", "NORM", "PUT /@ HTTP/1.1⏎Host: ok.test⏎Transfer-Encoding: chunked⏎⏎5⏎hello⏎6⏎ world⏎0⏎⏎"),
    (
        "chunks and trailers",
        "NORM",
        "PUT /@ HTTP/1.1⏎Host: ok.test⏎Transfer-Encoding: chunked⏎⏎5⏎hello⏎0⏎X-Sum: 1⏎⏎",
    ),
    ("GET with chunks", "NORM", "GET /@ HTTP/1.1⏎Host: ok.test⏎Transfer-Encoding: chunked⏎⏎5⏎hello⏎0⏎⏎"),
    ("Expect", "NORM", "POST /@ HTTP/1.1⏎Host: ok.test⏎Expect: 100-continue⏎Content-Length: 5⏎⏎hello"),
    ("Upgrade", "NORM", "GET /@ HTTP/1.1⏎Host: ok.test⏎Connection: upgrade⏎Upgrade: websocket⏎⏎"),
    ("TE", "NORM", "GET /@ HTTP/1.1⏎Host: ok.test⏎Connection: te, x-a⏎TE: trailers⏎X-A: hop⏎⏎"),
    ("no route", "404", "GET /@ HTTP/1.1⏎Host: none.test⏎⏎"),
];

/// What is refused, wherever it stands.
const UNSOUND: [(&str, &str); 6] = [
    ("garbage", "garbage⏎⏎"),
    ("LF alone", "GET / HTTP/1.1␊Host: ok.test␊␊"),
    ("two lengths", "POST / HTTP/1.1⏎Host: ok.test⏎Content-Length: 5⏎Content-Length: 6⏎⏎hello"),
    ("length and chunks", "POST / HTTP/1.1⏎Host: ok.test⏎Content-Length: 5⏎Transfer-Encoding: chunked⏎⏎0⏎⏎"),
    ("no Host", "GET / HTTP/1.1⏎⏎"),
    ("NUL", "GET / HTTP/1.1⏎Host: ok.test⏎X: a␀⏎⏎"),
];

pub(crate) fn cases() -> Vec<Case> {
    let pairs = SOUND.iter().flat_map(|one| SOUND.iter().map(move |other| vec![one, other]));
    let between = SOUND.iter().map(|one| vec![&SOUND[0], one, &SOUND[0], one, &SOUND[0]]);
    let sound = pairs.chain(between).map(|kinds| case(&kinds, None));
    let unsound = SOUND.iter().flat_map(|one| UNSOUND.iter().map(move |last| case(&[one], Some(last))));
    sound.chain(unsound).collect()
}

fn case(kinds: &[&(&str, &str, &str)], last: Option<&(&str, &str)>) -> Case {
    let names = kinds.iter().map(|(name, _, _)| *name).chain(last.iter().map(|(name, _)| *name));
    let what = names.collect::<Vec<_>>().join(", then ");
    let required = kinds.iter().map(|(_, required, _)| *required).chain(last.map(|_| "R400"));
    let mut required = required.collect::<Vec<_>>().join("+");
    if last.is_some() && kinds.iter().any(|(name, _, _)| *name == "Upgrade") {
        // After an offer to leave HTTP it may be closed without a word.
        required += "/NORM+CLOSE";
    }
    let requests: Vec<_> =
        kinds.iter().zip(1..).map(|((_, _, text), number)| text.replace('@', &number.to_string())).collect();
    let mut bytes = notation::bytes(&requests.concat());
    bytes.extend(last.map(|(_, text)| notation::bytes(text)).unwrap_or_default());
    let mut case = Case::new("sequence", &required, &what, vec![Step::Bytes(bytes)]);
    case.understand_each(&requests.iter().map(|text| notation::bytes(text)).collect::<Vec<_>>());
    case
}
