//! The server's host: proxies let in, and their resources made by the translation from the snapshot of the moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use saild_ca::authenticate::{Authenticators, Credentials, Refusal};
use saild_model::{ChangeSet, Mesh, ProxyView};
use saild_serve::{Affected, Generator, Host, Identity, View};
use saild_translate::{Cache, NamedResource, Names, Warning};
use tonic::Status;
use xds_api::envoy::config::core::v3::Node;
use xds_api::type_url;
use xds_stream::resource::Resource;
use xds_stream::session::Demand;

/// Warnings that are remembered for the debug page.
const MAX_WARNINGS: usize = 1000;

/// A mesh and the version under which it is pushed.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) version: String,
}

/// What connections share.
#[derive(Debug)]
pub(crate) struct State {
    snapshot: ArcSwap<Snapshot>,
    pushes: AtomicU64,
    pub(crate) cache: Cache,
    warnings: std::sync::Mutex<BTreeSet<Warning>>,
}

impl State {
    pub(crate) fn new(mesh: Arc<Mesh>) -> Self {
        let state = Self {
            snapshot: ArcSwap::from_pointee(Snapshot { mesh: Arc::clone(&mesh), version: String::new() }),
            pushes: AtomicU64::new(0),
            cache: Cache::default(),
            warnings: std::sync::Mutex::default(),
        };
        state.replace(mesh);
        state
    }

    /// Serves another mesh from now on.
    pub(crate) fn replace(&self, mesh: Arc<Mesh>) {
        let number = self.pushes.fetch_add(1, Ordering::Relaxed) + 1;
        let version = format!("{:.0}/{number}", Timestamp::now());
        // What was wrong may be right now; what still is wrong is found again.
        self.warnings().clear();
        self.snapshot.store(Arc::new(Snapshot { mesh, version }));
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// What generation warned of since the mesh changed last.
    pub(crate) fn known_warnings(&self) -> Vec<Warning> {
        self.warnings().iter().cloned().collect()
    }

    fn warnings(&self) -> std::sync::MutexGuard<'_, BTreeSet<Warning>> {
        self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn warn(&self, found: Vec<Warning>) {
        if found.is_empty() {
            return;
        }
        let mut known = self.warnings();
        for warning in found {
            if known.len() >= MAX_WARNINGS || known.contains(&warning) {
                continue;
            }
            tracing::warn!("{} {}/{}: {}", warning.kind, warning.namespace, warning.name, warning.message);
            known.insert(warning);
        }
    }
}

/// Whom the server asks.
#[derive(Debug)]
pub(crate) struct Translation {
    pub(crate) state: Arc<State>,
    pub(crate) authenticators: Authenticators,
    pub(crate) check_identity: bool,
}

#[tonic::async_trait]
impl Host for Translation {
    fn ready(&self) -> bool {
        true
    }

    async fn authenticate(&self, extensions: &http::Extensions) -> Result<Option<Identity>, Status> {
        let credentials = extensions.get::<Credentials>();
        let Some(credentials) = credentials.filter(|credentials| credentials.encrypted) else {
            return Ok(None);
        };
        let caller = self.authenticators.authenticate(credentials).await.map_err(|refusal| {
            tracing::warn!(peer = ?credentials.peer, "stream refused: {refusal}");
            match refusal {
                Refusal::Unavailable { .. } => Status::unavailable(refusal.to_string()),
                _ => Status::unauthenticated(refusal.to_string()),
            }
        })?;
        Ok(Some(Identity { namespace: caller.namespace, service_account: caller.service_account }))
    }

    async fn connect(&self, node: &Node, identity: Option<&Identity>) -> Result<Arc<dyn View>, Status> {
        let mut proxy = saild_translate::proxy_view(node).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Status::invalid_argument(format!("{error}: {source}"))
        })?;
        if let Some(identity) = identity {
            if self.check_identity {
                check(&proxy, identity)?;
            }
            proxy.namespace.clone_from(&identity.namespace);
            proxy.service_account.clone_from(&identity.service_account);
        }
        Ok(Arc::new(Proxy { state: Arc::clone(&self.state), proxy, verified: identity.is_some() }))
    }
}

/// A proxy gets the configuration of the workload that it is, and of no other.
fn check(proxy: &ProxyView, identity: &Identity) -> Result<(), Status> {
    let deny = |what: &str, said: &str, is: &str| {
        Status::permission_denied(format!(
            "the node says that its {what} is {said:?}, its credentials say {is:?}"
        ))
    };
    if proxy.namespace != identity.namespace {
        return Err(deny("namespace", &proxy.namespace, &identity.namespace));
    }
    if !proxy.service_account.is_empty() && proxy.service_account != identity.service_account {
        return Err(deny("service account", &proxy.service_account, &identity.service_account));
    }
    Ok(())
}

struct Proxy {
    state: Arc<State>,
    proxy: ProxyView,
    /// Whether it showed who it is. Secrets are for those alone.
    verified: bool,
}

impl View for Proxy {
    fn affected(&self, change: &ChangeSet, type_url: &str, names: &BTreeSet<String>) -> Affected {
        if !saild_translate::affected(change, &self.proxy, type_url) {
            return Affected::Nothing;
        }
        if type_url == type_url::ENDPOINT && change.only_endpoints() {
            return Affected::Names(names.iter().filter(|name| concerns(name, change)).cloned().collect());
        }
        Affected::Anything
    }

    fn now(&self) -> Box<dyn Generator + '_> {
        Box::new(Moment { view: self, snapshot: self.state.snapshot() })
    }
}

/// Whether a cluster is of a service whose endpoints changed. Clusters are `outbound|<port>|<subset>|<host>`; of a
/// name of another shape nothing is known.
fn concerns(cluster: &str, change: &ChangeSet) -> bool {
    match cluster.rsplit_once('|') {
        Some((_, host)) => change.endpoints.contains(host),
        None => true,
    }
}

struct Moment<'a> {
    view: &'a Proxy,
    snapshot: Arc<Snapshot>,
}

impl Generator for Moment<'_> {
    fn version(&self) -> String {
        self.snapshot.version.clone()
    }

    fn generate(&self, type_url: &str, demand: &Demand) -> Vec<Resource> {
        let names = match demand {
            Demand::Everything => Names::Wildcard,
            Demand::Names(names) => Names::Set(names.clone()),
        };
        if type_url == type_url::SECRET && !self.view.verified {
            tracing::warn!(proxy = self.view.proxy.id, "no secrets over a connection without credentials");
            return Vec::new();
        }
        let state = &self.view.state;
        let made =
            saild_translate::generate(&self.snapshot.mesh, &self.view.proxy, type_url, &names, &state.cache);
        state.warn(made.warnings);
        made.resources.into_iter().map(resource).collect()
    }
}

/// The bytes of a made resource, without copying them for each proxy.
struct Encoded(Arc<NamedResource>);

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.0.any.value
    }
}

fn resource(made: Arc<NamedResource>) -> Resource {
    Resource {
        name: Arc::clone(&made.name),
        version: made.version.as_str().into(),
        type_url: made.any.type_url.as_str().into(),
        body: Bytes::from_owner(Encoded(made)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_change_concerns_the_clusters_of_its_host() {
        let host = "reviews.default.svc.cluster.local";
        let change = ChangeSet { endpoints: BTreeSet::from([host.into()]), ..ChangeSet::default() };
        assert!(concerns("outbound|9080||reviews.default.svc.cluster.local", &change));
        assert!(concerns("outbound|9080|v1|reviews.default.svc.cluster.local", &change));
        assert!(!concerns("outbound|9080||ratings.default.svc.cluster.local", &change));
    }
}
