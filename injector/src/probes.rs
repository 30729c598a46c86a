//! The application's probes and hooks, led through the agent: the kubelet has no certificate of the mesh, and the
//! capture rules would send its requests to the proxy.

use agent_contract::env;
use agent_contract::probes::{self, AppProbers, Grpc, HttpGet, HttpHeader, ProbeKind, Prober, TcpSocket};
use k8s_openapi::api::core::v1::{
    Container, HTTPGetAction, LifecycleHandler, PodSpec, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::env::plain;
use crate::error::Error;
use crate::settings::Settings;

/// Rewrites the probes of all application containers, and tells the agent what they were.
pub(crate) fn rewrite(
    settings: &Settings<'_>,
    spec: &mut PodSpec,
    proxy: &mut Container,
) -> Result<(), Error> {
    if !settings.rewrite_probes || settings.status_port == 0 {
        return Ok(());
    }
    let mut probers = AppProbers::new();
    for container in &mut spec.containers {
        Rewriter::new(container, settings.status_port).container(container, &mut probers)?;
    }
    // Init containers that stay have probes as well.
    for container in spec.init_containers.iter_mut().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            Rewriter::new(container, settings.status_port).container(container, &mut probers)?;
        }
    }
    if !probers.is_empty() {
        let variable = plain(env::ISTIO_KUBE_APP_PROBERS.name, probes::to_json(&probers));
        proxy.env.get_or_insert_default().push(variable);
    }
    Ok(())
}

/// Rewrites what one container has.
struct Rewriter {
    name: String,
    named_ports: Vec<(String, i32)>,
    status_port: u16,
}

impl Rewriter {
    fn new(container: &Container, status_port: u16) -> Self {
        let ports = container.ports.iter().flatten();
        let named_ports = ports.filter_map(|p| Some((p.name.clone()?, p.container_port))).collect();
        Self { name: container.name.clone(), named_ports, status_port }
    }

    fn container(&self, container: &mut Container, probers: &mut AppProbers) -> Result<(), Error> {
        for (kind, probe) in [
            (ProbeKind::Readiness, &mut container.readiness_probe),
            (ProbeKind::Liveness, &mut container.liveness_probe),
            (ProbeKind::Startup, &mut container.startup_probe),
        ] {
            if let Some(probe) = probe {
                self.probe(kind, probe, probers)?;
            }
        }
        if let Some(lifecycle) = &mut container.lifecycle {
            for (kind, handler) in [
                (ProbeKind::PreStop, &mut lifecycle.pre_stop),
                (ProbeKind::PostStart, &mut lifecycle.post_start),
            ] {
                if let Some(handler) = handler {
                    self.handler(kind, handler, probers)?;
                }
            }
        }
        Ok(())
    }

    fn probe(&self, kind: ProbeKind, probe: &mut Probe, probers: &mut AppProbers) -> Result<(), Error> {
        let path = kind.path(&self.name);
        let timeout_seconds = probe.timeout_seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or_default();
        let mut prober = Prober { timeout_seconds, ..Prober::default() };
        let replacement = if let Some(http) = &probe.http_get {
            if http.path.as_deref() == Some(path.as_str()) {
                return Ok(());
            }
            prober.http_get = Some(self.http(kind, http)?);
            HTTPGetAction { http_headers: http.http_headers.clone(), ..self.replacement(&path) }
        } else if let Some(tcp) = &probe.tcp_socket {
            prober.tcp_socket = Some(self.tcp(kind, tcp)?);
            self.replacement(&path)
        } else if let Some(grpc) = &probe.grpc {
            let port = self.port(kind, &IntOrString::Int(grpc.port))?;
            prober.grpc = Some(Grpc { port, service: grpc.service.clone() });
            self.replacement(&path)
        } else {
            // Commands run within the container: nothing is in their way.
            return Ok(());
        };
        probe.tcp_socket = None;
        probe.grpc = None;
        probe.http_get = Some(replacement);
        probers.insert(path, prober);
        Ok(())
    }

    fn handler(
        &self,
        kind: ProbeKind,
        handler: &mut LifecycleHandler,
        probers: &mut AppProbers,
    ) -> Result<(), Error> {
        let path = kind.path(&self.name);
        let mut prober = Prober::default();
        if let Some(http) = &handler.http_get {
            if http.path.as_deref() == Some(path.as_str()) {
                return Ok(());
            }
            prober.http_get = Some(self.http(kind, http)?);
        } else if let Some(tcp) = &handler.tcp_socket {
            prober.tcp_socket = Some(self.tcp(kind, tcp)?);
        } else {
            return Ok(());
        }
        handler.tcp_socket = None;
        handler.http_get = Some(self.replacement(&path));
        probers.insert(path, prober);
        Ok(())
    }

    fn replacement(&self, path: &str) -> HTTPGetAction {
        HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(self.status_port)),
            ..HTTPGetAction::default()
        }
    }

    fn http(&self, kind: ProbeKind, action: &HTTPGetAction) -> Result<HttpGet, Error> {
        let headers = action.http_headers.iter().flatten();
        Ok(HttpGet {
            path: action.path.clone().unwrap_or_default(),
            port: self.port(kind, &action.port)?,
            host: action.host.clone().unwrap_or_default(),
            scheme: action.scheme.clone().unwrap_or_default(),
            http_headers: headers
                .map(|h| HttpHeader { name: h.name.clone(), value: h.value.clone() })
                .collect(),
        })
    }

    fn tcp(&self, kind: ProbeKind, action: &TCPSocketAction) -> Result<TcpSocket, Error> {
        Ok(TcpSocket { port: self.port(kind, &action.port)?, host: action.host.clone().unwrap_or_default() })
    }

    fn port(&self, kind: ProbeKind, port: &IntOrString) -> Result<u16, Error> {
        let number = match port {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named = self.named_ports.iter().find(|(n, _)| n == name).map(|(_, number)| *number);
                named.or_else(|| name.parse().ok())
            }
        };
        number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0).ok_or_else(|| Error::ProbePort {
            container: self.name.clone(),
            probe: match kind {
                ProbeKind::Readiness => "readiness",
                ProbeKind::Liveness => "liveness",
                ProbeKind::Startup => "startup",
                ProbeKind::PreStop => "preStop",
                ProbeKind::PostStart => "postStart",
            },
            port: match port {
                IntOrString::Int(number) => number.to_string(),
                IntOrString::String(name) => name.clone(),
            },
        })
    }
}
