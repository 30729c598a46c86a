//! scratch
use sail_proxy_config::cluster::*;
use sail_proxy_config::hcm::*;
use sail_proxy_config::http_filter::*;
use sail_proxy_config::listener::*;
use sail_proxy_config::network_filter::*;
use sail_proxy_config::tls::*;
use sail_proxy_config::*;
use sail_proxy_decide::filter_chain::*;
use sail_proxy_decide::host::*;
use sail_proxy_decide::route::*;
use std::sync::Arc;
use std::time::Duration;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn ops() -> sail_proxy_decide::headers::HeaderOps {
    Default::default()
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let port: u16 = args[1].parse().unwrap();
    let up: u16 = args[2].parse().unwrap();
    let h2 = args.get(3).map(|s| s.as_str()) == Some("h2");
    let tcp = args.get(3).map(|s| s.as_str()) == Some("tcp");
    let route = Route {
        name: "".into(),
        matching: RouteMatch::prefix("/"),
        action: Action::Route(Box::new(RouteAction {
            cluster: ClusterSpecifier::Name("b".into()),
            cluster_not_found_status: http::StatusCode::SERVICE_UNAVAILABLE,
            metadata_match: None,
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            timeout: None,
            idle_timeout: None,
            max_stream_duration: None,
            max_grpc_timeout: None,
            grpc_timeout_offset: None,
            retry: None,
            mirrors: Box::new([]),
            priority: Priority::Default,
            hash_policy: Box::new([]),
            cors: None,
            upgrades: Box::new([]),
        })),
        request_headers: ops(),
        response_headers: ops(),
        decorator: None,
        tracing: None,
        request_body_buffer_limit: None,
        stat_prefix: "".into(),
        per_filter: Default::default(),
        metadata: None,
    };
    let vh = VirtualHost {
        name: "v".into(),
        routes: Box::new([Arc::new(route)]),
        require_tls: RequireTls::None,
        request_headers: ops(),
        response_headers: ops(),
        mirrors: Box::new([]),
        retry: None,
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        include_is_timeout_retry_header: false,
        request_body_buffer_limit: None,
        cors: None,
        per_filter: Default::default(),
        metadata: None,
    };
    let table = RouteTable {
        name: "r".into(),
        hosts: {
            let mut h = HostIndex::default();
            h.insert("*", 0).unwrap();
            h
        },
        virtual_hosts: Box::new([Arc::new(vh)]),
        ignore_port_in_host_matching: false,
        request_headers: ops(),
        response_headers: ops(),
        most_specific_header_mutations_wins: false,
        internal_only_headers: Box::new([]),
        mirrors: Box::new([]),
        per_filter: Default::default(),
        ignore_path_parameters: false,
        version: 1,
    };
    let hcm = Hcm {
        stat_prefix: "in".into(),
        codec: Codec::Auto,
        routes: RouteSource::Inline(Arc::new(table)),
        http_filters: Arc::new([HttpFilter {
            name: "router".into(),
            disabled: false,
            kind: HttpFilterKind::Router(Default::default()),
        }]),
        access_logs: Box::new([]),
        access_log_flush_interval: None,
        flush_access_log_on_new_request: false,
        timeouts: HcmTimeouts {
            idle: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            stream_idle: Some(Duration::from_secs(300)),
            max_stream_duration: None,
            request: None,
            request_headers: None,
            drain: Duration::from_secs(5),
            delayed_close: Duration::from_secs(1),
        },
        limits: HcmLimits {
            max_request_headers_bytes: 61440,
            max_headers_count: 100,
            max_requests_per_connection: None,
        },
        http1: Default::default(),
        http2: Default::default(),
        client_address: Default::default(),
        forward_client_cert: Default::default(),
        client_cert_details: Default::default(),
        server_header: Default::default(),
        server_name: http::HeaderValue::from_static("envoy"),
        via: None,
        scheme: Default::default(),
        path: PathOptions { normalize: true, merge_slashes: false, escaped_slashes: Default::default() },
        host: Default::default(),
        request_id: RequestId {
            generate: true,
            preserve_external: false,
            always_set_in_response: false,
            pack_trace_reason: true,
            use_for_trace_sampling: true,
        },
        upgrades: Box::new([]),
        tracing: None,
        local_reply: None,
        proxy_100_continue: false,
        append_x_forwarded_port: false,
        stream_error_on_invalid_http_message: false,
        underscores: Default::default(),
        add_user_agent: false,
    };
    let tp = TcpProxy {
        stat_prefix: "t".into(),
        cluster: TcpCluster::Name("b".into()),
        metadata_match: None,
        idle_timeout: Some(Duration::from_secs(3600)),
        max_downstream_connection_duration: None,
        max_connect_attempts: 1,
        hash_policy: Box::new([]),
        access_logs: Box::new([]),
        access_log_flush_interval: None,
        flush_access_log_on_connected: false,
        tunneling: None,
    };
    let filter = if tcp {
        NetworkFilter::TcpProxy(Arc::new(tp))
    } else {
        NetworkFilter::HttpConnectionManager(Arc::new(hcm))
    };
    let chain = FilterChain {
        name: "".into(),
        socket: DownstreamSocket::Raw,
        transport_socket_connect_timeout: None,
        filters: Box::new([filter]),
        metadata: None,
    };
    let listener = Listener {
        name: "l".into(),
        stat_prefix: "".into(),
        addresses: Box::new([std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()]),
        bind_to_port: true,
        use_original_dst: false,
        transparent: false,
        freebind: false,
        reuse_port: true,
        socket_options: Box::new([]),
        tcp_keepalive: None,
        tcp_fast_open_queue_length: None,
        tcp_backlog_size: None,
        traffic_direction: Default::default(),
        listener_filters: Box::new([]),
        listener_filters_timeout: None,
        continue_on_listener_filters_timeout: false,
        filter_chains: Box::new([Arc::new(chain)]),
        index: FilterChainIndex::new(vec![Default::default()]).unwrap(),
        default_filter_chain: None,
        access_logs: Box::new([]),
        per_connection_buffer_limit: 0,
        drain_type: Default::default(),
        max_connections_to_accept_per_socket_event: None,
        ignore_global_conn_limit: false,
        exact_balance: false,
        metadata: None,
        version: 1,
    };
    let host = Host {
        address: std::net::SocketAddr::from(([127, 0, 0, 1], up)).into(),
        additional_addresses: Box::new([]),
        hostname: "".into(),
        weight: 1,
        priority: 0,
        locality: Default::default(),
        metadata: None,
        health_status: Default::default(),
        health_check: None,
        state: Default::default(),
    };
    let eps = Endpoints::build(
        vec![Group { locality: Default::default(), priority: 0, weight: None, hosts: vec![host] }],
        Default::default(),
        1,
        None,
    );
    let th = Thresholds {
        max_connections: 100000,
        max_pending_requests: 100000,
        max_requests: 100000,
        ..Default::default()
    };
    let cluster = Cluster {
        name: "b".into(),
        stat_name: "b".into(),
        discovery: Discovery::Static(Arc::new(eps)),
        connect_timeout: Duration::from_secs(5),
        per_connection_buffer_limit: 0,
        lb: sail_proxy_decide::lb::LbPolicy::RoundRobin { slow_start: None },
        common_lb: Default::default(),
        circuit_breakers: CircuitBreakers { default: th.clone(), high: th, per_host_max_connections: None },
        outlier_detection: None,
        health_checks: Box::new([]),
        socket: UpstreamSocket::Raw,
        socket_matches: Box::new([]),
        http: UpstreamHttp {
            protocol: if h2 { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 },
            http1: Default::default(),
            http2: Default::default(),
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            max_requests_per_connection: None,
            max_response_headers_count: 100,
            auto_sni: false,
            auto_san_validation: false,
            override_auto_sni_header: None,
        },
        bind: None,
        tcp_keepalive: None,
        metadata_exchange: None,
        metadata: None,
        close_connections_on_host_health_failure: false,
        ignore_health_on_host_removal: false,
        connection_pool_per_downstream_connection: false,
        track: Default::default(),
        version: 1,
    };
    let mut snap = Snapshot::default();
    snap.version = 1;
    snap.listeners.push(Arc::new(listener));
    snap.clusters.insert("b".into(), Arc::new(cluster));
    sail_proxy::stats::set_workers(1);
    let store = sail_proxy::stats::Store::new();
    let sinks = sail_proxy::access_log::Sinks::start(&store, Duration::from_secs(1)).unwrap();
    let (exporters, _rest) = sail_proxy::trace::Exporters::new(store.clone(), None);
    let observers = sail_proxy::observe::Observers::new(
        store.clone(),
        sinks,
        exporters,
        Default::default(),
        Default::default(),
    );
    let options = sail_proxy::worker::Options {
        concurrency: 1,
        drain_time: Duration::from_secs(1),
        node_metadata: Default::default(),
        node_id: "n".into(),
        observers,
    };
    let empty = Arc::new(Snapshot::default());
    let mut workers = sail_proxy::worker::Workers::start(options, store, &empty).unwrap();
    workers.apply(&Arc::new(snap)).unwrap();
    std::thread::park();
}
