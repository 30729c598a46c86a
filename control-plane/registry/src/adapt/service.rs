//! Kubernetes' Service as the model's.

use k8s_openapi::api::core::v1::{Service as KubeService, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use saild_model::service::Source;
use saild_model::{ExportTo, Location, Port, Protocol, Resolution, Service, TargetPort};

use super::Options;

const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// The service.
pub(super) fn adapt(object: &KubeService, options: &Options) -> Service {
    let meta = &object.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let hostname = format!("{name}.{namespace}.svc.{}", options.domain);
    let mut service = Service::new(&hostname, namespace, name);
    service.source = Source::Kubernetes;
    service.labels = meta.labels.clone().unwrap_or_default();
    service.annotations = meta.annotations.clone().unwrap_or_default();
    service.created = meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second());
    if let Some(visible) = service.annotations.get(EXPORT_TO) {
        service.export_to = visible.split(',').map(ExportTo::parse).collect();
    }
    let Some(spec) = &object.spec else { return service };
    service.selector = spec.selector.clone().unwrap_or_default();
    service.ports = spec.ports.iter().flatten().filter_map(port).collect();
    if spec.type_.as_deref() == Some("ExternalName") {
        service.external_name = spec.external_name.clone();
        service.resolution = Resolution::Dns;
        service.location = Location::External;
        return service;
    }
    let mut addresses: Vec<&String> = spec.cluster_ips.iter().flatten().collect();
    if addresses.is_empty() {
        addresses.extend(&spec.cluster_ip);
    }
    if addresses.iter().any(|a| a.as_str() == "None") {
        service.resolution = Resolution::Passthrough;
    }
    service.addresses =
        addresses.into_iter().filter_map(|a| a.parse::<std::net::IpAddr>().ok()).map(Into::into).collect();
    service
}

fn port(port: &ServicePort) -> Option<Port> {
    let number = u16::try_from(port.port).ok()?;
    let target = port.target_port.as_ref().and_then(|target| match target {
        // 0 stands for "as the port".
        IntOrString::Int(0) => None,
        IntOrString::Int(number) => u16::try_from(*number).ok().map(TargetPort::Number),
        IntOrString::String(name) => {
            Some(name.parse().map_or_else(|_| TargetPort::Name(name.clone()), TargetPort::Number))
        }
    });
    let (name, app) = (port.name.as_deref(), port.app_protocol.as_deref());
    let protocol = Protocol::of_service_port(number, name, app, port.protocol.as_deref());
    Some(Port { name: name.unwrap_or_default().into(), number, target, protocol })
}
