//! The container of the proxy beside an application.

use std::collections::BTreeMap;

use agent_contract::{annotations, containers, paths, ports};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
    ResourceRequirements, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mesh_api::mesh_config::InterceptionMode;

use crate::config::Resources;
use crate::env;
use crate::settings::Settings;
use crate::volumes;

/// The agent's command where a hook runs it. The image has the agent under this name of Istio's too.
const AGENT: &str = "pilot-agent";

/// `istio-proxy`
pub(crate) fn container(settings: &Settings<'_>, apps: &[Container]) -> Container {
    let mut container = base(settings, apps, "sidecar");
    container.security_context = Some(security(settings));
    container.lifecycle = lifecycle(settings);
    if settings.native_sidecar {
        container.restart_policy = Some("Always".to_owned());
    }
    container
}

/// What sidecars and gateways share. `role` is the agent's argument: `sidecar` or `router`.
pub(crate) fn base(settings: &Settings<'_>, apps: &[Container], role: &str) -> Container {
    let global = &settings.values.global;
    let policy = Some(global.image_pull_policy.clone()).filter(|p| !p.is_empty());
    Container {
        name: containers::PROXY.to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: policy,
        args: Some(args(settings, role)),
        env: Some(env::of_proxy(settings, apps)),
        ports: Some(vec![ContainerPort {
            container_port: i32::from(ports::PROXY_PROMETHEUS),
            protocol: Some("TCP".to_owned()),
            name: Some("http-envoy-prom".to_owned()),
            ..ContainerPort::default()
        }]),
        readiness_probe: readiness(settings),
        startup_probe: startup(settings),
        resources: Some(resources(&settings.resources)),
        volume_mounts: Some(volumes::mounts(settings)),
        ..Container::default()
    }
}

/// Requests and limits as Kubernetes has them.
pub(crate) fn resources(resources: &Resources) -> ResourceRequirements {
    let quantities = |map: &BTreeMap<String, String>| {
        let typed: BTreeMap<String, Quantity> =
            map.iter().map(|(k, v)| (k.clone(), Quantity(v.clone()))).collect();
        Some(typed).filter(|map| !map.is_empty())
    };
    ResourceRequirements {
        claims: None,
        limits: quantities(&resources.limits),
        requests: quantities(&resources.requests),
    }
}

fn args(settings: &Settings<'_>, role: &str) -> Vec<String> {
    let proxy = &settings.values.global.proxy;
    let level = settings.annotation(annotations::LOG_LEVEL).unwrap_or(&proxy.log_level);
    let components =
        settings.annotation(annotations::COMPONENT_LOG_LEVEL).unwrap_or(&proxy.component_log_level);
    let mut args = vec![
        "proxy".to_owned(),
        role.to_owned(),
        "--domain".to_owned(),
        format!("$(POD_NAMESPACE).svc.{}", proxy.cluster_domain),
        format!("--proxyLogLevel={level}"),
        format!("--proxyComponentLogLevel={components}"),
    ];
    let agent =
        settings.annotation(annotations::AGENT_LOG_LEVEL).unwrap_or(&settings.values.global.logging.level);
    if !agent.is_empty() {
        args.push(format!("--log_output_level={agent}"));
    }
    args
}

fn ready_probe() -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(paths::READY.to_owned()),
            port: IntOrString::Int(i32::from(ports::HEALTH)),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

fn readiness(settings: &Settings<'_>) -> Option<Probe> {
    (settings.status_port != 0).then(|| Probe {
        initial_delay_seconds: Some(settings.readiness.initial_delay).filter(|s| *s > 0),
        period_seconds: Some(settings.readiness.period),
        failure_threshold: Some(settings.readiness.failure_threshold),
        ..ready_probe()
    })
}

fn startup(settings: &Settings<'_>) -> Option<Probe> {
    let values = &settings.values.global.proxy.startup_probe;
    (settings.status_port != 0 && values.enabled).then(|| Probe {
        period_seconds: Some(1),
        failure_threshold: Some(values.failure_threshold),
        ..ready_probe()
    })
}

fn security(settings: &Settings<'_>) -> SecurityContext {
    let privileged = settings.values.global.proxy.privileged;
    let tproxy = settings.interception == InterceptionMode::Tproxy;
    let mut add = Vec::new();
    if tproxy {
        add.push("NET_ADMIN".to_owned());
    }
    if settings.bind_low_ports {
        add.push("NET_BIND_SERVICE".to_owned());
    }
    // A transparent socket, or a port below 1024, takes a capability, which only root keeps over exec.
    let root = tproxy || settings.bind_low_ports;
    SecurityContext {
        allow_privilege_escalation: Some(privileged),
        capabilities: Some(Capabilities {
            add: Some(add).filter(|add| !add.is_empty()),
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(privileged),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(i64::from(ports::PROXY_GID)),
        run_as_non_root: Some(!root),
        run_as_user: Some(if root { 0 } else { i64::from(ports::PROXY_UID) }),
        ..SecurityContext::default()
    }
}

fn lifecycle(settings: &Settings<'_>) -> Option<Lifecycle> {
    if let Some(lifecycle) = &settings.values.global.proxy.lifecycle {
        return Some(lifecycle.clone());
    }
    let run = |command: &[&str]| LifecycleHandler {
        exec: Some(ExecAction { command: Some(command.iter().map(|s| (*s).to_owned()).collect()) }),
        ..LifecycleHandler::default()
    };
    if settings.native_sidecar {
        let debug_port = format!("--debug-port={}", settings.status_port);
        let drain = run(&[AGENT, "request", &debug_port, "POST", "drain"]);
        return Some(Lifecycle { pre_stop: Some(drain), ..Lifecycle::default() });
    }
    settings
        .hold_application
        .then(|| Lifecycle { post_start: Some(run(&[AGENT, "wait"])), ..Lifecycle::default() })
}
