//! Windows: how much may be sent before the other side says more.

use super::frame::ErrorCode;

/// The most that a window may be, in bytes.
pub(crate) const MAX_WINDOW: i64 = 0x7fff_ffff;
/// What each side begins with, in bytes.
pub(crate) const FIRST_WINDOW: i64 = 65_535;

/// How much the other side takes of what is sent. Settings may make it less than nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendWindow(i64);

impl SendWindow {
    pub(crate) fn new(size: i64) -> Self {
        Self(size)
    }

    /// How many bytes may be sent.
    pub(crate) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    /// So many bytes are sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes as i64);
    }

    /// The other side takes so many bytes more, or fewer.
    ///
    /// # Errors
    /// The window is larger than one may be.
    pub(crate) fn change(&mut self, by: i64) -> Result<(), ErrorCode> {
        let size = self.0.saturating_add(by);
        if size > MAX_WINDOW {
            return Err(ErrorCode::FlowControlError);
        }
        self.0 = size;
        Ok(())
    }
}

/// How much is taken of what the other side sends. It is told of more when half of it has been used and taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveWindow {
    size: u32,
    left: u32,
    /// What was taken, and not yet given back.
    taken: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self { size, left: size, taken: 0 }
    }

    /// So many bytes have come.
    ///
    /// # Errors
    /// They are more than were allowed.
    pub(crate) fn received(&mut self, bytes: usize) -> Result<(), ErrorCode> {
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.left.checked_sub(bytes));
        self.left = left.ok_or(ErrorCode::FlowControlError)?;
        Ok(())
    }

    /// So many bytes were taken, and need no memory here any more. Gives how much the other side is to be told of.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<u32> {
        self.taken = self.taken.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.taken < self.size / 2 {
            return None;
        }
        let more = std::mem::take(&mut self.taken);
        self.left = self.left.saturating_add(more);
        Some(more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_can_be_less_than_nothing_and_not_more_than_the_most() {
        let mut window = SendWindow::new(10);
        window.sent(8);
        window.change(-5).unwrap();
        assert_eq!(window.room(), 0);
        window.change(4).unwrap();
        assert_eq!(window.room(), 1);
        assert!(window.change(MAX_WINDOW).is_err());
        window.change(MAX_WINDOW - 1).unwrap();
        assert_eq!(window.room() as i64, MAX_WINDOW);
    }

    #[test]
    fn what_was_taken_is_given_back_by_halves() {
        let mut window = ReceiveWindow::new(100);
        window.received(80).unwrap();
        assert!(window.received(21).is_err());
        assert_eq!(window.take(49), None);
        assert_eq!(window.take(1), Some(50));
        window.received(70).unwrap();
        assert!(window.received(1).is_err());
        assert_eq!(window.take(30), None);
    }
}
