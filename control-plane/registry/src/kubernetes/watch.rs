//! The watch of one kind.

use std::collections::HashMap;
use std::fmt::Debug;

use base::task::Supervised;
use futures_util::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config as WatchConfig, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::Kept;
use crate::object::{Key, Object};
use crate::source::Change;

/// A change of one kind.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) change: Change,
}

/// A running watch: dropping it ends it.
#[derive(Debug)]
pub(super) struct Watch {
    kind: &'static str,
    _task: Supervised<()>,
}

impl Watch {
    /// Watches a kind of Kubernetes; `keep` says what of an object is kept, if anything.
    pub(super) fn typed<K>(
        kind: &'static str,
        api: Api<K>,
        config: WatchConfig,
        events: &mpsc::Sender<Event>,
        keep: impl Fn(K) -> Kept + Send + Sync + 'static,
    ) -> Self
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let stream = watcher(api, config).default_backoff();
        let convert = move |object: K| Read { key: key(kind, object.meta()), result: Ok(keep(object)) };
        Self { kind, _task: Supervised::spawn(follow(kind, Box::pin(stream), convert, events.clone())) }
    }

    /// Watches a kind of the mesh.
    pub(super) fn of_mesh(
        kind: &'static str,
        api: Api<DynamicObject>,
        resource: ApiResource,
        events: &mpsc::Sender<Event>,
    ) -> Self {
        let stream = watcher(api, WatchConfig::default()).default_backoff();
        let convert = move |object: DynamicObject| Read {
            key: key(kind, &object.metadata),
            result: read_mesh(object, &resource),
        };
        Self { kind, _task: Supervised::spawn(follow(kind, Box::pin(stream), convert, events.clone())) }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }
}

/// An object as the API server has it, read.
struct Read {
    key: Key,
    result: Result<Kept, String>,
}

fn key(kind: &'static str, meta: &ObjectMeta) -> Key {
    Key {
        kind,
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

fn read_mesh(object: DynamicObject, resource: &ApiResource) -> Result<Kept, String> {
    let mut manifest = serde_json::to_value(&object).map_err(|e| e.to_string())?;
    // Items of a list come without these.
    manifest["apiVersion"] = resource.api_version.clone().into();
    manifest["kind"] = resource.kind.clone().into();
    let (object, warnings) = mesh_api::check(&manifest).map_err(|e| e.to_string())?;
    let object = Object::Mesh(object);
    for warning in warnings {
        tracing::warn!(object = %object.key(), "{warning}");
    }
    Ok(Some(object))
}

/// Follows a stream until nobody listens. An object that cannot be read keeps its last good content.
async fn follow<K>(
    kind: &'static str,
    mut stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Unpin,
    convert: impl Fn(K) -> Read,
    events: mpsc::Sender<Event>,
) {
    let mut good: HashMap<Key, Object> = HashMap::new();
    let mut listing: Vec<Read> = Vec::new();
    let mut listed = false;
    while let Some(event) = stream.next().await {
        let change = match event {
            Ok(watcher::Event::Init) => {
                listing.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listing.push(convert(object));
                continue;
            }
            Ok(watcher::Event::InitDone) => {
                listed = true;
                let before = std::mem::take(&mut good);
                for read in listing.drain(..) {
                    let last = before.get(&read.key).cloned();
                    if let Some(object) = settle(read.result, &read.key, last) {
                        good.insert(read.key, object);
                    }
                }
                Change::ReplaceKind { kind, objects: good.values().cloned().collect() }
            }
            Ok(watcher::Event::Apply(object)) => {
                let read = convert(object);
                let last = good.remove(&read.key);
                match settle(read.result, &read.key, last) {
                    Some(object) => {
                        good.insert(read.key, object.clone());
                        Change::Upsert(object)
                    }
                    None => Change::Delete(read.key),
                }
            }
            Ok(watcher::Event::Delete(object)) => {
                let read = convert(object);
                good.remove(&read.key);
                Change::Delete(read.key)
            }
            Err(error) if !listed && is_absent(&error) => {
                listed = true;
                tracing::warn!(kind, "is not installed in the cluster (no CRD): there are no such objects");
                Change::ReplaceKind { kind, objects: Vec::new() }
            }
            Err(error) => {
                // One that is not installed is asked for again and again: that is no news.
                if !is_absent(&error) {
                    tracing::warn!(kind, %error, "the watch failed and is begun again; what was read stays");
                }
                continue;
            }
        };
        if events.send(Event { kind, change }).await.is_err() {
            return;
        }
    }
}

fn settle(result: Result<Kept, String>, key: &Key, last: Option<Object>) -> Option<Object> {
    result.unwrap_or_else(|error| {
        let fate = if last.is_some() { "its last good content stays" } else { "it is not used" };
        tracing::error!(object = %key, "{error}; {fate}");
        last
    })
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}
