//! Where objects come from: the registry that the settings name, started.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use saild_ca::authenticate::Authenticator;
use saild_ca::authenticate::jwt::AUDIENCE;
use saild_model::Mesh;
use saild_registry::directory::Statuses;
use saild_registry::{Directory, Kubernetes, Options, Registry, Updates};
use tracing::info;

use crate::settings::{Settings, Source};
use crate::token_review::Reviewer;

/// How often it is said that objects are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A registry whose initial state is known.
pub(crate) struct Started {
    pub(crate) registry: Arc<Registry>,
    pub(crate) updates: Updates,
    pub(crate) mesh: Arc<Mesh>,
    /// Of a directory: what became of its files.
    pub(crate) files: Statuses,
    /// Of Kubernetes: the check of its tokens.
    pub(crate) tokens: Option<Arc<dyn Authenticator>>,
}

/// Starts the registry and waits for its first complete state.
pub(crate) async fn start(settings: &Settings) -> anyhow::Result<Started> {
    let (files, tokens, (registry, mut updates)) = match &settings.source {
        Source::Directory(path) => {
            let directory = Directory::open(path)?;
            let files = directory.statuses();
            (files, None, Registry::start(directory, options(settings, true)))
        }
        Source::Kubernetes => {
            let client = kube::Client::try_default()
                .await
                .context("--registries Kubernetes: set KUBECONFIG, or run in a pod with a service account")?;
            let reviewer: Arc<dyn Authenticator> = Arc::new(Reviewer::new(client.clone(), AUDIENCE));
            let source = Kubernetes::new(client, &settings.system_namespace);
            (Statuses::default(), Some(reviewer), Registry::start(source, options(settings, false)))
        }
    };
    let first = loop {
        match tokio::time::timeout(PATIENCE, updates.next()).await {
            Ok(first) => break first,
            Err(_) => info!("waiting for the registry's objects"),
        }
    };
    Ok(Started { registry: Arc::new(registry), updates, mesh: first.mesh, files, tokens })
}

fn options(settings: &Settings, endpoints_from_pods: bool) -> Options {
    Options {
        domain: settings.domain.clone(),
        cluster: settings.cluster_id.clone(),
        mesh_config: Arc::clone(&settings.mesh_config),
        system_namespace: settings.system_namespace.clone(),
        revision: settings.revision.clone(),
        endpoints_from_pods,
        ..Options::default()
    }
}
