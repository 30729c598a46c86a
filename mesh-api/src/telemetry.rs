//! `Telemetry`: traces, metrics and access logs.

mod validate;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::field::Cx;
use crate::kind::Kind;
use crate::number::Float;
use crate::object::{ObjectMeta, Spec};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// `telemetry.istio.io/Telemetry`.
    pub struct Telemetry {
        selector: Option<WorkloadSelector>,
        /// Deprecated: `targetRefs`.
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        tracing: Vec<Tracing>,
        metrics: Vec<Metrics>,
        access_logging: Vec<AccessLogging>,
    }
}

impl Spec for Telemetry {
    const KIND: Kind = Kind::Telemetry;
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx) {
        validate::telemetry(self, meta, cx);
    }
}

message! {
    /// A provider by its name in MeshConfig.
    pub struct ProviderRef {
        name: String,
    }
}

enumeration! {
    /// Which side of a call is meant.
    pub enum WorkloadMode {
        #[default]
        ClientAndServer = "CLIENT_AND_SERVER" = 0,
        Client = "CLIENT" = 1,
        Server = "SERVER" = 2,
    }
}

message! {
    /// A match on the side alone.
    pub struct ModeMatch {
        mode: WorkloadMode,
    }
}

message! {
    /// Settings of traces.
    pub struct Tracing {
        r#match: Option<ModeMatch>,
        providers: Vec<ProviderRef>,
        random_sampling_percentage: Option<Float>,
        disable_span_reporting: Option<bool>,
        disable_context_propagation: Option<bool>,
        custom_tags: BTreeMap<String, CustomTag>,
        use_request_id_for_trace_sampling: Option<bool>,
        enable_istio_tags: Option<bool>,
    }
}

message! {
    /// A tag of spans; one of the sources.
    pub struct CustomTag {
        literal: Option<LiteralTag>,
        environment: Option<EnvironmentTag>,
        header: Option<HeaderTag>,
        formatter: Option<FormatterTag>,
    }
}

message! {
    /// A fixed value.
    pub struct LiteralTag {
        value: String,
    }
}

message! {
    /// A variable of the proxy's environment.
    pub struct EnvironmentTag {
        name: String,
        default_value: String,
    }
}

message! {
    /// A request header.
    pub struct HeaderTag {
        name: String,
        default_value: String,
    }
}

message! {
    /// An access-log format.
    pub struct FormatterTag {
        value: String,
    }
}

message! {
    /// Settings of metrics.
    pub struct Metrics {
        providers: Vec<ProviderRef>,
        overrides: Vec<MetricsOverride>,
        reporting_interval: Option<Duration>,
    }
}

message! {
    /// A change of one metric or all.
    pub struct MetricsOverride {
        r#match: Option<MetricSelector>,
        disabled: Option<bool>,
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    /// Which metric, on which side.
    pub struct MetricSelector {
        metric: Option<IstioMetric>,
        custom_metric: String,
        mode: WorkloadMode,
    }
}

enumeration! {
    /// Istio's standard metrics.
    pub enum IstioMetric {
        #[default]
        AllMetrics = "ALL_METRICS" = 0,
        RequestCount = "REQUEST_COUNT" = 1,
        RequestDuration = "REQUEST_DURATION" = 2,
        RequestSize = "REQUEST_SIZE" = 3,
        ResponseSize = "RESPONSE_SIZE" = 4,
        TcpOpenedConnections = "TCP_OPENED_CONNECTIONS" = 5,
        TcpClosedConnections = "TCP_CLOSED_CONNECTIONS" = 6,
        TcpSentBytes = "TCP_SENT_BYTES" = 7,
        TcpReceivedBytes = "TCP_RECEIVED_BYTES" = 8,
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES" = 9,
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES" = 10,
    }
}

message! {
    /// A label set or removed.
    pub struct TagOverride {
        operation: TagOperation,
        /// A CEL expression.
        value: String,
    }
}

enumeration! {
    /// What happens to a label.
    pub enum TagOperation {
        #[default]
        Upsert = "UPSERT" = 0,
        Remove = "REMOVE" = 1,
    }
}

message! {
    /// Settings of access logs.
    pub struct AccessLogging {
        r#match: Option<ModeMatch>,
        providers: Vec<ProviderRef>,
        disabled: Option<bool>,
        filter: Option<LogFilter>,
    }
}

message! {
    /// Which requests are logged.
    pub struct LogFilter {
        /// A CEL expression.
        expression: String,
    }
}
