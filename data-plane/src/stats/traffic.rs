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

/// Counts the bytes of one connection whose sums are known from time to time.
#[derive(Debug)]
pub struct Meter {
    traffic: Traffic,
    received: u64,
    sent: u64,
}

impl Meter {
    /// So many bytes that come first were counted before.
    pub fn new(traffic: Traffic, received: u64) -> Self {
        Self { traffic, received, sent: 0 }
    }

    /// So many have come and left since the connection is metered.
    pub fn update(&mut self, received: u64, sent: u64) {
        self.traffic.received(received.saturating_sub(self.received));
        self.traffic.sent(sent.saturating_sub(self.sent));
        self.received = self.received.max(received);
        self.sent = self.sent.max(sent);
    }
}
