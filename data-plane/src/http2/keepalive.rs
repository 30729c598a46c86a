//! Asks now and then whether a peer is there (`connection_keepalive`).

use std::future::poll_fn;
use std::time::Duration;

use sail_proxy_config::hcm::Http2Keepalive;

use super::connection::Shared;
use super::error::Error;

/// How often, and how long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl Keepalive {
    /// As the configuration has it; without an interval nobody is asked.
    pub(crate) fn of(config: Option<Http2Keepalive>) -> Option<Self> {
        let Http2Keepalive { interval, timeout } = config?;
        Some(Self { interval: interval?, timeout })
    }
}

/// Ends when an answer stays away.
pub(super) async fn run(connection: &Shared, keepalive: Option<Keepalive>) -> Error {
    let Some(Keepalive { interval, timeout }) = keepalive else {
        return poll_fn(|_| std::task::Poll::Pending).await;
    };
    loop {
        tokio::time::sleep(interval).await;
        connection.borrow_mut().ping();
        tokio::time::sleep(timeout).await;
        if connection.borrow().pinged {
            return Error::Silent;
        }
        tokio::time::sleep(interval.saturating_sub(timeout)).await;
    }
}
