//! The init container that applies the capture rules, or checks those that a CNI plugin applied.

use agent_contract::{containers, ports};
use k8s_openapi::api::core::v1::{Capabilities, Container, SecurityContext};
use mesh_api::mesh_config::InterceptionMode;

use crate::env;
use crate::settings::Settings;
use crate::sidecar;

/// The container; none where nothing is captured.
pub(crate) fn container(settings: &Settings<'_>) -> Option<Container> {
    if settings.interception == InterceptionMode::None {
        return None;
    }
    let global = &settings.values.global;
    let cni = settings.values.istio_cni.enabled;
    let image = match global.proxy_init.image.as_str() {
        image if image.contains('/') => image.to_owned(),
        _ => settings.image.clone(),
    };
    let metadata = settings.proxy.proxy_metadata.iter().map(|(name, value)| env::plain(name, value));
    Some(Container {
        name: if cni { containers::VALIDATION } else { containers::INIT }.to_owned(),
        image: Some(image),
        image_pull_policy: Some(global.image_pull_policy.clone()).filter(|p| !p.is_empty()),
        args: Some(args(settings, cni)),
        env: Some(metadata.collect::<Vec<_>>()).filter(|env| !env.is_empty()),
        resources: Some(sidecar::resources(
            global.proxy_init.resources.as_ref().unwrap_or(&settings.resources),
        )),
        security_context: Some(if cni { as_proxy() } else { as_root(global.proxy.privileged) }),
        ..Container::default()
    })
}

fn args(settings: &Settings<'_>, cni: bool) -> Vec<String> {
    let (mesh, capture) = (&settings.config.mesh, &settings.capture);
    let mut args: Vec<String> = vec!["istio-iptables".to_owned()];
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("-p", mesh.proxy_listen_port.to_string());
    flag("-z", mesh.proxy_inbound_listen_port.to_string());
    flag("-u", ports::PROXY_UID.to_string());
    flag("-m", env::interception(settings.interception).to_owned());
    flag("-i", capture.include_outbound_ranges.clone());
    flag("-x", capture.exclude_outbound_ranges.clone());
    flag("-b", capture.include_inbound_ports.clone());
    flag("-d", never_captured(settings));
    for (name, value) in [
        ("-q", &capture.include_outbound_ports),
        ("-o", &capture.exclude_outbound_ports),
        ("-k", &capture.reroute_interfaces),
        ("-c", &capture.exclude_interfaces),
    ] {
        if !value.is_empty() {
            flag(name, value.clone());
        }
    }
    if cni {
        args.extend(["--run-validation".to_owned(), "--skip-rule-apply".to_owned()]);
    }
    args
}

/// Ports that belong to the mesh, then the user's.
fn never_captured(settings: &Settings<'_>) -> String {
    let mut list = vec![ports::PROXY_PROMETHEUS.to_string(), ports::HEALTH.to_string()];
    if settings.status_port != 0 {
        list.push(settings.status_port.to_string());
    }
    let user = settings.capture.exclude_inbound_ports.split(',').map(str::trim);
    list.extend(user.filter(|port| !port.is_empty()).map(str::to_owned));
    list.dedup();
    list.join(",")
}

fn as_root(privileged: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(privileged),
        capabilities: Some(Capabilities {
            add: Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(privileged),
        read_only_root_filesystem: Some(false),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        run_as_user: Some(0),
        ..SecurityContext::default()
    }
}

/// The check must see what the proxy sees: it runs as its user.
fn as_proxy() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(i64::from(ports::PROXY_GID)),
        run_as_non_root: Some(true),
        run_as_user: Some(i64::from(ports::PROXY_UID)),
        ..SecurityContext::default()
    }
}
