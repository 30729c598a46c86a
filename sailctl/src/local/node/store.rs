//! The objects: in memory, and each in a file below `objects/`, replaced by rename, for the control plane to read.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::local::StateDir;
use crate::local::kind::{Key, Kind};

/// The objects of one mesh.
pub(crate) struct Store {
    objects: PathBuf,
    temporary: PathBuf,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    map: BTreeMap<Key, Arc<Value>>,
    version: u64,
}

impl Store {
    /// An empty store; what an earlier mesh left is removed.
    pub(crate) fn new(state: &StateDir) -> anyhow::Result<Self> {
        let (objects, temporary) = (state.objects(), state.temporary());
        for dir in [&objects, &temporary] {
            let _ = fs::remove_dir_all(dir);
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(Self { objects, temporary, inner: Mutex::default(), changed: watch::Sender::new(0) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of changes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.lock().map.get(key).cloned()
    }

    /// Reads an object as its type; an object that is not of its type reads as absent, with a log line.
    pub(crate) fn typed<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        typed(&*self.get(key)?)
    }

    /// All objects of a kind, of one namespace or of all.
    pub(crate) fn list(&self, kind: &Kind, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let inner = self.lock();
        let here =
            |key: &Key| key.kind == *kind && namespace.is_none_or(|namespace| key.namespace == namespace);
        inner.map.iter().filter(|(key, _)| here(key)).map(|(_, object)| object.clone()).collect()
    }

    /// Keys of everything in a namespace.
    pub(crate) fn keys(&self, namespace: &str) -> Vec<Key> {
        self.lock().map.keys().filter(|key| key.namespace == namespace).cloned().collect()
    }

    pub(crate) fn list_typed<T: DeserializeOwned>(&self, kind: &Kind) -> Vec<T> {
        self.list(kind, None).iter().filter_map(|object| typed(object)).collect()
    }

    /// Stores an object, giving it what every stored object has.
    pub(crate) fn put(&self, key: &Key, mut object: Value) -> anyhow::Result<Arc<Value>> {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        if let Some(meta) = object["metadata"].as_object_mut() {
            if !key.namespace.is_empty() {
                meta.insert("namespace".into(), key.namespace.clone().into());
            }
            meta.entry("uid").or_insert_with(|| uuid::Uuid::new_v4().to_string().into());
            meta.entry("creationTimestamp").or_insert_with(|| now().into());
            meta.insert("resourceVersion".into(), version.to_string().into());
        }
        self.write(key, &object)?;
        let object = Arc::new(object);
        inner.map.insert(key.clone(), object.clone());
        drop(inner);
        self.changed.send_replace(version);
        Ok(object)
    }

    /// Changes an object in place. `None` when there is none.
    pub(crate) fn update(
        &self,
        key: &Key,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Option<Arc<Value>>> {
        let Some(current) = self.get(key) else { return Ok(None) };
        let mut object = (*current).clone();
        change(&mut object);
        if object == *current {
            return Ok(Some(current));
        }
        self.put(key, object).map(Some)
    }

    /// Forgets an object.
    pub(crate) fn remove(&self, key: &Key) -> Option<Arc<Value>> {
        let mut inner = self.lock();
        let removed = inner.map.remove(key)?;
        inner.version += 1;
        let version = inner.version;
        let _ = fs::remove_file(self.path(key));
        drop(inner);
        self.changed.send_replace(version);
        Some(removed)
    }

    fn path(&self, key: &Key) -> PathBuf {
        let mut path = self.objects.join(key.kind.folder());
        if !key.namespace.is_empty() {
            path.push(&key.namespace);
        }
        path.join(format!("{}.yaml", key.name))
    }

    fn write(&self, key: &Key, object: &Value) -> anyhow::Result<()> {
        let path = self.path(key);
        let half = self.temporary.join("object");
        let write = || {
            let dir = path.parent().unwrap_or(&self.objects);
            fs::create_dir_all(dir)?;
            fs::write(&half, serde_norway::to_string(object).map_err(std::io::Error::other)?)?;
            fs::rename(&half, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

pub(crate) fn typed<T: DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone())
        .inspect_err(
            |error| tracing::warn!(object = %object["metadata"]["name"], %error, "object is not of its kind"),
        )
        .ok()
}

/// The time as Kubernetes writes it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Merges what a user applies over what is stored: the user's fields win; labels and annotations unite; what the mesh
/// gave (uid, addresses, status) stays.
pub(crate) fn merge(current: &Value, applied: &Value) -> Value {
    let mut object = applied.clone();
    let old = &current["metadata"];
    for field in ["uid", "creationTimestamp", "resourceVersion", "namespace", "deletionTimestamp"] {
        if !old[field].is_null() {
            object["metadata"][field] = old[field].clone();
        }
    }
    for field in ["labels", "annotations"] {
        if let Some(old) = old[field].as_object() {
            let mut united = old.clone();
            united.extend(applied["metadata"][field].as_object().cloned().unwrap_or_default());
            object["metadata"][field] = Value::Object(united);
        }
    }
    if !current["status"].is_null() {
        object["status"] = current["status"].clone();
    }
    if object["kind"] == "Service" {
        for field in ["clusterIP", "clusterIPs"] {
            if object["spec"][field].is_null() && !current["spec"][field].is_null() {
                object["spec"][field] = current["spec"][field].clone();
            }
        }
    }
    object
}

/// A minimal object.
pub(crate) fn object(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}})
}
