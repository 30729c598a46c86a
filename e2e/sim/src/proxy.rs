//! A proxy that has received its configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use sail_proxy_config::{Diagnostics, NoSources, Snapshot, State};
use saild_model::{Mesh, ProxyView};
use saild_translate::{Cache, Names, generate};
use xds_api::type_url;

/// Why a proxy cannot run what it is given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refuses a resource: both planes are ours, and disagree.
    #[error("{proxy} refuses {refused}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// What it says.
        refused: Diagnostics,
    },
    /// A listener or cluster names a resource that the control plane does not have.
    #[error("{proxy} is not given {names:?}")]
    Missing {
        /// The proxy.
        proxy: String,
        /// The names.
        names: Vec<String>,
    },
}

/// A proxy with its configuration.
#[derive(Debug)]
pub struct Proxy {
    /// Who it is.
    pub view: ProxyView,
    /// What it runs.
    pub snapshot: Arc<Snapshot>,
    /// What users are warned of.
    pub warnings: Vec<saild_translate::Warning>,
}

impl Proxy {
    /// Asks for everything, as a proxy does: clusters, their endpoints, listeners, their routes.
    pub fn load(mesh: &Mesh, view: ProxyView, cache: &Cache) -> Result<Self, Error> {
        let mut loading = Loading {
            mesh,
            view: &view,
            cache,
            state: State::new(Box::new(NoSources)),
            warnings: Vec::new(),
        };
        loading.take(type_url::CLUSTER, &Names::Wildcard)?;
        loading.take(type_url::LISTENER, &Names::Wildcard)?;
        let wanted = loading.state.wanted();
        let names = |set: &BTreeSet<sail_proxy_config::source::ResourceRef>| {
            Names::Set(set.iter().map(|reference| reference.name.to_string()).collect())
        };
        loading.take(type_url::ENDPOINT, &names(&wanted.assignments))?;
        loading.take(type_url::ROUTE, &names(&wanted.route_tables))?;
        let Loading { state, warnings, .. } = loading;
        Ok(Self { snapshot: state.snapshot(), view, warnings })
    }
}

struct Loading<'a> {
    mesh: &'a Mesh,
    view: &'a ProxyView,
    cache: &'a Cache,
    state: State,
    warnings: Vec<saild_translate::Warning>,
}

impl Loading<'_> {
    fn take(&mut self, url: &str, names: &Names) -> Result<(), Error> {
        let mut generated = generate(self.mesh, self.view, url, names, self.cache);
        if !generated.removed.is_empty() {
            return Err(Error::Missing { proxy: self.view.id.clone(), names: generated.removed });
        }
        self.warnings.append(&mut generated.warnings);
        for resource in &generated.resources {
            let refused = self.state.put(&resource.any);
            refused.map_err(|refused| Error::Refused { proxy: self.view.id.clone(), refused })?;
        }
        Ok(())
    }
}
