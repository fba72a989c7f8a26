//! Going over a chunked body as it comes in pieces, without keeping anything of it.

/// The longest line between chunks.
const LONGEST_LINE: usize = 4 << 10;

/// Where in a chunked body the reader is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Chunk {
    /// In the line with the size, so many bytes in; whether its digits still go on.
    Size {
        size: u64,
        digits: bool,
        seen: usize,
    },
    Data(u64),
    /// In the line end after the data.
    End,
    /// In the lines after the last chunk: so many bytes in this one.
    Trailer {
        seen: usize,
    },
}

impl Chunk {
    /// Before the first chunk.
    pub(crate) const START: Self = Self::Size { size: 0, digits: true, seen: 0 };

    /// Goes over bytes; once the last chunk has ended, gives how many there were before its end. Those that are
    /// no sizes or line ends are added to `content`.
    ///
    /// # Errors
    /// If they are no chunks.
    pub(crate) fn feed(&mut self, bytes: &[u8], content: &mut u64) -> Result<Option<usize>, &'static str> {
        let mut at = 0;
        while at < bytes.len() {
            if let Self::Data(left) = self {
                let taken = (*left).min((bytes.len() - at) as u64);
                *left -= taken;
                *content += taken;
                at += taken as usize;
                if *left == 0 {
                    *self = Self::End;
                }
                continue;
            }
            let ended = self.take(bytes[at])?;
            at += 1;
            if ended {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// One byte outside the data: true if it was the last of the body.
    fn take(&mut self, byte: u8) -> Result<bool, &'static str> {
        match self {
            Self::Size { size, digits, seen } => {
                *seen += 1;
                match byte {
                    _ if *seen > LONGEST_LINE => return Err("the line of a chunk is too long"),
                    _ if *seen == 1 && !byte.is_ascii_hexdigit() => return Err("a chunk without a size"),
                    b'\n' if *size == 0 => *self = Self::Trailer { seen: 0 },
                    b'\n' => *self = Self::Data(*size),
                    _ => match char::from(byte).to_digit(16).filter(|_| *digits) {
                        Some(digit) => {
                            *size = size
                                .checked_mul(16)
                                .and_then(|size| size.checked_add(u64::from(digit)))
                                .ok_or("a chunk of more than 16 digits")?;
                        }
                        // An extension, or the line end.
                        None => *digits = false,
                    },
                }
            }
            Self::End => match byte {
                b'\r' => {}
                b'\n' => *self = Self::START,
                _ => return Err("a chunk is longer than its size"),
            },
            Self::Trailer { seen } => match byte {
                b'\n' if *seen == 0 => return Ok(true),
                b'\n' => *seen = 0,
                b'\r' => {}
                _ if *seen > LONGEST_LINE => return Err("a trailer is too long"),
                _ => *seen += 1,
            },
            Self::Data(_) => {}
        }
        Ok(false)
    }
}
