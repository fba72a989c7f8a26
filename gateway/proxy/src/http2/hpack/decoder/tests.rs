//! The examples of RFC 7541 appendix C, and what must not be taken.

use super::super::field::Meaning;
use super::*;

/// Takes every field, as text.
#[derive(Default)]
struct Taken(Vec<String>);

impl Sink for Taken {
    fn admits(&mut self, _length: usize) -> bool {
        true
    }

    fn take(&mut self, field: Field) {
        let value = match field.value {
            Value::Method(method) => method.to_string(),
            Value::Path(path) => path.to_string(),
            Value::Scheme(of_the_web) => of_the_web.to_string(),
            Value::Text(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            Value::Unfit => "unfit".to_owned(),
        };
        let name = match field.name {
            Name::Regular(name, _) => name.to_string(),
            other => format!("{other:?}"),
        };
        self.0.push(format!("{name}: {value}"));
    }
}

/// Refuses every field.
struct Nothing;

impl Sink for Nothing {
    fn admits(&mut self, _length: usize) -> bool {
        false
    }

    fn take(&mut self, field: Field) {
        panic!("{field:?} was not wanted");
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decoded(decoder: &mut Decoder, hex: &str) -> Vec<String> {
    let mut taken = Taken::default();
    decoder.decode(&bytes(hex), &mut taken).unwrap();
    taken.0
}

/// C.3 and C.4: the same requests in plain text and in the Huffman code.
#[test]
fn the_requests_of_the_standard() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, huffman] {
        let mut decoder = Decoder::default();
        let first = ["Method: GET", "Scheme: true", "Path: /", "Authority: www.example.com"];
        assert_eq!(decoded(&mut decoder, blocks[0]), first);
        assert_eq!(decoder.size, 57);
        let second = [&first[..], &["cache-control: no-cache"]].concat();
        assert_eq!(decoded(&mut decoder, blocks[1]), second);
        assert_eq!(decoder.size, 110);
        let third = [
            "Method: GET",
            "Scheme: true",
            "Path: /index.html",
            "Authority: www.example.com",
            "custom-key: custom-value",
        ];
        assert_eq!(decoded(&mut decoder, blocks[2]), third);
        assert_eq!((decoder.size, decoder.table.len()), (164, 3));
    }
}

/// C.6, whose table has 256 bytes, so that fields are pushed out. `:status` is no field of a request.
#[test]
fn what_is_pushed_out_is_gone() {
    let mut decoder = Decoder::default();
    let mut taken = Taken::default();
    decoder.decode(&bytes("3f e1 01"), &mut taken).unwrap();
    assert_eq!(decoder.most, 256);
    // The date and the cookie that the standard has, by name; each takes about a third of the table.
    let field = |name: u8, length: usize| {
        let mut block = vec![0x40 | name];
        integer::put(length, 7, 0, &mut block);
        block.resize(block.len() + length, b'a');
        block
    };
    for name in [33, 34, 46] {
        decoder.decode(&field(name, 60), &mut taken).unwrap();
    }
    assert_eq!((decoder.table.len(), decoder.size), (2, 60 * 2 + "etaglocation".len() + 64));
    decoder.decode(&[0xbe, 0xbf], &mut taken).unwrap();
    assert_eq!(decoder.decode(&[0xc0], &mut taken), Err(Malformed));
    // One that is larger than the table empties it.
    decoder.decode(&field(34, 300), &mut taken).unwrap();
    assert_eq!((decoder.table.len(), decoder.size), (0, 0));
    // Nothing fits into a table of no size.
    decoder.decode(&bytes("20 42 01 61"), &mut taken).unwrap();
    assert_eq!(decoder.table.len(), 0);
}

#[test]
fn a_field_that_is_not_wanted_is_remembered_all_the_same() {
    let mut decoder = Decoder::default();
    decoder.decode(&bytes("40 01 61 01 62 00 01 63 01 64"), &mut Nothing).unwrap();
    assert_eq!(decoded(&mut decoder, "be 7e 01 65"), ["a: b", "a: e"]);
}

#[test]
fn what_is_unfit_keeps_its_place() {
    let mut decoder = Decoder::default();
    assert_eq!(decoded(&mut decoder, "40 01 41 01 62 40 01 61 02 0d 0a"), ["Unfit: unfit", "a: unfit"]);
    assert_eq!(decoder.table.len(), 2);
    assert_eq!(decoded(&mut decoder, "be bf 7e 01 65"), ["a: unfit", "Unfit: unfit", "a: e"]);
    assert_eq!(decoded(&mut decoder, "88 08 03 32 30 31"), ["Unfit: unfit", "Unfit: unfit"]);
    let Name::Regular(_, meaning) = Name::read(b"content-length") else { panic!("it is a field") };
    assert_eq!(meaning, Meaning::ContentLength);
}

#[test]
fn what_is_no_hpack_is_refused() {
    for wrong in [
        // No index; one beyond the end; a name beyond the end.
        "80",
        "be",
        "7e 01 61",
        // A string that is longer than the block; no string.
        "40 05 61",
        "40",
        "00 01 61",
        // A size that is larger than was allowed, or that does not stand at the beginning.
        "3f e2 1f",
        "82 20",
        // The Huffman code of the end of a string.
        "40 84 ff ff ff ff 01 61",
    ] {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&bytes(wrong), &mut Taken::default()), Err(Malformed), "{wrong}");
    }
}
