//! Aggregate clusters: the priorities of several clusters, one after the other, share traffic as those of one cluster.

use std::sync::Arc;

use super::CommonLb;
use super::balancer::Forced;
use super::priority::{self, Counts, Share};
use crate::host::{AssignmentPolicy, Endpoints};

/// Which member takes a request, and which of its hosts.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The member's index.
    pub index: usize,
    /// The priority that was chosen for it.
    pub forced: Forced,
}

/// What is derived from the members' hosts and health, until either changes.
#[derive(Debug, Default)]
pub struct Aggregate {
    of: Vec<(usize, u32)>,
    /// Member and priority of each place.
    places: Vec<(usize, usize)>,
    shares: Vec<Share>,
}

impl Aggregate {
    /// The member for a random number; `None` for its hosts are not known yet.
    pub fn choose(
        &mut self,
        members: &[Option<Arc<Endpoints>>],
        common: &CommonLb,
        random: u64,
    ) -> Option<Member> {
        let key = |member: &Option<Arc<Endpoints>>| match member {
            Some(endpoints) => (Arc::as_ptr(endpoints) as usize, endpoints.epoch.now()),
            None => (0, 0),
        };
        if self.of.len() != members.len() || !members.iter().map(key).eq(self.of.iter().copied()) {
            self.of = members.iter().map(key).collect();
            self.derive(members, common);
        }
        let (at, source) = priority::pick(&self.shares, random)?;
        let (index, priority) = *self.places.get(at)?;
        Some(Member { index, forced: Forced { priority, source } })
    }

    fn derive(&mut self, members: &[Option<Arc<Endpoints>>], common: &CommonLb) {
        self.places.clear();
        let mut counts: Vec<Counts> = Vec::new();
        for (index, endpoints) in members.iter().enumerate() {
            let Some(endpoints) = endpoints else { continue };
            let of = priority::counts(&endpoints.priorities, &endpoints.policy, common);
            self.places.extend((0..of.len()).map(|priority| (index, priority)));
            counts.extend(of);
        }
        self.shares = priority::shares(&counts, &AssignmentPolicy::default(), common, &[]);
    }
}
