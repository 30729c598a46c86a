//! Traces: where spans go, how many requests are traced, and what spans say.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::mesh_config::Provider;
use mesh_api::number::Float;
use mesh_api::telemetry::CustomTag;
use saild_model::{Mesh, ProxyView};
use xds_api::any::pack;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::trace::v3 as trace;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use xds_api::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::EnvironmentResourceDetectorConfig;
use xds_api::envoy::r#type::tracing::v3 as tag;
use xds_api::envoy::r#type::v3::Percent;

use super::{Side, layers};
use crate::pb;
use crate::provider::{self, Backend};

/// Istio's default, in percent.
const DEFAULT_SAMPLING: f64 = 1.0;

/// The tracing of one side of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TracingInputs {
    /// Where spans go.
    pub collector: Collector,
    /// How many requests are traced, in percent.
    pub sampling: Float,
    /// What spans say.
    pub tags: BTreeMap<String, Tag>,
    /// How much of a path is said; 0 for Envoy's default.
    pub max_tag_length: u32,
    /// Whether the id of a request decides, rather than the tracer alone.
    pub by_request_id: bool,
    /// Whether the context goes on with the request.
    pub propagated: bool,
}

/// A tag's source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tag {
    /// A value of the workload.
    Fixed(String),
    /// As the user says.
    Custom(CustomTag),
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Collector {
    /// Zipkin's API.
    Zipkin {
        /// The cluster.
        cluster: String,
        /// The host.
        host: String,
        /// The path.
        path: String,
        /// Trace ids of 64 bits.
        short_ids: bool,
        /// W3C headers too.
        w3c: bool,
    },
    /// OTLP.
    OpenTelemetry {
        /// The collector.
        backend: Backend,
        /// The URI; absent for gRPC.
        http: Option<String>,
        /// How long an export may take.
        timeout: Duration,
        /// What is sent along: headers, or metadata of gRPC.
        headers: Vec<(String, String)>,
        /// `OTEL_RESOURCE_ATTRIBUTES` of the proxy says more.
        from_environment: bool,
        /// Who the spans are of.
        service: String,
    },
}

/// How long an export may take where the provider does not say.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The tracing of a side; nothing if spans go nowhere.
pub(crate) fn inputs(mesh: &Mesh, proxy: &ProxyView, side: Side) -> Option<TracingInputs> {
    let settings = mesh.settings();
    if !settings.enable_tracing {
        return None;
    }
    let legacy = settings.default_config.tracing.as_ref();
    let mut name = settings.default_providers.tracing.first().cloned();
    let mut sampling = legacy.map(|t| t.sampling.get()).filter(|s| *s > 0.0).unwrap_or(DEFAULT_SAMPLING);
    let mut custom = legacy.map(|t| t.custom_tags.clone()).unwrap_or_default();
    let mut istio_tags = legacy.and_then(|t| t.enable_istio_tags).unwrap_or(true);
    let (mut disabled, mut by_request_id, mut propagated) = (false, true, true);
    for layer in layers(mesh, proxy) {
        for tracing in layer.spec.tracing.iter().filter(|t| side.is(t.r#match.as_ref())) {
            if let Some(provider) = tracing.providers.first() {
                name = Some(provider.name.clone());
            }
            sampling = tracing.random_sampling_percentage.map_or(sampling, Float::get);
            disabled = tracing.disable_span_reporting.unwrap_or(disabled);
            istio_tags = tracing.enable_istio_tags.unwrap_or(istio_tags);
            by_request_id = tracing.use_request_id_for_trace_sampling.unwrap_or(by_request_id);
            propagated = tracing.disable_context_propagation.map_or(propagated, |disabled| !disabled);
            if !tracing.custom_tags.is_empty() {
                custom.clone_from(&tracing.custom_tags);
            }
        }
    }
    if disabled {
        return None;
    }
    let (collector, length) = match name {
        Some(name) => of_provider(mesh, proxy, &name)?,
        None => (of_address(mesh, &legacy?.zipkin.as_ref()?.address)?, 0),
    };
    let mut tags = if istio_tags { workload_tags(proxy) } else { BTreeMap::new() };
    tags.extend(custom.into_iter().map(|(name, tag)| (name, Tag::Custom(tag))));
    let max_tag_length = if length > 0 { length } else { legacy.map_or(0, |t| t.max_path_tag_length) };
    let sampling = Float::new(sampling);
    Some(TracingInputs { collector, sampling, tags, max_tag_length, by_request_id, propagated })
}

/// A provider's collector, and how much of a path its spans say.
fn of_provider(mesh: &Mesh, proxy: &ProxyView, name: &str) -> Option<(Collector, u32)> {
    match provider::find(mesh, name)? {
        Provider::Zipkin(settings) => {
            let Backend { host, cluster } = provider::backend(mesh, &settings.service, settings.port)?;
            let path = if settings.path.is_empty() { "/api/v2/spans".to_owned() } else { settings.path };
            let collector = Collector::Zipkin {
                cluster,
                host,
                path,
                short_ids: settings.enable_64bit_trace_id,
                w3c: settings.trace_context_option == "USE_B3_WITH_W3C_PROPAGATION",
            };
            Some((collector, settings.max_tag_length))
        }
        Provider::Opentelemetry(settings) => {
            let backend = provider::backend(mesh, &settings.service, settings.port)?;
            let http = settings.http.as_ref().map(|http| {
                let path = if http.path.is_empty() { "/v1/traces" } else { &http.path };
                format!("http://{}:{}{path}", backend.host, settings.port)
            });
            let (timeout, headers) = match (settings.http, settings.grpc) {
                (Some(http), _) => (http.timeout, http.headers),
                (None, grpc) => grpc.map(|grpc| (grpc.timeout, grpc.initial_metadata)).unwrap_or_default(),
            };
            let headers = headers.into_iter().filter_map(|header| Some((header.name, header.value?)));
            let collector = Collector::OpenTelemetry {
                backend,
                http,
                timeout: timeout.unwrap_or(EXPORT_TIMEOUT),
                headers: headers.collect(),
                from_environment: settings.resource_detectors.is_some_and(|d| d.environment.is_some()),
                service: service_name(proxy),
            };
            Some((collector, settings.max_tag_length))
        }
        _ => None,
    }
}

/// The Zipkin of ProxyConfig: `host:port`.
fn of_address(mesh: &Mesh, address: &str) -> Option<Collector> {
    let (host, port) = address.rsplit_once(':')?;
    // An installation may lack the default collector.
    let Backend { host, cluster } = provider::backend(mesh, host, port.parse().ok()?)?;
    Some(Collector::Zipkin { cluster, host, path: "/api/v2/spans".to_owned(), short_ids: false, w3c: false })
}

fn canonical<'a>(proxy: &'a ProxyView, keys: &[&str], default: &'a str) -> &'a str {
    keys.iter().find_map(|key| proxy.labels.get(*key)).map_or(default, String::as_str)
}

fn service_name(proxy: &ProxyView) -> String {
    let keys = ["app", "service.istio.io/canonical-name"];
    format!("{}.{}", canonical(proxy, &keys, &proxy.workload_name), proxy.namespace)
}

fn workload_tags(proxy: &ProxyView) -> BTreeMap<String, Tag> {
    let name = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    let revision = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    let or_unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
    [
        ("istio.canonical_service", or_unknown(canonical(proxy, &name, &proxy.workload_name))),
        ("istio.canonical_revision", canonical(proxy, &revision, "latest").to_owned()),
        ("istio.mesh_id", or_unknown(&proxy.mesh_id)),
        ("istio.namespace", proxy.namespace.clone()),
        ("istio.cluster_id", or_unknown(&proxy.cluster_id)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), Tag::Fixed(value)))
    .collect()
}

/// The tracing as the connection manager takes it.
pub(crate) fn tracing(inputs: &TracingInputs) -> Tracing {
    let hundred = Some(Percent { value: 100.0 });
    Tracing {
        client_sampling: hundred,
        random_sampling: Some(Percent { value: inputs.sampling.get() }),
        overall_sampling: hundred,
        max_path_tag_length: (inputs.max_tag_length > 0).then_some(inputs.max_tag_length).and_then(pb::u32v),
        custom_tags: inputs.tags.iter().filter_map(|(name, value)| custom_tag(name, value)).collect(),
        provider: Some(provider_config(&inputs.collector)),
        no_context_propagation: !inputs.propagated,
        ..Default::default()
    }
}

fn custom_tag(name: &str, value: &Tag) -> Option<tag::CustomTag> {
    use tag::custom_tag::{Environment, Header, Literal, Type};
    let source = match value {
        Tag::Fixed(value) => Type::Literal(Literal { value: value.clone() }),
        Tag::Custom(custom) => {
            if let Some(literal) = &custom.literal {
                Type::Literal(Literal { value: literal.value.clone() })
            } else if let Some(env) = &custom.environment {
                Type::Environment(Environment {
                    name: env.name.clone(),
                    default_value: env.default_value.clone(),
                })
            } else if let Some(header) = &custom.header {
                Type::RequestHeader(Header {
                    name: header.name.clone(),
                    default_value: header.default_value.clone(),
                })
            } else {
                Type::Value(custom.formatter.as_ref()?.value.clone())
            }
        }
    };
    Some(tag::CustomTag { tag: name.to_owned(), r#type: Some(source) })
}

fn provider_config(collector: &Collector) -> trace::tracing::Http {
    let (name, config) = match collector {
        Collector::Zipkin { cluster, host, path, short_ids, w3c } => {
            use trace::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
            let option =
                if *w3c { TraceContextOption::UseB3WithW3cPropagation } else { TraceContextOption::UseB3 };
            let config = trace::ZipkinConfig {
                collector_cluster: cluster.clone(),
                collector_endpoint: path.clone(),
                collector_endpoint_version: CollectorEndpointVersion::HttpJson as i32,
                collector_hostname: host.clone(),
                trace_id_128bit: !short_ids,
                shared_span_context: pb::boolv(false),
                trace_context_option: option as i32,
                ..Default::default()
            };
            ("envoy.tracers.zipkin", pack(&config))
        }
        Collector::OpenTelemetry { backend, http, timeout, headers, from_environment, service } => {
            let mut config =
                trace::OpenTelemetryConfig { service_name: service.clone(), ..Default::default() };
            let header = |(key, value): &(String, String)| core::HeaderValue {
                key: key.clone(),
                value: value.clone(),
                ..Default::default()
            };
            match http {
                Some(uri) => {
                    let cluster = core::http_uri::HttpUpstreamType::Cluster(backend.cluster.clone());
                    let option =
                        |pair| core::HeaderValueOption { header: Some(header(pair)), ..Default::default() };
                    config.http_service = Some(core::HttpService {
                        http_uri: Some(core::HttpUri {
                            uri: uri.clone(),
                            timeout: pb::duration(*timeout),
                            http_upstream_type: Some(cluster),
                        }),
                        request_headers_to_add: headers.iter().map(option).collect(),
                        ..Default::default()
                    });
                }
                None => {
                    config.grpc_service = Some(core::GrpcService {
                        timeout: pb::duration(*timeout),
                        initial_metadata: headers.iter().map(header).collect(),
                        ..pb::grpc(&backend.cluster, &backend.host)
                    });
                }
            }
            if *from_environment {
                let detector = pb::extension(
                    "envoy.tracers.opentelemetry.resource_detectors.environment",
                    &EnvironmentResourceDetectorConfig::default(),
                );
                config.resource_detectors.push(detector);
            }
            ("envoy.tracers.opentelemetry", pack(&config))
        }
    };
    trace::tracing::Http {
        name: name.to_owned(),
        config_type: Some(trace::tracing::http::ConfigType::TypedConfig(config)),
    }
}
