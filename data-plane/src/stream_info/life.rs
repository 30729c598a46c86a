//! Moments of connections and how they were closed: what logs may ask besides what happens on streams.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::clock;
use crate::net::socket;
use crate::stats::sets::listener_tcp_stats;
use crate::tcp_stats::Sampled;

/// How a connection's end came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseType {
    /// In order.
    #[default]
    Normal,
    /// We reset it.
    LocalReset,
    /// The peer reset it.
    RemoteReset,
}

impl CloseType {
    /// Envoy's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::LocalReset => "LocalReset",
            Self::RemoteReset => "RemoteReset",
        }
    }
}

/// A downstream connection's.
#[derive(Debug, Default)]
pub struct Life {
    /// When it was accepted.
    pub accepted: Option<Instant>,
    /// When its TLS handshake began, and when it was done.
    pub handshake: Cell<Option<(Instant, Instant)>>,
    /// When it ended.
    pub ended: Cell<Option<Instant>>,
    /// How.
    pub closed: Cell<CloseType>,
    /// Why, where it was our doing.
    pub local_close_reason: Cell<Option<&'static str>>,
    /// Why TLS failed.
    pub transport_failure: OnceCell<Box<str>>,
    /// The upstream connection that it was joined to: how that ended, and why.
    pub upstream: Cell<Option<(CloseType, Option<&'static str>)>>,
    /// Boxed: most connections have none.
    kept: RefCell<Option<Box<Kept>>>,
}

/// What the kernel is asked through.
#[derive(Debug)]
struct Kept {
    socket: OwnedFd,
    _sampled: Option<Sampled<listener_tcp_stats::Set>>,
}

impl Life {
    /// Of a connection that was accepted then.
    pub fn new(accepted: Instant) -> Self {
        Self { accepted: Some(accepted), ..Self::default() }
    }

    /// We closed it, and the one it was joined to, if any.
    pub fn close(&self, reason: &'static str) {
        self.local_close_reason.set(Some(reason));
        if let Some((how, _)) = self.upstream.get() {
            self.upstream.set(Some((how, Some(reason))));
        }
    }

    /// It is over; the first to say so is right.
    pub fn end(&self) {
        if self.ended.get().is_none() {
            self.ended.set(Some(clock::now()));
        }
    }

    /// Keeps a handle of the socket, which the kernel is asked about later; to be given up at the connection's end.
    pub(crate) fn keep_socket(
        &self,
        socket: BorrowedFd<'_>,
        sampled: Option<Sampled<listener_tcp_stats::Set>>,
    ) {
        let kept = |socket| Box::new(Kept { socket, _sampled: sampled });
        self.kept.replace(socket.try_clone_to_owned().ok().map(kept));
    }

    /// Gives the handle up.
    pub(crate) fn release_socket(&self) {
        self.kept.take();
    }

    /// The kernel's estimate of the round trip.
    pub fn round_trip(&self) -> Option<Duration> {
        socket::round_trip(self.kept.borrow().as_ref()?.socket.as_fd())
    }
}

/// An upstream connection's.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamLife {
    /// When connecting began.
    pub begun: Instant,
    /// When it was connected.
    pub connected: Instant,
    /// When its TLS handshake was done.
    pub handshaken: Option<Instant>,
}
