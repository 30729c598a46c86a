//! A pod's volumes as directories: made when the pod starts, written again when what they show has changed or a token gets
//! old, gone with the pod.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::issuer::Account;
use super::store::Store;
use super::{Node, env};
use crate::local::kind::Key;
use crate::local::sandbox::Mount;

/// The volumes of one pod.
pub(crate) struct Volumes {
    root: PathBuf,
    pod: Pod,
    volumes: BTreeMap<String, Volume>,
}

/// A file's content; `None` where a token is still good.
type Files = BTreeMap<String, Option<Vec<u8>>>;

impl Drop for Volumes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Volumes {
    /// Makes all volumes of a pod below a directory.
    pub(crate) fn create(node: &Node, pod: &Pod, root: PathBuf) -> anyhow::Result<Self> {
        let list = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let volumes = list.map(|volume| (volume.name.clone(), volume.clone())).collect();
        let this = Self { root, pod: pod.clone(), volumes };
        for name in this.volumes.keys() {
            let dir = this.dir(name);
            fs::create_dir_all(&dir)?;
            // Any user of the pod may write; files of others are made read-only one by one.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        }
        this.refresh(node)?;
        Ok(this)
    }

    fn dir(&self, volume: &str) -> PathBuf {
        self.root.join(volume)
    }

    /// Writes what has changed.
    pub(crate) fn refresh(&self, node: &Node) -> anyhow::Result<()> {
        for (name, volume) in &self.volumes {
            let files = self.files(node, volume).with_context(|| format!("volume {name}"))?;
            write_files(&self.dir(name), files).with_context(|| format!("volume {name}"))?;
        }
        Ok(())
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn files(&self, node: &Node, volume: &Volume) -> anyhow::Result<Files> {
        let store = &node.store;
        if let Some(source) = &volume.config_map {
            return config_map(
                store,
                self.namespace(),
                &source.name,
                source.items.as_deref(),
                source.optional,
            );
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            return secret(store, self.namespace(), name, source.items.as_deref(), source.optional);
        }
        if let Some(source) = &volume.downward_api {
            return self.downward(source.items.as_deref().unwrap_or_default());
        }
        if let Some(source) = &volume.projected {
            let mut files = Files::new();
            for part in source.sources.iter().flatten() {
                files.extend(self.projection(node, &volume.name, part)?);
            }
            return Ok(files);
        }
        if volume.empty_dir.is_some() || volume.host_path.is_some() {
            return Ok(Files::new());
        }
        bail!(
            "of a type that the local mesh does not have; there are configMap, secret, downwardAPI, projected, emptyDir, hostPath"
        )
    }

    fn projection(&self, node: &Node, volume: &str, part: &VolumeProjection) -> anyhow::Result<Files> {
        if let Some(source) = &part.config_map {
            return config_map(
                &node.store,
                self.namespace(),
                &source.name,
                source.items.as_deref(),
                source.optional,
            );
        }
        if let Some(source) = &part.secret {
            return secret(
                &node.store,
                self.namespace(),
                &source.name,
                source.items.as_deref(),
                source.optional,
            );
        }
        if let Some(source) = &part.downward_api {
            return self.downward(source.items.as_deref().unwrap_or_default());
        }
        if let Some(source) = &part.service_account_token {
            return Ok(Files::from([(source.path.clone(), self.token(node, volume, source)?)]));
        }
        bail!("projected: a source that is none of configMap, secret, downwardAPI, serviceAccountToken")
    }

    /// A token, unless the one in place has more than a fifth of its life before it.
    fn token(
        &self,
        node: &Node,
        volume: &str,
        source: &ServiceAccountTokenProjection,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let seconds = source.expiration_seconds.unwrap_or(3600).max(600);
        if let Ok(age) = fs::metadata(self.dir(volume).join(&source.path)).and_then(|meta| meta.modified()) {
            let age = age.elapsed().unwrap_or_default().as_secs();
            if i64::try_from(age).is_ok_and(|age| age < seconds * 4 / 5) {
                return Ok(None);
            }
        }
        let name =
            self.pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let account = node
            .store
            .get(&Key::core("ServiceAccount", self.namespace(), name))
            .with_context(|| format!("serviceaccount {name:?} not found"))?;
        let uid = account["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let account = Account { name: name.to_owned(), uid };
        let audience = source.audience.as_deref().unwrap_or(super::issuer::ISSUER);
        Ok(Some(node.issuer.token(&self.pod, &account, audience, seconds)?.into_bytes()))
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile]) -> anyhow::Result<Files> {
        let mut files = Files::new();
        for item in items {
            let value = if let Some(field) = &item.field_ref {
                env::field_value(&self.pod, &field.field_path)?
            } else if let Some(resource) = &item.resource_field_ref {
                let name = resource.container_name.as_deref().unwrap_or_default();
                let mut containers = self.pod.spec.iter().flat_map(|spec| &spec.containers);
                let container = containers
                    .find(|container| container.name == name)
                    .with_context(|| format!("downwardAPI {}: no container {name:?}", item.path))?;
                env::resource_value(&self.pod, container, resource)?
            } else {
                bail!("downwardAPI {}: neither fieldRef nor resourceFieldRef", item.path)
            };
            files.insert(item.path.clone(), Some(value.into_bytes()));
        }
        Ok(files)
    }

    /// Where a container sees the volumes.
    pub(crate) fn mounts(&self, container: &Container) -> anyhow::Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = self.volumes.get(&mount.name).with_context(|| {
                format!("container {}: volumeMounts: the pod has no volume {:?}", container.name, mount.name)
            })?;
            let mut source = match &volume.host_path {
                Some(host) => PathBuf::from(&host.path),
                None => self.dir(&mount.name),
            };
            if let Some(sub) = mount.sub_path.as_deref().filter(|sub| !sub.is_empty()) {
                source.push(below(sub)?);
                if !source.exists() {
                    fs::create_dir_all(&source)?;
                }
            }
            let read_only = mount.read_only == Some(true);
            mounts.push(Mount { source, path: PathBuf::from(&mount.mount_path), read_only });
        }
        Ok(mounts)
    }
}

fn config_map(
    store: &Store,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
) -> anyhow::Result<Files> {
    pick(env::config_map_files(store, namespace, name), items, optional)
}

fn secret(
    store: &Store,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
) -> anyhow::Result<Files> {
    pick(env::secret(store, namespace, name), items, optional)
}

fn pick(
    data: anyhow::Result<BTreeMap<String, Vec<u8>>>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
) -> anyhow::Result<Files> {
    let data = match data {
        Err(_) if optional == Some(true) => return Ok(Files::new()),
        other => other?,
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, Some(value))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => drop(files.insert(item.path.clone(), Some(value.clone()))),
            None if optional == Some(true) => {}
            None => bail!("no key {:?}", item.key),
        }
    }
    Ok(files)
}

/// A path that stays below where it is put.
fn below(path: &str) -> anyhow::Result<&Path> {
    let path = Path::new(path);
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(path);
    }
    bail!("path {} leaves the volume", path.display())
}

/// Replaces files by rename, so that no reader sees half of one.
fn write_files(dir: &Path, files: Files) -> anyhow::Result<()> {
    for (name, content) in files {
        let Some(content) = content else { continue };
        let path = dir.join(below(&name)?);
        if fs::read(&path).is_ok_and(|current| current == content) {
            continue;
        }
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent)?;
        let half = parent.join(".half-written");
        fs::write(&half, content)?;
        fs::set_permissions(&half, fs::Permissions::from_mode(0o644))?;
        fs::rename(&half, &path)?;
    }
    Ok(())
}
