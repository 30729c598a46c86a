//! The providers of MeshConfig: where their services are, and what of them cannot be used.

use mesh_api::mesh_config::{ExtAuthz, ExtensionProvider, OutboundTrafficMode, Provider, ProviderHeader};
use saild_model::{Mesh, hostname};

use crate::naming;
use crate::warning::Warning;

/// A provider's service, as proxies reach it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Its host name.
    pub host: String,
    /// The cluster of the port that the provider names.
    pub cluster: String,
}

/// A provider by its name: one of MeshConfig's, or one that every mesh has.
pub(crate) fn find(mesh: &Mesh, name: &str) -> Option<Provider> {
    mesh.settings().provider(name)
}

/// The cluster of a provider's service; nothing if the mesh has no such service or port, as a listener that names a
/// cluster which does not exist would be refused whole.
pub(crate) fn backend(mesh: &Mesh, service: &str, port: u16) -> Option<Backend> {
    let host = service_host(mesh, service);
    mesh.services_of_host(&host).find(|service| service.port(port).is_some())?;
    Some(Backend { cluster: naming::outbound(port, "", &host), host })
}

/// The host of a provider's service, which is given as a Kubernetes name or `namespace/host`.
pub(crate) fn service_host(mesh: &Mesh, service: &str) -> String {
    let (namespace, host) = service.split_once('/').unwrap_or((mesh.root_namespace(), service));
    if mesh.services_of_host(host).next().is_some() {
        return host.to_owned();
    }
    let labels: Vec<&str> = host.split('.').collect();
    // "zipkin.istio-system" and "zipkin.istio-system.svc" are short for the full name.
    match labels.as_slice() {
        [name] => hostname::resolve(name, namespace, mesh.domain()),
        [name, ns] | [name, ns, "svc"] => format!("{name}.{ns}.svc.{}", mesh.domain()),
        _ => host.to_owned(),
    }
}

/// The hosts that providers of MeshConfig send to: each proxy has a cluster for them.
pub(crate) fn hosts(mesh: &Mesh) -> Vec<String> {
    let settings = mesh.settings();
    let services = settings.extension_providers.iter().filter_map(|provider| service(&provider.provider));
    let mut hosts: Vec<String> = services.map(|(service, _)| service_host(mesh, service)).collect();
    let legacy = settings.default_config.tracing.as_ref().and_then(|t| t.zipkin.as_ref());
    hosts.extend(legacy.and_then(|z| z.address.rsplit_once(':')).map(|(host, _)| service_host(mesh, host)));
    hosts.sort();
    hosts.dedup();
    hosts
}

/// The service and port of a provider that is used here.
fn service(provider: &Provider) -> Option<(&str, u16)> {
    match provider {
        Provider::EnvoyExtAuthzHttp(p) | Provider::EnvoyExtAuthzGrpc(p) => Some((&p.service, p.port)),
        Provider::Zipkin(p) => Some((&p.service, p.port)),
        Provider::Opentelemetry(p) => Some((&p.service, p.port)),
        Provider::EnvoyHttpAls(p) | Provider::EnvoyTcpAls(p) => Some((&p.service, p.port)),
        Provider::EnvoyOtelAls(p) => Some((&p.service, p.port)),
        _ => None,
    }
}

/// What of MeshConfig has no effect, and which of its providers cannot be reached.
pub(crate) fn problems(mesh: &Mesh) -> Vec<Warning> {
    let settings = mesh.settings();
    let own = settings.extension_providers.iter().flat_map(|provider| {
        of_one(mesh, provider)
            .into_iter()
            .map(|message| format!("extensionProviders[{}]{message}", provider.name))
    });
    let defaults = &settings.default_providers;
    let lists = [
        ("tracing", &defaults.tracing),
        ("metrics", &defaults.metrics),
        ("accessLogging", &defaults.access_logging),
    ];
    let named = lists.iter().flat_map(|(field, names)| names.iter().map(move |name| (*field, name)));
    let unknown = named
        .filter(|(_, name)| find(mesh, name).is_none())
        .map(|(field, name)| format!("defaultProviders.{field}: there is no extensionProviders[{name}]"));
    let of = |message| Warning {
        kind: "MeshConfig".to_owned(),
        namespace: mesh.root_namespace().to_owned(),
        name: "istio".to_owned(),
        message,
    };
    let dynamic = settings.outbound_traffic_policy.mode == OutboundTrafficMode::AllowAnyDynamicDns;
    let mode = dynamic.then(|| {
        "outboundTrafficPolicy.mode ALLOW_ANY_DYNAMIC_DNS acts as ALLOW_ANY in this release".to_owned()
    });
    own.chain(unknown).chain(mode).map(of).collect()
}

fn of_one(mesh: &Mesh, provider: &ExtensionProvider) -> Vec<String> {
    let mut out = Vec::new();
    let mut without_effect = |field: &str, set: bool| {
        if set {
            out.push(format!(".{field} has no effect: this release does not support it"));
        }
    };
    match &provider.provider {
        Provider::Lightstep(_) => without_effect("lightstep", true),
        Provider::Opencensus(_) => without_effect("opencensus", true),
        Provider::Datadog(_) => without_effect("datadog", true),
        Provider::Stackdriver(_) => without_effect("stackdriver", true),
        Provider::Skywalking(_) => without_effect("skywalking", true),
        Provider::Sds(_) => without_effect("sds", true),
        Provider::Zipkin(p) => {
            without_effect("zipkin.timeout", p.timeout.is_some());
            without_effect("zipkin.headers", !p.headers.is_empty());
        }
        Provider::Opentelemetry(p) => {
            let http = p.http.iter().flat_map(|http| &http.headers);
            let grpc = p.grpc.iter().flat_map(|grpc| &grpc.initial_metadata);
            let of_environment = |header: &ProviderHeader| header.env_name.is_some();
            without_effect("opentelemetry headers from envName", http.chain(grpc).any(of_environment));
            without_effect("opentelemetry.dynatraceSampler", p.dynatrace_sampler.is_some());
            let detectors = p.resource_detectors.as_ref();
            without_effect(
                "opentelemetry.resourceDetectors.dynatrace",
                detectors.is_some_and(|d| d.dynatrace.is_some()),
            );
            let enrichment = p.service_attribute_enrichment.as_str();
            without_effect(
                "opentelemetry.serviceAttributeEnrichment",
                !matches!(enrichment, "" | "ISTIO_CANONICAL"),
            );
        }
        Provider::EnvoyOtelAls(p) => without_effect("envoyOtelAls.tls", p.tls.is_some()),
        Provider::EnvoyExtAuthzHttp(p) | Provider::EnvoyExtAuthzGrpc(p) => {
            out.extend(ext_authz_error(p).map(|message| format!(".{message}")));
        }
        Provider::Prometheus(_)
        | Provider::EnvoyFileAccessLog(_)
        | Provider::EnvoyHttpAls(_)
        | Provider::EnvoyTcpAls(_) => {}
    }
    if let Some((service, port)) = service(&provider.provider)
        && backend(mesh, service, port).is_none()
    {
        out.push(format!(
            ".service: the mesh has no service {:?} with port {port}",
            service_host(mesh, service)
        ));
    }
    out
}

/// Why an authorization service cannot be asked.
pub(crate) fn ext_authz_error(settings: &ExtAuthz) -> Option<String> {
    if !settings.status_on_error.is_empty() && status(&settings.status_on_error).is_none() {
        return Some(format!("statusOnError: {:?} is not a status of HTTP", settings.status_on_error));
    }
    if !settings.path_prefix.is_empty() && !settings.path_prefix.starts_with('/') {
        return Some(format!("pathPrefix: {:?} does not start with \"/\"", settings.path_prefix));
    }
    let lists = [
        ("includeHeadersInCheck", &settings.include_headers_in_check),
        ("includeRequestHeadersInCheck", &settings.include_request_headers_in_check),
        ("headersToUpstreamOnAllow", &settings.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", &settings.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", &settings.headers_to_downstream_on_allow),
    ];
    lists.iter().find(|(_, names)| names.iter().any(|name| name == "*")).map(|(field, _)| {
        format!("{field}: \"*\" alone is not supported: use a prefix (\"x-*\") or a suffix (\"*-id\")")
    })
}

/// A status that Envoy may answer with.
pub(crate) fn status(text: &str) -> Option<i32> {
    text.trim().parse::<i32>().ok().filter(|code| (100..=511).contains(code))
}
