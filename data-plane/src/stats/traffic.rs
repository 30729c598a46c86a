//! Counts the bytes of connections, whoever's they are.

use super::scope::AnyScope;

/// See the module's documentation.
#[derive(Clone)]
pub struct Traffic {
    any: AnyScope,
    received: u16,
    sent: u16,
}

impl std::fmt::Debug for Traffic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traffic").finish_non_exhaustive()
    }
}

impl Traffic {
    /// The places are those of two counters.
    pub(super) fn new(any: AnyScope, received: u16, sent: u16) -> Self {
        Self { any, received, sent }
    }

    /// So many bytes have come.
    #[inline]
    pub fn received(&self, count: u64) {
        self.any.add(self.received, count);
    }

    /// So many bytes have left.
    #[inline]
    pub fn sent(&self, count: u64) {
        self.any.add(self.sent, count);
    }
}
