//! Numbers (RFC 7541 section 5.1).

use super::Malformed;

/// More than any number here may be: all are lengths or places within a head.
const MOST: usize = 1 << 24;

/// Takes a number that begins in the lowest `prefix` bits of the first byte.
pub(super) fn take(block: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let (first, mut rest) = block.split_first().ok_or(Malformed)?;
    let mask = (1usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, behind) = rest.split_first().ok_or(Malformed)?;
            rest = behind;
            value += usize::from(byte & 0x7f) << shift;
            // A number may be padded with zeros, but not without end.
            if value > MOST || shift > 28 {
                return Err(Malformed);
            }
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
    }
    *block = rest;
    Ok(value)
}

/// Appends a number, with these bits in front of it in its first byte.
pub(super) fn put(value: usize, prefix: u32, above: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        out.push(above | value as u8);
        return;
    }
    out.push(above | mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        out.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    out.push(left as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 7541 appendix C.1.
    #[test]
    fn the_examples_of_the_standard() {
        for (value, prefix, bytes) in [(10, 5, &[0x0a][..]), (1337, 5, &[0x1f, 0x9a, 0x0a]), (42, 8, &[0x2a])]
        {
            let mut out = Vec::new();
            put(value, prefix, 0, &mut out);
            assert_eq!(out, bytes);
            let mut block = bytes;
            assert_eq!((take(&mut block, prefix), block), (Ok(value), &[][..]));
        }
    }

    #[test]
    fn what_has_no_end_or_is_too_large_is_refused() {
        for wrong in
            [&[][..], &[0x1f], &[0x1f, 0x80], &[0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]
        {
            assert_eq!(take(&mut &*wrong, 5), Err(Malformed), "{wrong:?}");
        }
        assert_eq!(take(&mut &[&[0x1f][..], &[0x80; 100], &[0]].concat()[..], 5), Err(Malformed));
    }

    proptest! {
        #[test]
        fn every_number_comes_back(value in 0..MOST, prefix in 1..=8u32) {
            let mut out = Vec::new();
            put(value, prefix, 0, &mut out);
            out.push(7);
            let mut block = &out[..];
            prop_assert_eq!(take(&mut block, prefix), Ok(value));
            prop_assert_eq!(block, &[7]);
        }
    }
}
