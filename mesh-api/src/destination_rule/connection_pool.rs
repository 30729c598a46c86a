//! Connection pools and outlier detection.

use std::time::Duration;

message! {
    /// `ConnectionPoolSettings`.
    pub struct ConnectionPool {
        tcp: Option<TcpSettings>,
        http: Option<HttpSettings>,
    }
}

message! {
    /// Limits of connections.
    pub struct TcpSettings {
        max_connections: Option<u32>,
        connect_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        max_connection_duration: Option<Duration>,
        idle_timeout: Option<Duration>,
    }
}

message! {
    /// TCP keep-alive probes.
    pub struct TcpKeepalive {
        probes: Option<u32>,
        time: Option<Duration>,
        interval: Option<Duration>,
    }
}

message! {
    /// Limits of HTTP requests. Zero means Envoy's default, as in Istio.
    pub struct HttpSettings {
        http1_max_pending_requests: u32,
        http2_max_requests: u32,
        max_requests_per_connection: u32,
        max_retries: u32,
        idle_timeout: Option<Duration>,
        h2_upgrade_policy: H2UpgradePolicy,
        use_client_protocol: bool,
        max_concurrent_streams: u32,
        http2_keep_alive: Option<Http2KeepAlive> = "http2KeepAlive" | "http2Keepalive" | "http2_keep_alive",
    }
}

message! {
    /// HTTP/2 PINGs.
    pub struct Http2KeepAlive {
        interval: Option<Duration>,
        timeout: Option<Duration>,
    }
}

enumeration! {
    /// Whether HTTP/1.1 is upgraded to HTTP/2 between proxies.
    pub enum H2UpgradePolicy {
        #[default]
        Default = "DEFAULT" = 0,
        DoNotUpgrade = "DO_NOT_UPGRADE" = 1,
        Upgrade = "UPGRADE" = 2,
    }
}

message! {
    /// `OutlierDetection`.
    pub struct OutlierDetection {
        /// Deprecated: gateway errors in a row.
        consecutive_errors: u32,
        consecutive_5xx_errors: Option<u32>,
        consecutive_gateway_errors: Option<u32>,
        consecutive_local_origin_failures: Option<u32>,
        split_external_local_origin_errors: bool,
        interval: Option<Duration>,
        base_ejection_time: Option<Duration>,
        max_ejection_percent: u32,
        min_health_percent: u32,
        outlier_detection_http_error_codes: Vec<u32>,
    }
}
