//! Annotations of pods and services.

macro_rules! annotations {
    ($($(#[$doc:meta])+ $name:ident = $value:literal;)+) => {
        $($(#[$doc])+ pub const $name: &str = $value;)+
        /// All of them.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

annotations! {
    /// What injection added, as JSON.
    STATUS = "sidecar.istio.io/status";
    /// `true` or `false`; the label of the same name is newer.
    INJECT = "sidecar.istio.io/inject";
    /// The image of the proxy's container.
    PROXY_IMAGE = "sidecar.istio.io/proxyImage";
    /// `default`, `distroless` or `debug`.
    PROXY_IMAGE_TYPE = "sidecar.istio.io/proxyImageType";
    /// CPU request.
    PROXY_CPU = "sidecar.istio.io/proxyCPU";
    /// Memory request.
    PROXY_MEMORY = "sidecar.istio.io/proxyMemory";
    /// CPU limit.
    PROXY_CPU_LIMIT = "sidecar.istio.io/proxyCPULimit";
    /// Memory limit.
    PROXY_MEMORY_LIMIT = "sidecar.istio.io/proxyMemoryLimit";
    /// `REDIRECT`, `TPROXY` or `NONE`.
    INTERCEPTION_MODE = "sidecar.istio.io/interceptionMode";
    /// Whether probes of the application are rewritten.
    REWRITE_APP_HTTP_PROBERS = "sidecar.istio.io/rewriteAppHTTPProbers";
    /// The control plane's address; deprecated.
    DISCOVERY_ADDRESS = "sidecar.istio.io/discoveryAddress";
    /// A ConfigMap with a bootstrap that is merged over the generated one.
    BOOTSTRAP_OVERRIDE = "sidecar.istio.io/bootstrapOverride";
    /// Volumes for the proxy's container, as JSON.
    USER_VOLUME = "sidecar.istio.io/userVolume";
    /// Volume mounts for the proxy's container, as JSON.
    USER_VOLUME_MOUNT = "sidecar.istio.io/userVolumeMount";
    /// Log level of the proxy.
    LOG_LEVEL = "sidecar.istio.io/logLevel";
    /// Log levels of the proxy's components.
    COMPONENT_LOG_LEVEL = "sidecar.istio.io/componentLogLevel";
    /// Log level of the agent.
    AGENT_LOG_LEVEL = "sidecar.istio.io/agentLogLevel";
    /// Whether the proxy is an init container that restarts.
    NATIVE_SIDECAR = "sidecar.istio.io/nativeSidecar";
    /// Whether the proxy may bind ports below 1024.
    CAP_NET_BIND_SERVICE = "sidecar.istio.io/capNetBindService";
    /// Stats kept, by prefix.
    STATS_INCLUSION_PREFIXES = "sidecar.istio.io/statsInclusionPrefixes";
    /// Stats kept, by suffix.
    STATS_INCLUSION_SUFFIXES = "sidecar.istio.io/statsInclusionSuffixes";
    /// Stats kept, by regular expression.
    STATS_INCLUSION_REGEXPS = "sidecar.istio.io/statsInclusionRegexps";
    /// More tags of stats.
    EXTRA_STAT_TAGS = "sidecar.istio.io/extraStatTags";
    /// Buckets of histograms, as JSON.
    STATS_HISTOGRAM_BUCKETS = "sidecar.istio.io/statsHistogramBuckets";
    /// Bins of histograms, as JSON.
    STATS_HISTOGRAM_BINS = "sidecar.istio.io/statsHistogramBins";
    /// How often stats are flushed.
    STATS_FLUSH_INTERVAL = "sidecar.istio.io/statsFlushInterval";
    /// How often unused stats are evicted.
    STATS_EVICTION_INTERVAL = "sidecar.istio.io/statsEvictionInterval";
    /// Whether the stats listener compresses.
    STATS_COMPRESSION = "sidecar.istio.io/statsCompression";

    /// Inbound ports that are captured; `*` for all.
    INCLUDE_INBOUND_PORTS = "traffic.sidecar.istio.io/includeInboundPorts";
    /// Inbound ports that are not.
    EXCLUDE_INBOUND_PORTS = "traffic.sidecar.istio.io/excludeInboundPorts";
    /// Outbound ports that are captured in any case.
    INCLUDE_OUTBOUND_PORTS = "traffic.sidecar.istio.io/includeOutboundPorts";
    /// Outbound ports that are not.
    EXCLUDE_OUTBOUND_PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts";
    /// Outbound ranges that are captured; `*` for all.
    INCLUDE_OUTBOUND_IP_RANGES = "traffic.sidecar.istio.io/includeOutboundIPRanges";
    /// Outbound ranges that are not.
    EXCLUDE_OUTBOUND_IP_RANGES = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
    /// Interfaces that are not captured.
    EXCLUDE_INTERFACES = "traffic.sidecar.istio.io/excludeInterfaces";
    /// Interfaces of virtual machines; deprecated.
    KUBEVIRT_INTERFACES = "traffic.sidecar.istio.io/kubevirtInterfaces";
    /// Its successor.
    REROUTE_VIRTUAL_INTERFACES = "istio.io/reroute-virtual-interfaces";

    /// The status port; 0 switches rewriting and readiness off.
    STATUS_PORT = "status.sidecar.istio.io/port";
    /// The readiness probe's initial delay.
    READINESS_INITIAL_DELAY = "readiness.status.sidecar.istio.io/initialDelaySeconds";
    /// The readiness probe's period.
    READINESS_PERIOD = "readiness.status.sidecar.istio.io/periodSeconds";
    /// The readiness probe's threshold.
    READINESS_FAILURE_THRESHOLD = "readiness.status.sidecar.istio.io/failureThreshold";
    /// Ports that readiness waits for.
    READINESS_APPLICATION_PORTS = "readiness.status.sidecar.istio.io/applicationPorts";

    /// ProxyConfig of the pod, as YAML.
    PROXY_CONFIG = "proxy.istio.io/config";
    /// What the user had set on injected containers; internal.
    PROXY_OVERRIDES = "proxy.istio.io/overrides";
    /// The templates that inject.
    TEMPLATES = "inject.istio.io/templates";
    /// Whether the application's metrics are merged with the proxy's.
    MERGE_METRICS = "prometheus.istio.io/merge-metrics";
    /// What of the application is scraped for merging.
    SCRAPE_TARGETS = "prometheus.istio.io/scrape-targets";
    /// Whether Prometheus scrapes the pod.
    PROMETHEUS_SCRAPE = "prometheus.io/scrape";
    /// At which port.
    PROMETHEUS_PORT = "prometheus.io/port";
    /// At which path.
    PROMETHEUS_PATH = "prometheus.io/path";

    /// The namespaces to which a service is visible.
    EXPORT_TO = "networking.istio.io/exportTo";
    /// `PreferClose` and the like.
    TRAFFIC_DISTRIBUTION = "networking.istio.io/traffic-distribution";
    /// Nodes that are a gateway's addresses, as JSON.
    NODE_SELECTOR = "traffic.istio.io/nodeSelector";
    /// Service accounts of other clusters; deprecated.
    KUBERNETES_SERVICE_ACCOUNTS = "alpha.istio.io/kubernetes-serviceaccounts";
    /// Service accounts in full; deprecated.
    CANONICAL_SERVICE_ACCOUNTS = "alpha.istio.io/canonical-serviceaccounts";
    /// `true`: a policy is evaluated without effect.
    DRY_RUN = "istio.io/dry-run";
    /// Codes of messages that are not reported on an object.
    ANALYZE_SUPPRESS = "galley.istio.io/analyze-suppress";
}

/// What is below the prefix of traffic annotations: an unknown name there is a mistake.
pub const TRAFFIC_PREFIX: &str = "traffic.sidecar.istio.io/";
/// What is below the prefix of sidecar annotations: an unknown name there is a mistake.
pub const SIDECAR_PREFIX: &str = "sidecar.istio.io/";
