//! Extension providers: where authorization, traces, metrics and access logs go.

use std::time::Duration;

use serde_json::{Map, Value};

use super::Strings;
use crate::decode::{Decode, Encode, names, object};
use crate::destination_rule::ClientTls;
use crate::field::Cx;

/// A provider and its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExtensionProvider {
    /// The name that policies use.
    pub name: String,
    /// What it is.
    pub provider: Provider,
}

macro_rules! providers {
    ($( $(#[$doc:meta])* $variant:ident($ty:ty) = $field:literal / $json:literal ),* $(,)?) => {
        /// The kinds of providers.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Provider { $( $(#[$doc])* $variant($ty), )* }

        impl Decode for ExtensionProvider {
            fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
                let (mut name, mut provider) = (String::new(), None);
                for (key, value) in object(value, cx)?.iter().filter(|(_, v)| !v.is_null()) {
                    if key == "name" {
                        name = cx.field(key, |cx| String::decode(value, cx))?;
                    } else if provider.is_some() {
                        cx.error_at(key, "a provider is of one kind");
                        return None;
                    }
                    $( else if names(key, $field) {
                        provider = Some(Provider::$variant(cx.field(key, |cx| Decode::decode(value, cx))?));
                    } )*
                    else {
                        cx.error_at(key, "unknown kind of provider");
                        return None;
                    }
                }
                if name.is_empty() {
                    cx.error_at("name", "must be set");
                    return None;
                }
                if provider.is_none() {
                    cx.error(format!("the provider {name:?} has no kind"));
                }
                Some(Self { name, provider: provider? })
            }
        }

        impl Encode for ExtensionProvider {
            fn encode(&self) -> Value {
                let mut map = Map::new();
                map.insert("name".to_owned(), Value::String(self.name.clone()));
                let (key, value) = match &self.provider {
                    $( Provider::$variant(settings) => ($json, settings.encode()), )*
                };
                map.insert(key.to_owned(), value);
                Value::Object(map)
            }
            fn skip(&self) -> bool {
                false
            }
        }
    };
}

providers! {
    /// Authorization by an HTTP service.
    EnvoyExtAuthzHttp(ExtAuthz) = "envoy_ext_authz_http" / "envoyExtAuthzHttp",
    /// Authorization by a gRPC service.
    EnvoyExtAuthzGrpc(ExtAuthz) = "envoy_ext_authz_grpc" / "envoyExtAuthzGrpc",
    /// Zipkin.
    Zipkin(ZipkinProvider) = "zipkin" / "zipkin",
    /// Lightstep, which Istio gave up.
    Lightstep(Value) = "lightstep" / "lightstep",
    /// Datadog.
    Datadog(DatadogProvider) = "datadog" / "datadog",
    /// Google Cloud.
    Stackdriver(StackdriverProvider) = "stackdriver" / "stackdriver",
    /// OpenCensus, which Istio gave up.
    Opencensus(Value) = "opencensus" / "opencensus",
    /// SkyWalking.
    Skywalking(SkywalkingProvider) = "skywalking" / "skywalking",
    /// OpenTelemetry.
    Opentelemetry(OpenTelemetryProvider) = "opentelemetry" / "opentelemetry",
    /// Prometheus.
    Prometheus(PrometheusProvider) = "prometheus" / "prometheus",
    /// Access logs in a file.
    EnvoyFileAccessLog(EnvoyAccessLog) = "envoy_file_access_log" / "envoyFileAccessLog",
    /// HTTP access logs to a gRPC service.
    EnvoyHttpAls(EnvoyAls) = "envoy_http_als" / "envoyHttpAls",
    /// TCP access logs to a gRPC service.
    EnvoyTcpAls(EnvoyAls) = "envoy_tcp_als" / "envoyTcpAls",
    /// Access logs over OpenTelemetry.
    EnvoyOtelAls(EnvoyOtelAls) = "envoy_otel_als" / "envoyOtelAls",
    /// Certificates from an SDS server.
    Sds(SdsProvider) = "sds" / "sds",
}

impl Provider {
    /// The providers that every mesh has: `prometheus`, `stackdriver`, `envoy` (access logs on standard output).
    pub fn built_in(name: &str) -> Option<Self> {
        Some(match name {
            "prometheus" => Self::Prometheus(PrometheusProvider::default()),
            "stackdriver" => Self::Stackdriver(StackdriverProvider::default()),
            "envoy" => Self::EnvoyFileAccessLog(EnvoyAccessLog {
                path: "/dev/stdout".to_owned(),
                ..EnvoyAccessLog::default()
            }),
            _ => return None,
        })
    }
}

message! {
    /// External authorization. Header lists are the HTTP kind's.
    pub struct ExtAuthz {
        /// `[namespace/]host`.
        service: String,
        port: u16,
        timeout: Option<Duration>,
        path_prefix: String,
        fail_open: bool,
        clear_route_cache: bool,
        /// Empty: 403.
        status_on_error: String,
        include_headers_in_check: Vec<String>,
        include_request_headers_in_check: Vec<String>,
        include_additional_headers_in_check: Strings,
        include_request_body_in_check: Option<ExtAuthzRequestBody>,
        headers_to_upstream_on_allow: Vec<String>,
        headers_to_downstream_on_deny: Vec<String>,
        headers_to_downstream_on_allow: Vec<String>,
    }
}

/// Header lists of an authorization service.
pub type ExtAuthzHeaders = Vec<String>;

message! {
    /// How much of the body is sent along.
    pub struct ExtAuthzRequestBody {
        max_request_bytes: u32,
        allow_partial_message: bool,
        pack_as_bytes: bool,
    }
}

message! {
    /// A Zipkin collector.
    pub struct ZipkinProvider {
        service: String,
        port: u16,
        max_tag_length: u32,
        enable_64bit_trace_id: bool = "enable64bitTraceId" | "enable_64bit_trace_id",
        /// Empty: `/api/v2/spans`.
        path: String,
        timeout: Option<Duration>,
        headers: Vec<ProviderHeader>,
        /// `USE_B3` (default) or `USE_B3_WITH_W3C_PROPAGATION`.
        trace_context_option: String,
    }
}

message! {
    /// A Datadog agent.
    pub struct DatadogProvider {
        service: String,
        port: u16,
        max_tag_length: u32,
    }
}

message! {
    /// Google Cloud's tracing.
    pub struct StackdriverProvider {
        max_tag_length: u32,
        max_number_of_attributes: Option<u64>,
        max_number_of_annotations: Option<u64>,
        max_number_of_message_events: Option<u64>,
        debug: bool,
        logging: Option<Value>,
    }
}

message! {
    /// A SkyWalking collector.
    pub struct SkywalkingProvider {
        service: String,
        port: u16,
        access_token: String,
    }
}

message! {
    /// An OpenTelemetry collector.
    pub struct OpenTelemetryProvider {
        service: String,
        port: u16,
        max_tag_length: u32,
        /// Set: over HTTP. Absent: gRPC.
        http: Option<OpenTelemetryHttp>,
        grpc: Option<OpenTelemetryGrpc>,
        resource_detectors: Option<ResourceDetectors>,
        dynatrace_sampler: Option<Value>,
        /// `ISTIO_CANONICAL` (default) or `OTEL_SEMANTIC_CONVENTIONS`.
        service_attribute_enrichment: String,
    }
}

message! {
    /// OpenTelemetry over gRPC.
    pub struct OpenTelemetryGrpc {
        timeout: Option<Duration>,
        initial_metadata: Vec<ProviderHeader>,
    }
}

message! {
    /// What says more of where spans come from.
    pub struct ResourceDetectors {
        environment: Option<Value>,
        dynatrace: Option<Value>,
    }
}

message! {
    /// A header that is sent to a collector: one of the two.
    pub struct ProviderHeader {
        name: String,
        value: Option<String>,
        /// A variable of the control plane's environment.
        env_name: Option<String>,
    }
}

message! {
    /// OpenTelemetry over HTTP.
    pub struct OpenTelemetryHttp {
        path: String,
        timeout: Option<Duration>,
        headers: Vec<ProviderHeader>,
    }
}

message! {
    /// Prometheus.
    pub struct PrometheusProvider {}
}

message! {
    /// An access log in a file.
    pub struct EnvoyAccessLog {
        path: String,
        log_format: Option<FileAccessLogFormat>,
        omit_empty_values: bool,
    }
}

message! {
    /// The format of an access log: one of the two.
    pub struct FileAccessLogFormat {
        text: Option<String>,
        labels: Option<Value>,
    }
}

message! {
    /// A gRPC access-log service.
    pub struct EnvoyAls {
        service: String,
        port: u16,
        log_name: String,
        filter_state_objects_to_log: Vec<String>,
        additional_request_headers_to_log: Vec<String>,
        additional_response_headers_to_log: Vec<String>,
        additional_response_trailers_to_log: Vec<String>,
    }
}

message! {
    /// An OpenTelemetry access-log service.
    pub struct EnvoyOtelAls {
        service: String,
        port: u16,
        log_name: String,
        log_format: Option<FileAccessLogFormat>,
        tls: Option<ClientTls>,
        filter_state_objects_to_log: Vec<String>,
    }
}

message! {
    /// An SDS server that has a gateway's certificates.
    pub struct SdsProvider {
        name: String,
        service: String,
        port: u16,
    }
}
