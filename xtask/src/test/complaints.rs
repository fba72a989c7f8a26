//! What failed tests said: repeated at the very end, where it is still seen when the middle of a long log is cut out.

/// So many lines of one message are kept.
const LINES: usize = 24;
/// So many messages of one step.
const MESSAGES: usize = 6;
/// So many characters of one line.
const WIDTH: usize = 400;

/// Reads the output of `cargo test …` line by line and keeps what panicked, and why something was not compiled.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    messages: Vec<Vec<String>>,
    /// Whether the last message goes on with the next line.
    open: bool,
}

impl Complaints {
    pub(super) fn hear(&mut self, line: &str) {
        if is_begin(line) {
            self.open = self.messages.len() < MESSAGES;
            if self.open {
                self.messages.push(Vec::new());
            }
        } else if is_end(line) {
            self.open = false;
        }
        let Some(message) = self.messages.last_mut() else { return };
        if self.open && message.len() < LINES && !line.trim().is_empty() {
            message.push(line.chars().take(WIDTH).collect());
        }
    }

    /// The lines, message by message.
    pub(super) fn lines(self) -> Vec<String> {
        self.messages.concat()
    }
}

/// `thread 'a::test' (123) panicked at gateway/tests/a.rs:1:2:`, or an error of the compiler.
fn is_begin(line: &str) -> bool {
    let panicked = line.starts_with("thread '") && line.contains(" panicked at ");
    let not_compiled = line.starts_with("error") && !line.starts_with("error: test failed");
    panicked || not_compiled
}

fn is_end(line: &str) -> bool {
    ["stack backtrace:", "note: ", "---- ", "failures:", "test ", "FAILED"]
        .iter()
        .any(|it| line.starts_with(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(text: &str) -> Vec<String> {
        let mut complaints = Complaints::default();
        text.lines().for_each(|line| complaints.hear(line));
        complaints.lines()
    }

    #[test]
    fn a_panic_is_kept_with_its_message_and_without_its_backtrace() {
        let text = "test one ... \nthread 'two' (7) panicked at a.rs:1:2:\nstep 2: 1 of 9 failed\n\n  at 0.3 s reset\n\
                    stack backtrace:\n   0: rust_begin_unwind\nFAILED\nerror: test failed, to rerun pass `--test a`\n";
        let kept = ["thread 'two' (7) panicked at a.rs:1:2:", "step 2: 1 of 9 failed", "  at 0.3 s reset"];
        assert_eq!(heard(text), kept);
    }

    #[test]
    fn what_is_not_compiled_is_kept() {
        let text = "   Compiling a v0.1.0\nerror[E0425]: cannot find value `x`\n --> a.rs:1:2\n";
        assert_eq!(heard(text), ["error[E0425]: cannot find value `x`", " --> a.rs:1:2"]);
    }

    #[test]
    fn a_flood_is_cut() {
        let one = format!("thread 'a' (7) panicked at a.rs:1:2:\n{}", "a line\n".repeat(1000));
        assert_eq!(heard(&one.repeat(100)).len(), LINES * MESSAGES);
    }
}
