//! The overload manager: resources that are watched by the main thread, and what is done about them, as flags that
//! workers read.

mod config;
mod monitor;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

pub use config::{Action, Overload, Trigger, read};
pub use monitor::run;

/// What workers do about the state of the process now.
#[derive(Debug)]
pub struct Flags {
    reject_connections: AtomicBool,
    stop_accepting: AtomicBool,
    stop_requests: AtomicBool,
    disable_keepalive: AtomicBool,
    max_connections: AtomicU64,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            reject_connections: AtomicBool::new(false),
            stop_accepting: AtomicBool::new(false),
            stop_requests: AtomicBool::new(false),
            disable_keepalive: AtomicBool::new(false),
            max_connections: AtomicU64::new(u64::MAX),
        }
    }
}

impl Flags {
    /// New connections are closed at once.
    pub(crate) fn rejects_connections(&self) -> bool {
        self.reject_connections.load(Relaxed)
    }

    /// New connections wait in the kernel's queue.
    pub(crate) fn stops_accepting(&self) -> bool {
        self.stop_accepting.load(Relaxed)
    }

    /// Requests are answered 503.
    pub(crate) fn stops_requests(&self) -> bool {
        self.stop_requests.load(Relaxed)
    }

    /// HTTP/1 connections close after their response.
    pub(crate) fn disables_keepalive(&self) -> bool {
        self.disable_keepalive.load(Relaxed)
    }

    /// How many downstream connections there may be.
    pub(crate) fn max_connections(&self) -> u64 {
        self.max_connections.load(Relaxed)
    }

    /// Flags for a configuration, before anything was measured.
    pub fn new(overload: &Overload) -> Arc<Self> {
        let flags = Self::default();
        flags.max_connections.store(overload.max_connections.unwrap_or(u64::MAX), Relaxed);
        Arc::new(flags)
    }

    fn set(&self, action: Action, on: bool) {
        match action {
            Action::StopAcceptingRequests => self.stop_requests.store(on, Relaxed),
            Action::DisableHttpKeepalive => self.disable_keepalive.store(on, Relaxed),
            Action::StopAcceptingConnections => self.stop_accepting.store(on, Relaxed),
            Action::RejectIncomingConnections => self.reject_connections.store(on, Relaxed),
            Action::ShrinkHeap => {}
        }
    }
}
