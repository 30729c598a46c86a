//! What collectors are told of connections and of spans. What is expected was written by Envoy.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use xds_api::envoy::data::accesslog::v3::TcpAccessLogEntry;
use xds_api::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
use xds_api::envoy::service::accesslog::v3::{StreamAccessLogsMessage, StreamAccessLogsResponse};

use super::grpc::{self, Say};
use super::h2::{self, Message};
use super::setup::{HTTP2, agrees, bootstrap_with, cluster};
use super::support::{Proxy, call};

const PATIENCE: Duration = Duration::from_secs(20);

fn logs() -> (SocketAddr, Receiver<StreamAccessLogsMessage>) {
    let (send, seen) = mpsc::channel();
    let address = grpc::play(move |_| {
        let send = send.clone();
        move |message: Option<StreamAccessLogsMessage>| {
            let none: Vec<Say<StreamAccessLogsResponse>> = Vec::new();
            if let Some(message) = message {
                let _ = send.send(message);
            }
            none
        }
    });
    (address, seen)
}

/// A server that answers a word with another, once the client has ended.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut word = Vec::new();
            let _ = stream.read_to_end(&mut word);
            let _ = stream.write_all(b"answer");
        }
    });
    address
}

/// What of an entry is the same every time.
fn told(entry: &TcpAccessLogEntry) -> Vec<String> {
    let common = entry.common_properties.clone().unwrap();
    let bytes = entry.connection_properties.unwrap();
    let set = [
        ("downstream_remote_address", common.downstream_remote_address.is_some()),
        ("downstream_local_address", common.downstream_local_address.is_some()),
        ("downstream_direct_remote_address", common.downstream_direct_remote_address.is_some()),
        ("tls_properties", common.tls_properties.is_some()),
        ("start_time", common.start_time.is_some()),
        ("time_to_last_rx_byte", common.time_to_last_rx_byte.is_some()),
        ("time_to_first_upstream_tx_byte", common.time_to_first_upstream_tx_byte.is_some()),
        ("time_to_last_upstream_tx_byte", common.time_to_last_upstream_tx_byte.is_some()),
        ("time_to_first_upstream_rx_byte", common.time_to_first_upstream_rx_byte.is_some()),
        ("time_to_last_upstream_rx_byte", common.time_to_last_upstream_rx_byte.is_some()),
        ("time_to_first_downstream_tx_byte", common.time_to_first_downstream_tx_byte.is_some()),
        ("time_to_last_downstream_tx_byte", common.time_to_last_downstream_tx_byte.is_some()),
        ("upstream_remote_address", common.upstream_remote_address.is_some()),
        ("upstream_local_address", common.upstream_local_address.is_some()),
        ("response_flags", common.response_flags.is_some()),
        ("metadata", common.metadata.as_ref().is_some_and(|metadata| !metadata.filter_metadata.is_empty())),
        ("duration", common.duration.is_some()),
    ];
    let set: Vec<_> = set.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    let flags = common.response_flags.unwrap_or_default();
    let mut states: Vec<_> = common
        .filter_state_objects
        .iter()
        .map(|(key, any)| {
            format!("{key}={}:{}", any.type_url, String::from_utf8_lossy(&any.value).escape_default())
        })
        .collect();
    states.sort();
    vec![
        format!("  set: {}", set.join(" ")),
        format!(
            "  cluster {:?}, route {:?}, type {}, received {}, sent {}, attempts {}, termination {:?}, failure {:?}",
            common.upstream_cluster,
            common.route_name,
            common.access_log_type,
            bytes.received_bytes,
            bytes.sent_bytes,
            common.upstream_request_attempt_count,
            common.connection_termination_details,
            common.upstream_transport_failure_reason,
        ),
        format!(
            "  wire: down sent {} received {}, up sent {} received {}",
            common.downstream_wire_bytes_sent,
            common.downstream_wire_bytes_received,
            common.upstream_wire_bytes_sent,
            common.upstream_wire_bytes_received
        ),
        format!(
            "  no upstream {}, connection failure {}, no cluster {}",
            flags.no_healthy_upstream, flags.upstream_connection_failure, flags.no_cluster_found
        ),
        format!("  states: {}, tags {:?}", states.join(" "), common.custom_tags),
    ]
}

#[test]
fn connections_are_told_to_envoys_service() {
    let (als, seen) = logs();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = "access_log: [{name: als, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig, common_config: {log_name: mine, \
        transport_api_version: V3, buffer_size_bytes: 1, buffer_flush_interval: 0.05s, filter_state_objects_to_log: [k], \
        custom_tags: [{tag: fixed, literal: {value: here}}], grpc_service: {envoy_grpc: {cluster_name: als}}}}}]";
    let listener = |name: &str, cluster: &str, more: &str| {
        format!(
            "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: \
             [{{filters: [{{name: state, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config, on_new_connection: \
             [{{object_key: k, factory_key: envoy.string, format_string: {{text_format_source: {{inline_string: there}}}}}}]}}}}, \
             {{name: tcp, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
             stat_prefix: {name}, cluster: {cluster}, {more}{log}}}}}]}}]\n"
        )
    };
    let text = format!(
        "node: {{id: node, cluster: c}}\nstatic_resources:\n  listeners:\n{}{}{}{}  clusters:\n{}{}{}{}",
        listener("served", "app", ""),
        listener("refused", "closed", ""),
        listener("empty", "empty", ""),
        listener("early", "app", "access_log_options: {flush_access_log_on_connected: true}, "),
        cluster("app", &[upstream()], ""),
        cluster("closed", &[closed], ""),
        cluster("empty", &[], ""),
        cluster("als", &[als], HTTP2),
    );
    let proxy = Proxy::ready(&text, &[]);
    let mut lines = Vec::new();
    for (name, entries) in [("served", 1), ("refused", 1), ("empty", 1), ("early", 2)] {
        let mut stream = TcpStream::connect(proxy.listener(name)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"word");
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let mut count = 0;
        while count < entries {
            let message = seen.recv_timeout(PATIENCE).unwrap();
            if let Some(identifier) = &message.identifier {
                let node = identifier.node.as_ref().unwrap();
                lines.push(format!("stream of {} from {}", identifier.log_name, node.id));
            }
            let Some(LogEntries::TcpLogs(logs)) = message.log_entries else { panic!("no TCP entries") };
            for entry in &logs.log_entry {
                lines.push(format!("{name} [{}]", String::from_utf8_lossy(&answer)));
                lines.extend(told(entry));
                count += 1;
            }
        }
    }
    agrees("collector_tcp", &lines);
}

#[test]
fn spans_are_told_over_http() {
    let (send, seen) = mpsc::channel();
    let send = std::sync::Mutex::new(send);
    let collector = h2::serve(move |asked| {
        send.lock().unwrap().send(asked.clone()).unwrap();
        Message::default()
    });
    let manager = "tracing: {random_sampling: {value: 100}, provider: {name: otel, typed_config: {\"@type\": \
        type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: shop, http_service: {http_uri: {uri: \
        \"http://collector.test:4318/v1/traces?key=1\", cluster: otel, timeout: 1s}, request_headers_to_add: [{header: {key: \
        x-api-key, value: secret}}]}}}}, ";
    let routes = "{match: {prefix: /}, direct_response: {status: 201}}";
    let text = bootstrap_with(manager, "", routes, &cluster("otel", &[collector], HTTP2));
    let runtime = "layered_runtime: {layers: [{name: static, static_layer: {tracing.opentelemetry.min_flush_spans: 1, \
        tracing.opentelemetry.flush_interval_ms: 100}}]}\n";
    let proxy = Proxy::ready(&format!("{text}{runtime}"), &[]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(call(proxy.listener("l"), "GET", "/x", &[("traceparent", parent)]).unwrap().status, 201);
    let told = seen.recv_timeout(PATIENCE).unwrap();
    let head = format!("{} {} {}", told.method, told.host, told.path);
    let kind = format!("{} {}", told.header("content-type"), told.header("x-api-key"));
    let text = String::from_utf8_lossy(&told.body);
    for expect in ["shop", "http.status_code", "201"] {
        assert!(text.contains(expect), "{expect} is missing in {text:?}");
    }
    let trace = hex::decode("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
    assert!(told.body.windows(trace.len()).any(|window| window == trace), "the caller's trace goes on");
    agrees("collector_spans", &[head, kind]);
}
