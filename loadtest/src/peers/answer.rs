//! Answers of HTTP/1.1, as far as a measurement must understand them.

use anyhow::{Context, bail};

/// How much of an answer's body is still missing; nothing is known before its head is whole.
///
/// # Errors
/// If it is not 200, or does not say its length.
pub(super) fn missing(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = head_length(answer) else { return Ok(None) };
    let text = std::str::from_utf8(&answer[..head]).context("the head of the answer is not text")?;
    if !text.starts_with("HTTP/1.1 200") {
        bail!("it was answered with {:?}", text.lines().next().unwrap_or_default());
    }
    let length = field(text, "content-length").and_then(|value| value.parse::<usize>().ok());
    let length = length.context("the answer has no length")?;
    Ok(Some((head + length).saturating_sub(answer.len())))
}

/// Where the head of a message ends, if it is whole.
pub(super) fn head_length(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a field in a head.
pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_says() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-length: 3\r\n\r\nabc";
        assert_eq!(missing(&whole[..20]).unwrap(), None);
        assert_eq!(missing(&whole[..whole.len() - 2]).unwrap(), Some(2));
        assert_eq!(missing(whole).unwrap(), Some(0));
        assert!(missing(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
        assert!(missing(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
