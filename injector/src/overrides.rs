//! What a user says about the proxy's containers, by naming them in the pod: laid over what injection makes of them.

use agent_contract::containers;
use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// The image that stands for "as injection says".
const AUTO: &str = "auto";

/// The user's containers of our names.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) proxy: Option<Container>,
    pub(crate) init: Option<Container>,
}

/// Takes them out of a pod.
pub(crate) fn take(spec: &mut PodSpec) -> Overrides {
    let mut out = Overrides { proxy: take_named(&mut spec.containers, containers::PROXY), init: None };
    if let Some(init) = &mut spec.init_containers {
        out.proxy = out.proxy.or_else(|| take_named(init, containers::PROXY));
        out.init = take_named(init, containers::INIT).or_else(|| take_named(init, containers::VALIDATION));
        if init.is_empty() {
            spec.init_containers = None;
        }
    }
    out
}

fn take_named(list: &mut Vec<Container>, name: &str) -> Option<Container> {
    let index = list.iter().position(|c| c.name == name)?;
    Some(list.remove(index))
}

/// Lays the user's container over the made one, by Kubernetes' rules of merging.
pub(crate) fn apply(made: Container, user: Option<Container>) -> Container {
    let Some(mut user) = user else { return made };
    let mut merged = made;
    if user.image.as_deref() == Some(AUTO) {
        user.image = None;
    }
    user.name.clone_from(&merged.name);
    // A variable is a value or a reference, a probe has one action: the user's replaces the whole.
    if let (Some(env), Some(own)) = (&mut merged.env, &user.env) {
        env.retain(|var| own.iter().all(|o| o.name != var.name));
    }
    for (probe, own) in [
        (&mut merged.readiness_probe, &user.readiness_probe),
        (&mut merged.liveness_probe, &user.liveness_probe),
        (&mut merged.startup_probe, &user.startup_probe),
    ] {
        let acts = |p: &k8s_openapi::api::core::v1::Probe| {
            p.exec.is_some() || p.http_get.is_some() || p.tcp_socket.is_some() || p.grpc.is_some()
        };
        if own.as_ref().is_some_and(acts) {
            *probe = None;
        }
    }
    merged.merge_from(user);
    merged
}
