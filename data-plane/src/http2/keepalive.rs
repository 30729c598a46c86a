//! Asks now and then whether a peer is there (`connection_keepalive`).

use std::future::{pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use rand::Rng as _;
use sail_proxy_config::hcm::Http2Keepalive;
use tokio::time::timeout;

use super::connection::{Inner, Shared};
use super::error::Error;
use super::stream::register;
use crate::clock;

/// Ends when an answer stays away, and nothing else comes either: an answer may stand behind much else.
pub(super) async fn run(connection: &Shared, keepalive: Option<Http2Keepalive>) -> Error {
    let Some(keepalive) = keepalive else { return pending().await };
    loop {
        let asked = until(connection, |inner| inner.pinged);
        match keepalive.interval {
            None => asked.await,
            Some(interval) => {
                let jitter = rand::rng().random_range(Duration::ZERO..=keepalive.interval_jitter);
                if timeout(interval + jitter, asked).await.is_err() {
                    connection.borrow_mut().ping();
                }
            }
        }
        loop {
            connection.borrow_mut().heard = false;
            if timeout(keepalive.timeout, until(connection, |inner| !inner.pinged)).await.is_ok() {
                break;
            }
            if !connection.borrow().heard {
                return Error::Silent;
            }
        }
    }
}

/// Waits until pings stand so.
async fn until(connection: &Shared, is_so: impl Fn(&Inner) -> bool) {
    poll_fn(|context| {
        let mut inner = connection.borrow_mut();
        if is_so(&inner) {
            return Poll::Ready(());
        }
        register(&mut inner.watcher, context);
        Poll::Pending
    })
    .await;
}

impl Inner {
    /// A request is about to begin: asks ahead of it whether the peer is there, if nothing has come for long.
    pub(super) fn ask_ahead(&mut self) {
        if let Some(limit) = self.options.asks_after
            && !self.pinged
            && clock::now().saturating_duration_since(self.last_heard) > limit
        {
            self.ping();
        }
    }

    /// Something came.
    pub(super) fn note_heard(&mut self) {
        self.heard = true;
        if self.options.asks_after.is_some() {
            self.last_heard = clock::now();
        }
    }
}
