//! What the command line says to the person before it. Everything else goes through the log.

use std::io::{IsTerminal, Write};

/// Prints a text as it is on standard output. A closed pipe is no fault.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Prints one line on standard output.
pub(crate) fn say(line: &str) {
    print(&format!("{line}\n"));
}

/// Prints one line on standard error.
pub(crate) fn complain(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Whether a person sits before standard input and output.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
