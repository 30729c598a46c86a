//! Choices made ahead of time, so that connections can be made before the requests that go there come.

use std::collections::VecDeque;
use std::sync::Arc;

use super::balancer::Events;
use crate::host::{Endpoints, Health, Host};

/// When the host that is picked is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// By the request that asks.
    Now,
    /// By one that has not come yet.
    Ahead,
}

/// Hosts that were foreseen, for as long as hosts and their health stay the same.
#[derive(Debug)]
pub(super) struct Peeked {
    /// With what their choices met with.
    hosts: VecDeque<(Arc<Host>, Events)>,
    most: usize,
}

impl Peeked {
    /// As many may be foreseen as there are healthy hosts.
    pub(super) fn new(endpoints: &Endpoints) -> Self {
        let most = endpoints.hosts().filter(|host| host.health() == Health::Healthy).count();
        Self { hosts: VecDeque::new(), most }
    }

    pub(super) fn is_full(&self) -> bool {
        self.hosts.len() >= self.most
    }

    pub(super) fn add(&mut self, host: Arc<Host>, events: Events) {
        self.hosts.push_back((host, events));
    }

    /// The one that was foreseen first.
    pub(super) fn next(&mut self) -> Option<(Arc<Host>, Events)> {
        self.hosts.pop_front()
    }
}
