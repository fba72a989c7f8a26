//! The Huffman code of HPACK (RFC 7541 appendix B), read a symbol at a time.
//!
//! The code is canonical: of two symbols the one with the shorter code comes first, and of two as long the smaller one.
//! So the lengths say everything, and the tables are made of them when this is compiled. Nearly all of what stands in
//! heads has codes of up to eight bits, which one look-up finds.

use super::Malformed;

/// How many bits the code of each byte has, and of the end of a string, which must not occur.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, //
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, //
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, //
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, //
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, //
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, //
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, //
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, //
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, //
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, //
    30,
];
const LONGEST: usize = 30;

/// The codes of one length: consecutive numbers, for symbols that stand one behind the other.
#[derive(Clone, Copy)]
struct Row {
    first: u32,
    count: u32,
    /// Where its symbols begin.
    at: u32,
}

struct Tables {
    /// For the next eight bits: the symbol, and above it how many of them it takes; 0, if it takes more.
    short: [u16; 256],
    rows: [Row; LONGEST + 1],
    /// All symbols, in the order of their codes.
    symbols: [u16; 257],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables =
        Tables { short: [0; 256], rows: [Row { first: 0, count: 0, at: 0 }; LONGEST + 1], symbols: [0; 257] };
    let (mut code, mut at, mut length) = (0u32, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        tables.rows[length] = Row { first: code, count: 0, at: at as u32 };
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                if length <= 8 {
                    let mut below = 0;
                    while below < 1 << (8 - length) {
                        tables.short[(code as usize) << (8 - length) | below] = (length << 8 | symbol) as u16;
                        below += 1;
                    }
                }
                tables.symbols[at] = symbol as u16;
                tables.rows[length].count += 1;
                at += 1;
                code += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    tables
}

/// Appends what these bytes encode.
///
/// # Errors
/// They are not the code of anything, or not padded as they must be.
pub(super) fn decode(input: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.reserve(input.len() * 8 / 5);
    // The next bits stand at the top of the window, and so many of them are there.
    let (mut window, mut have) = (0u64, 0u32);
    let mut input = input;
    loop {
        if let Some((four, rest)) = input.split_first_chunk::<4>().filter(|_| have <= 31) {
            window |= u64::from(u32::from_be_bytes(*four)) << (32 - have);
            (have, input) = (have + 32, rest);
        } else if let Some((one, rest)) = input.split_first().filter(|_| have <= 55) {
            window |= u64::from(*one) << (56 - have);
            (have, input) = (have + 8, rest);
            continue;
        }
        while have >= 8 {
            let entry = TABLES.short[usize::from((window >> 56) as u8)];
            let length = u32::from(entry >> 8);
            if length == 0 {
                break;
            }
            out.push(entry as u8);
            window <<= length;
            have -= length;
        }
        if have >= LONGEST as u32 || input.is_empty() {
            // Behind the end all bits are set, as in the padding.
            let bits = window | u64::MAX >> have;
            if have < 8 && bits == u64::MAX {
                return Ok(());
            }
            let (symbol, length) = match short(bits).or_else(|| long(bits)) {
                Some((symbol, length)) if length <= have => (symbol, length),
                // What is left over is no padding: less than a byte, and all bits of it set.
                _ => return Err(Malformed),
            };
            out.push(symbol);
            window <<= length;
            have -= length;
        }
    }
}

/// A symbol whose code has at most eight bits, and how many.
fn short(bits: u64) -> Option<(u8, u32)> {
    let entry = TABLES.short[usize::from((bits >> 56) as u8)];
    let length = u32::from(entry >> 8);
    (length > 0).then_some((entry as u8, length))
}

/// A symbol whose code has more than eight bits, and how many.
fn long(bits: u64) -> Option<(u8, u32)> {
    for (length, row) in (0u32..).zip(&TABLES.rows).skip(9) {
        let code = (bits >> (64 - length)) as u32;
        if let Some(offset) = code.checked_sub(row.first)
            && offset < row.count
        {
            let symbol = TABLES.symbols.get((row.at + offset) as usize)?;
            return u8::try_from(*symbol).ok().map(|symbol| (symbol, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by the letter: the code of each symbol, bit by bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits: Vec<bool> = Vec::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let row = TABLES.rows[length];
            let place = TABLES.symbols.iter().position(|symbol| *symbol == u16::from(*byte)).unwrap();
            let code = row.first + (place as u32 - row.at);
            bits.extend((0..length).rev().map(|bit| code >> bit & 1 == 1));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(true);
        }
        bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
    }

    fn decoded(input: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        decode(input, &mut out).map(|()| out)
    }

    #[test]
    fn the_code_is_that_of_the_standard() {
        for (symbol, length, code) in [
            ('0', 5, 0x0),
            ('t', 5, 0x9),
            (' ', 6, 0x14),
            ('X', 8, 0xfc),
            ('!', 10, 0x3f8),
            ('{', 15, 0x7ffe),
        ] {
            let row = TABLES.rows[length];
            let place = TABLES.symbols.iter().position(|other| *other == symbol as u16).unwrap() as u32;
            assert_eq!((usize::from(LENGTHS[symbol as usize]), row.first + place - row.at), (length, code));
        }
        assert_eq!(TABLES.rows[30].first + 3, 0x3fff_ffff, "the end of a string");
        assert_eq!(decoded(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").unwrap(), b"www.example.com");
    }

    #[test]
    fn padding_is_short_and_all_ones() {
        assert_eq!(decoded(b"").unwrap(), b"");
        assert_eq!(decoded(b"\x07").unwrap(), b"0");
        for wrong in
            [&b"\x06"[..], b"\x00\x00", b"\x07\xff", b"\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\xfc"]
        {
            assert!(decoded(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn every_string_comes_back(text: Vec<u8>) {
            prop_assert_eq!(decoded(&encode(&text)).unwrap(), text);
        }

        #[test]
        fn anything_is_taken_or_refused(input: Vec<u8>) {
            if let Ok(text) = decoded(&input) {
                prop_assert_eq!(encode(&text), input);
            }
        }
    }
}
