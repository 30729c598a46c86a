//! Resources by type: as they came, converted, active or warming.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sail_proxy_config::Kind as ConfigKind;
use sail_proxy_config::cluster::Cluster as RunCluster;
use sail_proxy_config::listener::Listener as RunListener;
use xds_api::type_url;

use super::leaving::{Leaving, Left};
use super::needs::{ALL, Need, Source};
use super::raw::Kind;
use super::snapshot::Parts;
use super::warm::Warm;

/// What stands in place of a type for names that are resolved.
pub(super) const DNS: &str = "dns";

/// What stands in place of a type for the first round of a cluster's health checks.
pub(super) const HEALTH: &str = "health checks";

/// All of them.
#[derive(Default)]
pub(super) struct Resources {
    pub(super) kinds: BTreeMap<String, Kind>,
    pub(super) clusters: Warm<RunCluster>,
    pub(super) listeners: Warm<RunListener>,
    /// Whence each CDS or LDS resource's own `self` sources are read.
    pub(super) parents: BTreeMap<&'static str, Source>,
    /// Whence tables come that scopes of SRDS name, and the `stat_prefix` of who asks for them.
    pub(super) tables_of_scopes: BTreeMap<Source, Box<str>>,
    /// What was asked for by name and does not exist.
    pub(super) absent: BTreeSet<(String, String)>,
    /// Filter configurations that servers were asked for.
    pub(super) leaving: Leaving,
}

impl Resources {
    pub(super) fn has(&self, need: &Need, parts: &Parts) -> bool {
        has(&self.kinds, &self.absent, need, parts)
    }

    /// Whether a resource is another than the one that is held.
    pub(super) fn is_new(&self, type_url: &str, name: &str, body: &[u8]) -> bool {
        let held = self.kinds.get(type_url).and_then(|kind| kind.held.get(name));
        held.is_none_or(|held| *held.body != *body)
    }

    /// Whether a version of this cluster or listener is in force.
    pub(super) fn is_active(&self, type_url: &str, name: &str) -> bool {
        match type_url {
            type_url::CLUSTER => self.clusters.is_active(name),
            type_url::LISTENER => self.listeners.is_active(name),
            _ => false,
        }
    }

    /// Gives up filter configurations that nobody names.
    pub(super) fn leave(&mut self, named: BTreeSet<String>, now: Instant, drain: Duration, parts: &Parts) {
        let Left { unnamed, over } = self.leaving.update(named, now, drain);
        if let Some(kind) = self.kinds.get_mut(type_url::EXTENSION_CONFIG) {
            unnamed.iter().for_each(|name| kind.remove(name));
        }
        for name in unnamed {
            self.absent.remove(&(type_url::EXTENSION_CONFIG.to_owned(), name));
        }
        over.iter().for_each(|name| parts.remove_extension(name));
    }

    pub(super) fn gone(&mut self, type_url: &str, name: &str, parts: &Parts) {
        match type_url {
            type_url::CLUSTER => {
                self.clusters.remove(name);
                parts.dns.remove(name);
                parts.convert.remove(ConfigKind::Cluster, name);
            }
            type_url::LISTENER => {
                self.listeners.remove(name);
                parts.convert.remove(ConfigKind::Listener, name);
            }
            type_url::EXTENSION_CONFIG => {
                self.absent.insert((type_url.to_owned(), name.to_owned()));
                parts.remove_extension(name);
            }
            type_url::SCOPED_ROUTE => parts.remove_scope(name),
            // Endpoints, routes and secrets in use stay as they are: who refers to them decides.
            _ => {
                self.absent.insert((type_url.to_owned(), name.to_owned()));
                return;
            }
        }
        parts.set_dirty();
        if let Some(kind) = self.kinds.get_mut(type_url) {
            kind.remove(name);
        }
    }
}

/// Whether what an object refers to is there, or known not to exist, or was refused: as in Envoy, nobody waits for a better
/// one.
pub(super) fn has(
    kinds: &BTreeMap<String, Kind>,
    absent: &BTreeSet<(String, String)>,
    need: &Need,
    parts: &Parts,
) -> bool {
    if need.type_url == DNS {
        return parts.dns.has(&need.name);
    }
    if need.type_url == HEALTH {
        return parts.is_checked(&need.name);
    }
    if need.name == ALL {
        return kinds.contains_key(need.type_url);
    }
    let name = need.name.as_str();
    kinds
        .get(need.type_url)
        .is_some_and(|kind| kind.held.contains_key(name) || kind.refused.contains_key(name))
        || absent.contains(&(need.type_url.to_owned(), need.name.clone()))
}
