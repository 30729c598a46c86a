//! A pod whose container `istio-proxy` with `image: auto` becomes a gateway's proxy.

use agent_contract::ports;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, PodSecurityContext, PodSpec, SecurityContext, Sysctl,
};

use crate::settings::Settings;
use crate::sidecar;

/// Lets the proxy listen below 1024 without being root.
const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";

/// `istio-proxy`
pub(crate) fn container(settings: &Settings<'_>, apps: &[Container], user: Option<&Container>) -> Container {
    let mut own: Vec<Container> = apps.to_vec();
    own.extend(user.cloned());
    let mut container = sidecar::base(settings, &own, "router");
    container.security_context = Some(SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(i64::from(ports::PROXY_GID)),
        run_as_non_root: Some(true),
        run_as_user: Some(i64::from(ports::PROXY_UID)),
        ..SecurityContext::default()
    });
    container
}

/// What the pod as a whole needs.
pub(crate) fn pod_settings(spec: &mut PodSpec) {
    let security = spec.security_context.get_or_insert_with(PodSecurityContext::default);
    let sysctls = security.sysctls.get_or_insert_default();
    if sysctls.iter().all(|s| s.name != UNPRIVILEGED_PORTS) {
        sysctls.push(Sysctl { name: UNPRIVILEGED_PORTS.to_owned(), value: "0".to_owned() });
    }
}
