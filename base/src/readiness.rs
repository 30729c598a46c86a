//! Whether a process is ready: it is once everything that blocks it has been dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The set of what is still being waited for. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    ready: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Pending {
    next: u64,
    reasons: BTreeMap<u64, String>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { pending: Mutex::default(), ready: watch::Sender::new(true) }) }
    }
}

impl Readiness {
    /// Ready until somebody blocks it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the returned blocker is dropped. `reason` says what is being waited for.
    pub fn block(&self, reason: impl Into<String>) -> Blocker {
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let id = pending.next;
        pending.next += 1;
        pending.reasons.insert(id, reason.into());
        self.shared.ready.send_replace(false);
        Blocker { id, shared: Arc::clone(&self.shared) }
    }

    /// Whether nothing blocks.
    pub fn is_ready(&self) -> bool {
        *self.shared.ready.borrow()
    }

    /// What is still being waited for, in the order in which it began.
    pub fn pending(&self) -> Vec<String> {
        let pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.reasons.values().cloned().collect()
    }

    /// Resolves once nothing blocks.
    pub async fn ready(&self) {
        let mut ready = self.shared.ready.subscribe();
        // The sender lives in `self.shared`, so this cannot end before the condition holds.
        let _ = ready.wait_for(|ready| *ready).await;
    }
}

/// Keeps its [`Readiness`] from being ready until it is dropped.
#[derive(Debug)]
#[must_use = "dropping the blocker says that what it stands for is ready"]
pub struct Blocker {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Blocker {
    fn drop(&mut self) {
        let mut pending = self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.reasons.remove(&self.id);
        if pending.reasons.is_empty() {
            self.shared.ready.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_ready_when_the_last_blocker_is_dropped() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let caches = readiness.block("caches");
        let certificate = readiness.block("certificate");
        assert_eq!(readiness.pending(), ["caches", "certificate"]);
        drop(caches);
        assert!(!readiness.is_ready());
        drop(certificate);
        readiness.ready().await;
        assert!(readiness.is_ready());
    }
}
