//! One subscription's counters. An attempt is what Envoy calls so: where nobody answers by himself it is a look, else
//! the first request and whatever follows it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xds_api::type_url;

use super::Wanted;
use crate::stats::sets::{cds, cluster_eds, extension_config, http_rds, http_srds, lds, sds};
use crate::stats::{Scope, StatSet, Store};

/// Where a subscription is counted.
pub(super) enum Counts {
    Clusters(cds::Scope),
    Listeners(lds::Scope),
    Endpoints(cluster_eds::Scope),
    Routes(http_rds::Scope),
    Scopes(http_srds::Scope),
    Secret(sds::Scope),
    Extension(extension_config::Scope),
}

/// How a resource was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken<'a> {
    /// Which version it is, where that is told.
    pub(super) version: Option<(&'a Store, &'a Arc<str>)>,
    pub(super) took: Duration,
    /// It is another than before.
    pub(super) changed: bool,
    /// The server says that it is gone.
    pub(super) removed: bool,
    /// What came has no resources.
    pub(super) empty: bool,
    /// How many there are now, of a whole type.
    pub(super) all: usize,
}

impl Taken<'_> {
    fn note_version<S: StatSet>(&self, scope: &Scope<S>) {
        if let Some((store, version)) = self.version {
            store.set_text(scope, version);
        }
    }
}

/// Adds to a counter that all sets have.
macro_rules! inc {
    ($counts:expr, $stat:ident) => {
        match $counts {
            Self::Clusters(scope) => scope.inc(cds::$stat),
            Self::Listeners(scope) => scope.inc(lds::$stat),
            Self::Endpoints(scope) => scope.inc(cluster_eds::$stat),
            Self::Routes(scope) => scope.inc(http_rds::$stat),
            Self::Scopes(scope) => scope.inc(http_srds::$stat),
            Self::Secret(scope) => scope.inc(sds::$stat),
            Self::Extension(scope) => scope.inc(extension_config::$stat),
        }
    };
}

/// Says when a set's resource was taken, which it was, and how long that took.
macro_rules! note {
    ($scope:ident, $set:ident, $taken:ident, $now:ident) => {{
        $scope.inc($set::update_success);
        $scope.set($set::update_time, $now);
        $scope.record($set::update_duration, $taken.took.as_millis().try_into().unwrap_or(u64::MAX));
        $taken.note_version($scope);
    }};
}

/// Counts a configuration that is another.
macro_rules! reload {
    ($scope:ident, $set:ident, $taken:ident, $now:ident) => {
        if $taken.changed {
            $scope.inc($set::config_reload);
            $scope.set($set::config_reload_time_ms, $now);
        }
    };
}

impl Counts {
    /// Those of what is asked for; `None`: of this type nothing is counted.
    pub(super) fn of(wanted: &Wanted<'_>, store: &Arc<Store>) -> Option<Self> {
        Some(match wanted.type_url {
            type_url::CLUSTER => Self::Clusters(store.scope("")),
            type_url::LISTENER => Self::Listeners(store.scope("")),
            type_url::ENDPOINT => Self::Endpoints(store.scope(wanted.asker)),
            type_url::ROUTE => Self::Routes(store.scope(&format!("{}.rds.{}", wanted.asker, wanted.name))),
            type_url::SCOPED_ROUTE => Self::Scopes(store.scope(wanted.asker)),
            type_url::SECRET => Self::Secret(store.scope(wanted.name)),
            type_url::EXTENSION_CONFIG => {
                Self::Extension(store.scope(&format!("{}.{}", wanted.asker, wanted.name)))
            }
            _ => return None,
        })
    }

    /// Whether who asks now is counted here, too: whole types, routes and secrets are asked for once for all who want
    /// them, endpoints and filters for each.
    pub(super) fn are_of(&self, asker: &str) -> bool {
        match self {
            Self::Endpoints(scope) => scope.name() == asker,
            Self::Scopes(scope) => scope.name() == asker,
            Self::Extension(scope) => {
                scope.name().strip_prefix(asker).is_some_and(|rest| rest.starts_with('.'))
            }
            Self::Clusters(_) | Self::Listeners(_) | Self::Routes(_) | Self::Secret(_) => true,
        }
    }

    /// The stream from a server of its own is up, or down.
    pub(super) fn connect(&self, up: bool) {
        let up = i64::from(up);
        match self {
            Self::Clusters(scope) => scope.set(cds::connected_state, up),
            Self::Listeners(scope) => scope.set(lds::connected_state, up),
            Self::Endpoints(scope) => scope.set(cluster_eds::connected_state, up),
            Self::Routes(scope) => scope.set(http_rds::connected_state, up),
            Self::Scopes(scope) => scope.set(http_srds::connected_state, up),
            Self::Secret(scope) => scope.set(sds::connected_state, up),
            Self::Extension(scope) => scope.set(extension_config::connected_state, up),
        }
    }

    /// It is asked for.
    pub(super) fn attempt(&self) {
        inc!(self, update_attempt);
    }

    /// It was taken.
    pub(super) fn take(&self, taken: &Taken<'_>) {
        self.attempt();
        let now = now();
        match self {
            Self::Clusters(scope) => {
                reload!(scope, cds, taken, now);
                note!(scope, cds, taken, now);
            }
            Self::Listeners(scope) => note!(scope, lds, taken, now),
            Self::Endpoints(scope) => take_endpoints(scope, taken, now),
            Self::Routes(scope) => {
                reload!(scope, http_rds, taken, now);
                note!(scope, http_rds, taken, now);
                if taken.empty {
                    scope.inc(http_rds::update_empty);
                }
            }
            Self::Scopes(scope) => {
                reload!(scope, http_srds, taken, now);
                note!(scope, http_srds, taken, now);
                let all = i64::try_from(taken.all).unwrap_or(i64::MAX);
                scope.set(http_srds::all_scopes, all);
                scope.set(http_srds::active_scopes, all);
            }
            Self::Secret(scope) => note!(scope, sds, taken, now),
            Self::Extension(scope) => {
                if taken.changed {
                    scope.inc(extension_config::config_reload);
                }
                note!(scope, extension_config, taken, now);
            }
        }
    }

    /// It was refused.
    pub(super) fn reject(&self) {
        self.fall_short();
        inc!(self, update_rejected);
    }

    /// There was no answer, or none that can be read.
    pub(super) fn fail(&self) {
        self.fall_short();
        inc!(self, update_failure);
    }

    /// The first answer was waited for in vain.
    pub(super) fn time_out(&self) {
        self.fall_short();
        inc!(self, init_fetch_timeout);
    }

    fn fall_short(&self) {
        self.attempt();
        if let Self::Extension(scope) = self {
            scope.inc(extension_config::config_fail);
        }
    }

    /// Whether a file without resources is an answer.
    pub(super) fn may_be_empty(&self) -> bool {
        matches!(self, Self::Endpoints(_) | Self::Routes(_))
    }
}

/// How long that took is not kept: it would be most of what a cluster without traffic takes.
fn take_endpoints(scope: &cluster_eds::Scope, taken: &Taken<'_>, now: i64) {
    scope.inc(cluster_eds::update_success);
    scope.set(cluster_eds::update_time, now);
    taken.note_version(scope);
    if taken.removed || taken.empty {
        scope.inc(cluster_eds::update_empty);
    } else if !taken.changed {
        scope.inc(cluster_eds::update_no_rebuild);
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
