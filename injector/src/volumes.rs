//! Volumes of the pod and their mounts in the proxy's container.

use agent_contract::{annotations, containers as names, paths};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    ObjectFieldSelector, PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};

use crate::Added;
use crate::settings::Settings;

/// The volume of a custom bootstrap.
const CUSTOM_BOOTSTRAP: &str = "custom-bootstrap-volume";
/// Its file, as the agent is told.
pub(crate) const CUSTOM_BOOTSTRAP_FILE: &str = "/etc/istio/custom-bootstrap/custom_bootstrap.json";
const CRL_DIR: &str = "/var/run/secrets/istio/crl";

/// Adds the volumes that the pod does not have yet.
pub(crate) fn add(settings: &Settings<'_>, spec: &mut PodSpec, added: &mut Added) {
    let mut wanted = vec![
        empty(names::VOLUME_WORKLOAD_SOCKET, None),
        empty(names::VOLUME_CREDENTIAL_SOCKET, None),
        empty(names::VOLUME_WORKLOAD_CERTS, None),
        empty(names::VOLUME_ENVOY, Some("Memory")),
        empty(names::VOLUME_DATA, None),
        pod_info(),
        token(),
        config_map(names::VOLUME_ISTIOD_CA, names::CONFIG_MAP_ROOT, false),
        config_map(names::VOLUME_CA_CRL, names::CONFIG_MAP_CRL, true),
    ];
    if let Some(name) = settings.annotation(annotations::BOOTSTRAP_OVERRIDE) {
        wanted.push(config_map(CUSTOM_BOOTSTRAP, name, false));
    }
    wanted.extend(settings.user_volumes.iter().cloned());
    let volumes = spec.volumes.get_or_insert_default();
    for volume in wanted {
        if volumes.iter().all(|v| v.name != volume.name) {
            added.volumes.push(volume.name.clone());
            volumes.push(volume);
        }
    }
}

/// The mounts of the proxy's container.
pub(crate) fn mounts(settings: &Settings<'_>) -> Vec<VolumeMount> {
    let mut out = vec![
        mount(names::VOLUME_WORKLOAD_SOCKET, paths::WORKLOAD_SOCKET_DIR),
        mount(names::VOLUME_CREDENTIAL_SOCKET, paths::CREDENTIAL_SOCKET_DIR),
        mount(names::VOLUME_WORKLOAD_CERTS, paths::WORKLOAD_CREDENTIALS),
        mount(names::VOLUME_ISTIOD_CA, paths::ISTIOD_CA_DIR),
        mount(names::VOLUME_CA_CRL, CRL_DIR),
        mount(names::VOLUME_DATA, paths::DATA),
        mount(names::VOLUME_ENVOY, paths::CONFIG),
        mount(names::VOLUME_TOKEN, paths::TOKEN_DIR),
        mount(names::VOLUME_POD_INFO, paths::POD_INFO),
    ];
    if settings.annotation(annotations::BOOTSTRAP_OVERRIDE).is_some() {
        out.push(mount(CUSTOM_BOOTSTRAP, "/etc/istio/custom-bootstrap"));
    }
    out.extend(settings.user_mounts.iter().cloned());
    out
}

/// The agent's paths are relative to its working directory, which is `/` in a container.
fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.strip_prefix('.').unwrap_or(path).to_owned(),
        ..VolumeMount::default()
    }
}

fn empty(name: &str, medium: Option<&str>) -> Volume {
    let source = EmptyDirVolumeSource { medium: medium.map(str::to_owned), size_limit: None };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

fn config_map(name: &str, map: &str, optional: bool) -> Volume {
    let source = ConfigMapVolumeSource {
        name: map.to_owned(),
        optional: optional.then_some(true),
        ..ConfigMapVolumeSource::default()
    };
    Volume { name: name.to_owned(), config_map: Some(source), ..Volume::default() }
}

fn pod_info() -> Volume {
    let file = |name: &str| DownwardAPIVolumeFile {
        path: name.to_owned(),
        field_ref: Some(ObjectFieldSelector { api_version: None, field_path: format!("metadata.{name}") }),
        ..DownwardAPIVolumeFile::default()
    };
    let source = DownwardAPIVolumeSource {
        items: Some(vec![file("labels"), file("annotations")]),
        default_mode: None,
    };
    Volume { name: names::VOLUME_POD_INFO.to_owned(), downward_api: Some(source), ..Volume::default() }
}

fn token() -> Volume {
    let projection = ServiceAccountTokenProjection {
        audience: Some(names::TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(names::TOKEN_EXPIRATION_SECONDS),
        path: "istio-token".to_owned(),
    };
    let source = VolumeProjection { service_account_token: Some(projection), ..VolumeProjection::default() };
    let projected = ProjectedVolumeSource { sources: Some(vec![source]), default_mode: None };
    Volume { name: names::VOLUME_TOKEN.to_owned(), projected: Some(projected), ..Volume::default() }
}
