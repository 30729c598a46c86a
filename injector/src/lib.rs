//! A typed pod in, a typed pod out: the sidecar's containers, volumes and probes.
//!
//! There are no templates of text. What Istio's templates say is code here: [`Settings`] resolves annotations over the
//! installation's values once, the builders make typed containers of it, and [`json_patch`] compares the pod before and
//! after, once, at the end. `inject.istio.io/templates` chooses between the builders: `sidecar` and `gateway`.

mod config;
mod decision;
mod env;
mod error;
mod gateway;
mod init;
mod metadata;
mod overrides;
mod patch;
mod probes;
mod prometheus;
mod settings;
mod sidecar;
mod volumes;
mod workload;

use std::collections::BTreeMap;

use agent_contract::containers;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

pub use config::{InjectConfig, Policy, ProxyInitValues, ProxyValues, Resources, Selection, Values};
pub use decision::SkipReason;
pub use error::Error;
pub use patch::json_patch;
pub use settings::{Settings, Template, warnings};

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It stays as it is.
    Skip(SkipReason),
    /// It gets a proxy.
    Inject(Box<Pod>),
}

/// Decides about a pod and injects the proxy. The pod must carry its namespace, which an admission request may keep
/// outside of it; `namespace_labels` are those of that namespace.
pub fn inject(
    pod: &Pod,
    namespace_labels: &BTreeMap<String, String>,
    config: &InjectConfig,
) -> Result<Decision, Error> {
    if let Some(reason) = decision::skip(pod, namespace_labels, config) {
        return Ok(Decision::Skip(reason));
    }
    let settings = Settings::resolve(pod, config)?;
    let mut pod = pod.clone();
    let Some(mut spec) = pod.spec.take() else { return Ok(Decision::Skip(SkipReason::NoContainers)) };
    let mut added = Added::default();

    // What the user says about the proxy's containers is laid over what is made, at the end.
    let user = overrides::take(&mut spec);
    let app_containers: Vec<Container> = spec.containers.clone();
    let mut proxy = match settings.template {
        Template::Sidecar => sidecar::container(&settings, &app_containers),
        Template::Gateway => gateway::container(&settings, &app_containers, user.proxy.as_ref()),
    };
    if settings.template == Template::Sidecar {
        probes::rewrite(&settings, &mut spec, &mut proxy)?;
        if let Some(init) = init::container(&settings) {
            added.init_containers.push(init.name.clone());
            place_init(&mut spec, overrides::apply(init, user.init));
        }
    } else {
        gateway::pod_settings(&mut spec);
    }
    prometheus::merge(&settings, &mut pod, &mut proxy)?;
    let proxy = overrides::apply(proxy, user.proxy);
    place_proxy(&settings, &mut spec, proxy, &mut added);
    volumes::add(&settings, &mut spec, &mut added);
    add_pull_secrets(&settings, &mut spec, &mut added);
    pod.spec = Some(spec);
    metadata::apply(&settings, &app_containers, &added, &mut pod);
    Ok(Decision::Inject(Box::new(pod)))
}

/// What was added, for the status annotation.
#[derive(Debug, Default)]
struct Added {
    init_containers: Vec<String>,
    containers: Vec<String>,
    volumes: Vec<String>,
    pull_secrets: Vec<String>,
}

/// The capture rules come last, so that the user's init containers still reach the network; the check of rules that a
/// CNI plugin made comes first, as nothing else should run without them.
fn place_init(spec: &mut PodSpec, init: Container) {
    let all = spec.init_containers.get_or_insert_default();
    all.retain(|c| c.name != init.name);
    if init.name == containers::VALIDATION {
        all.insert(0, init);
    } else {
        all.push(init);
    }
}

fn place_proxy(settings: &Settings<'_>, spec: &mut PodSpec, proxy: Container, added: &mut Added) {
    if settings.native_sidecar {
        // Rules first, then the proxy, then init containers of the user, whose traffic is captured.
        added.init_containers.push(proxy.name.clone());
        let all = spec.init_containers.get_or_insert_default();
        let ours = |c: &Container| c.name == containers::INIT || c.name == containers::VALIDATION;
        let (mut first, rest): (Vec<_>, Vec<_>) = std::mem::take(all).into_iter().partition(ours);
        first.push(proxy);
        first.extend(rest);
        *all = first;
        return;
    }
    added.containers.push(proxy.name.clone());
    if settings.hold_application {
        spec.containers.insert(0, proxy);
    } else {
        // Last, so that `kubectl exec` without a name still means the application.
        spec.containers.push(proxy);
    }
}

fn add_pull_secrets(settings: &Settings<'_>, spec: &mut PodSpec, added: &mut Added) {
    for name in &settings.values.global.image_pull_secrets {
        let all = spec.image_pull_secrets.get_or_insert_default();
        if all.iter().all(|s| s.name != *name) {
            all.push(k8s_openapi::api::core::v1::LocalObjectReference { name: name.clone() });
            added.pull_secrets.push(name.clone());
        }
    }
}
