//! What went wrong with one request.

use std::borrow::Cow;
use std::io;

use crate::load::FailureKind;

/// A failure with its words: few and always the same, so that equal ones can be counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FailureKind,
    pub(super) reason: Cow<'static, str>,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connecting,
    Waiting,
    Reading,
}

impl Fault {
    pub(super) fn new(kind: FailureKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, reason: reason.into() }
    }

    pub(super) fn connecting(error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => FailureKind::ConnectRefused,
            io::ErrorKind::TimedOut => FailureKind::ConnectTimeout,
            _ => FailureKind::ConnectFailed,
        };
        Self::new(kind, words(error))
    }

    /// The connection broke: before the answer began it is a reset, later the answer was cut.
    pub(super) fn broken(error: &io::Error, begun: bool) -> Self {
        Self::new(if begun { FailureKind::MidBody } else { FailureKind::Reset }, words(error))
    }

    /// The connection was closed before the answer was complete.
    pub(super) fn closed(begun: bool) -> Self {
        if begun {
            Self::new(FailureKind::MidBody, "closed before the answer was complete")
        } else {
            Self::new(FailureKind::Reset, "closed before the answer")
        }
    }

    pub(super) fn status(status: u16) -> Self {
        Self::new(FailureKind::Status, status.to_string())
    }
}

impl Step {
    pub(super) fn timed_out(self) -> Fault {
        let (kind, reason) = match self {
            Self::Connecting => (FailureKind::ConnectTimeout, "no connection in time"),
            Self::Waiting => (FailureKind::Timeout, "no answer in time"),
            Self::Reading => (FailureKind::Stalled, "the answer did not end in time"),
        };
        Fault::new(kind, reason)
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData => error.to_string(),
        kind => kind.to_string(),
    }
}
