//! What can be turned while an upstream runs.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::amount;

/// How an upstream behaves. Each switch holds for the requests that arrive after it was turned.
#[derive(Debug)]
pub struct Switches {
    latency_micros: AtomicU64,
    failures_per_million: AtomicU32,
    mode: AtomicU8,
    status: AtomicU16,
    body_bytes: AtomicU64,
    healthy: AtomicBool,
    ready: AtomicBool,
    received: AtomicU64,
}

/// What a failing answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// An answer with this status.
    Status(u16),
    /// No answer: the connection is reset.
    Reset,
    /// An answer whose body ends half way: the connection is closed.
    CutBody,
    /// No answer, ever.
    Hang,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            latency_micros: AtomicU64::new(0),
            failures_per_million: AtomicU32::new(0),
            mode: AtomicU8::new(0),
            status: AtomicU16::new(500),
            body_bytes: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            ready: AtomicBool::new(true),
            received: AtomicU64::new(0),
        }
    }
}

impl Switches {
    /// How long it waits before it answers.
    pub fn set_latency(&self, latency: Duration) {
        self.latency_micros.store(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Which share of requests fails, 0 to 1, and how.
    pub fn set_failures(&self, share: f64, mode: Mode) {
        let (code, status) = match mode {
            Mode::Status(status) => (0, status),
            Mode::Reset => (1, 0),
            Mode::CutBody => (2, 0),
            Mode::Hang => (3, 0),
        };
        self.mode.store(code, Relaxed);
        if code == 0 {
            self.status.store(status, Relaxed);
        }
        self.failures_per_million.store((share.clamp(0.0, 1.0) * 1e6) as u32, Relaxed);
    }

    /// How long the body of an answer is; 0 sends the small JSON with the name.
    pub fn set_body_bytes(&self, bytes: u64) {
        self.body_bytes.store(bytes, Relaxed);
    }

    /// Whether it is well: if not, `/livez`, `/readyz` and `/healthz` answer 503. Other paths are not touched.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Relaxed);
    }

    /// Whether it is ready: if not, `/readyz` and `/healthz` answer 503. Other paths are not touched.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    /// Requests that have arrived whole so far, without those about its health and those that turn it.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    pub(super) fn count_request(&self) {
        self.received.fetch_add(1, Relaxed);
    }

    pub(super) fn latency(&self) -> Duration {
        Duration::from_micros(self.latency_micros.load(Relaxed))
    }

    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Relaxed)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_healthy() && self.ready.load(Relaxed)
    }

    /// Draws whether a request is to fail, and how.
    pub(super) fn failure(&self) -> Option<Mode> {
        let share = self.failures_per_million.load(Relaxed);
        (share > 0 && fastrand::u32(0..1_000_000) < share).then(|| self.mode())
    }

    fn mode(&self) -> Mode {
        match self.mode.load(Relaxed) {
            1 => Mode::Reset,
            2 => Mode::CutBody,
            3 => Mode::Hang,
            _ => Mode::Status(self.status.load(Relaxed)),
        }
    }

    /// Turns what a query names: `latency=20ms&failures=5%&mode=reset&body=1024&healthy=no&ready=no`. The values must not need
    /// decoding, but for `%25`.
    ///
    /// # Errors
    /// Names the switch that does not exist or the value that it cannot take; what stood before it has been turned.
    pub fn turn(&self, query: &str) -> anyhow::Result<()> {
        for (key, value) in
            query.split('&').filter(|part| !part.is_empty()).filter_map(|part| part.split_once('='))
        {
            let value = value.replace("%25", "%");
            self.turn_one(key, &value).with_context(|| format!("the switch {key}={value}"))?;
        }
        Ok(())
    }

    fn turn_one(&self, key: &str, value: &str) -> anyhow::Result<()> {
        match key {
            "latency" => self.set_latency(humantime::parse_duration(value)?),
            "failures" => self.set_failures(amount::share(value)?, self.mode()),
            "mode" => {
                let share = f64::from(self.failures_per_million.load(Relaxed)) / 1e6;
                self.set_failures(share, value.parse()?);
            }
            "body" => self.set_body_bytes(value.parse()?),
            "healthy" => self.set_healthy(yes_or_no(value)?),
            "ready" => self.set_ready(yes_or_no(value)?),
            _ => bail!("there are: latency, failures, mode, body, healthy, ready"),
        }
        Ok(())
    }
}

fn yes_or_no(text: &str) -> anyhow::Result<bool> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => bail!("not yes or no"),
    }
}

impl std::str::FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "reset" => Self::Reset,
            "cut-body" => Self::CutBody,
            "hang" => Self::Hang,
            status => match status.parse() {
                Ok(status @ 200..=599) => Self::Status(status),
                _ => bail!("{text:?} is not reset, cut-body, hang or a status from 200 to 599"),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_turns_what_it_names() {
        let switches = Switches::default();
        switches.turn("latency=20ms&failures=100%25&mode=reset&body=7&healthy=no").unwrap();
        assert_eq!(switches.latency(), Duration::from_millis(20));
        assert_eq!(switches.failure(), Some(Mode::Reset));
        assert_eq!(switches.body_bytes(), 7);
        assert!(!switches.is_healthy());
        switches.turn("healthy=yes&ready=no").unwrap();
        assert!(switches.is_healthy() && !switches.is_ready());
        switches.turn("mode=503").unwrap();
        assert_eq!(switches.failure(), Some(Mode::Status(503)), "the share stays");
    }

    #[test]
    fn what_cannot_be_turned_is_named() {
        for (query, word) in [
            ("speed=1", "speed=1"),
            ("latency=soon", "latency=soon"),
            ("mode=9", "mode=9"),
            ("ready=1", "ready=1"),
        ] {
            let error = format!("{:#}", Switches::default().turn(query).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
