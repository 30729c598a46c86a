//! The source that watches a Kubernetes API server.
//!
//! Each kind has a watch of its own, which lists, follows, and lists again when it fell behind. The first message to the
//! registry waits until all kinds are listed, so that the initial state is complete. While the API server cannot be
//! reached nothing is sent: what was known stays. A kind whose CRD is not installed has no objects, until it is.

mod slim;
mod watch;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher::Config as WatchConfig;
use mesh_api::Kind;
use tokio::sync::mpsc;

use crate::object::Object;
use crate::source::{Change, Source};
use watch::{Event, Watch};

/// An API server that cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account says where it is.
    #[error("no Kubernetes configuration: set KUBECONFIG, or run in a pod with a service account")]
    Config(#[from] kube::config::InferConfigError),
    /// The configuration cannot be used.
    #[error("no client for the Kubernetes API server can be made")]
    Client(#[from] kube::Error),
}

/// Secrets that never hold certificates: releases of Helm can be large, and are many.
const SECRETS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// The source.
pub struct Kubernetes {
    client: kube::Client,
    system_namespace: String,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("system_namespace", &self.system_namespace).finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// The API server that the environment names: a kubeconfig, or the pod's service account.
    pub async fn infer(system_namespace: &str) -> Result<Self, Error> {
        let config = kube::Config::infer().await?;
        Ok(Self::new(kube::Client::try_from(config)?, system_namespace))
    }

    /// The API server of a client.
    pub fn new(client: kube::Client, system_namespace: &str) -> Self {
        Self { client, system_namespace: system_namespace.to_owned() }
    }

    fn watches(&self, events: &mpsc::Sender<Event>) -> Vec<Watch> {
        let all = WatchConfig::default();
        let secrets = WatchConfig::default().fields(SECRETS);
        let system = self.system_namespace.clone();
        let mut out = vec![
            Watch::typed::<Namespace>("Namespace", self.api(), all.clone(), events, slim::namespace),
            Watch::typed::<Node>("Node", self.api(), all.clone(), events, slim::node),
            Watch::typed::<Service>("Service", self.api(), all.clone(), events, slim::service),
            Watch::typed::<Pod>("Pod", self.api(), all.clone(), events, slim::pod),
            Watch::typed::<EndpointSlice>(
                "EndpointSlice",
                self.api(),
                all.clone(),
                events,
                slim::endpoint_slice,
            ),
            Watch::typed::<Secret>("Secret", self.api(), secrets, events, slim::secret),
            Watch::typed::<ConfigMap>("ConfigMap", self.api(), all.clone(), events, move |map| {
                slim::config_map(map, &system)
            }),
        ];
        for kind in Kind::ALL {
            let info = kind.info();
            let resource = ApiResource {
                group: info.group.to_owned(),
                version: info.versions[0].to_owned(),
                api_version: format!("{}/{}", info.group, info.versions[0]),
                kind: info.name.to_owned(),
                plural: info.plural.to_owned(),
            };
            let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
            out.push(Watch::of_mesh(info.name, api, resource, events));
        }
        out
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource,
        K::DynamicType: Default,
    {
        Api::all(self.client.clone())
    }
}

impl Source for Kubernetes {
    async fn run(self, changes: mpsc::Sender<Vec<Change>>) {
        let (send, mut events) = mpsc::channel(256);
        let watches = self.watches(&send);
        drop(send);
        let mut waiting: Vec<&'static str> = watches.iter().map(Watch::kind).collect();
        let mut initial: Vec<Change> = Vec::new();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = changes.closed() => return,
            };
            let Some(Event { kind, change }) = event else { return };
            if let Change::ReplaceKind { .. } = &change {
                waiting.retain(|k| *k != kind);
            }
            initial.push(change);
            if !waiting.is_empty() {
                continue;
            }
            if changes.send(std::mem::take(&mut initial)).await.is_err() {
                return;
            }
        }
    }
}

/// An object as it is kept.
pub(crate) type Kept = Option<Object>;
