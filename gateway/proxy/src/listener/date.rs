//! The field `Date` of responses that come without one.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::time::Instant;

/// The date, made once a second.
#[derive(Debug, Default)]
pub(super) struct Date {
    value: RefCell<Option<HeaderValue>>,
    /// When its second is over.
    until: Cell<Option<Instant>>,
}

impl Date {
    /// The value at this moment, which is now or a little earlier; nothing, if the clock says what no date can.
    pub(super) fn at(&self, now: Instant) -> Option<HeaderValue> {
        if self.until.get().is_none_or(|until| now >= until) {
            self.renew(now);
        }
        self.value.borrow().clone()
    }

    fn renew(&self, now: Instant) {
        let time = Timestamp::now();
        let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok();
        self.value.replace(text.and_then(|text| HeaderValue::try_from(text).ok()));
        let passed = u64::try_from(time.subsec_nanosecond()).unwrap_or_default();
        self.until.set(now.checked_add(Duration::from_secs(1).saturating_sub(Duration::from_nanos(passed))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_date_lasts_for_its_second() {
        let date = Date::default();
        let now = Instant::now();
        let value = date.at(now).unwrap();
        let parsed = jiff::fmt::rfc2822::parse(value.to_str().unwrap()).unwrap().timestamp();
        assert!(Timestamp::now().duration_since(parsed).as_secs_f64() < 2.0, "{value:?}");

        date.value.replace(Some(HeaderValue::from_static("x")));
        assert_eq!(date.at(now).unwrap(), "x", "it is not made anew");
        assert_ne!(date.at(now + Duration::from_secs(1)).unwrap(), "x");
    }
}
