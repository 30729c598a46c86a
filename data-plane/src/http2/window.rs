//! Flow control (RFC 9113, 5.2): how much we may send, and how much the peer may.

use sail_proxy_http2::frame::MAX_WINDOW;

/// What both sides begin with.
pub(super) const DEFAULT: u32 = 65_535;

/// How much may be sent. It falls below zero where the peer takes back what it gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window(i64);

impl Window {
    pub(super) fn new(size: u32) -> Self {
        Self(i64::from(size))
    }

    /// As much as may be sent now.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn take(&mut self, count: usize) {
        self.0 -= count as i64;
    }

    /// Grows or shrinks; whether it is a window still.
    pub(super) fn change(&mut self, by: i64) -> bool {
        self.0 += by;
        self.0 <= i64::from(MAX_WINDOW)
    }
}

/// How much the peer may send, and what it gets back once it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    /// What it has left.
    left: u32,
    /// What was read and not given back yet.
    owed: u32,
    size: u32,
}

impl Credit {
    pub(super) fn new(size: u32) -> Self {
        Self { left: size, owed: 0, size }
    }

    /// The peer has sent so much; whether it might.
    pub(super) fn spend(&mut self, count: u32) -> bool {
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// So much was read. What the peer is to be told of, once that is worth a frame.
    pub(super) fn earn(&mut self, count: u32) -> Option<u32> {
        self.owed += count;
        if self.owed == 0 || self.owed < self.size / 2 {
            return None;
        }
        self.left += self.owed;
        Some(std::mem::take(&mut self.owed))
    }

    /// The peer has more than it begins with: what it is to be told.
    pub(super) fn widen(&mut self, size: u32) -> Option<u32> {
        let by = size.saturating_sub(self.size);
        self.size = self.size.max(size);
        self.left += by;
        (by > 0).then_some(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_given_back_by_halves() {
        let mut credit = Credit::new(100);
        assert!(credit.spend(60));
        assert_eq!(credit.earn(49), None);
        assert_eq!(credit.earn(1), Some(50));
        assert!(!credit.spend(91), "more than it has");
        assert!(credit.spend(90));
        assert_eq!(Credit::new(DEFAULT).widen(1 << 20), Some((1 << 20) - DEFAULT));
        assert_eq!(Credit::new(1 << 20).widen(DEFAULT), None);
    }

    #[test]
    fn windows_may_fall_below_nothing() {
        let mut window = Window::new(10);
        window.take(10);
        assert!(window.change(-5));
        assert_eq!(window.room(), 0);
        assert!(window.change(6));
        assert_eq!(window.room(), 1);
        assert!(!window.change(i64::from(MAX_WINDOW)));
    }
}
