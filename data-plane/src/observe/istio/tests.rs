//! Labels at both reporters, and what the configuration changes in them.

use std::rc::Rc;
use std::sync::Arc;

use xds_api::istio::stats::{MetricConfig, PluginConfig};

use super::{IstioStats, check};
use crate::stats::{Query, Rules, Store, prometheus};
use crate::stream_info::{
    ClusterInfo, Direction, DownstreamInfo, PeerMetadata, Protocol, StreamInfo, TlsInfo, UpstreamInfo,
};

fn peer(name: &str) -> Arc<PeerMetadata> {
    Arc::new(PeerMetadata {
        workload: format!("{name}-v1"),
        namespace: "default".to_owned(),
        canonical_name: name.to_owned(),
        canonical_revision: "v1".to_owned(),
        app: name.to_owned(),
        version: "v1".to_owned(),
        cluster: "Kubernetes".to_owned(),
        ..PeerMetadata::default()
    })
}

fn tls(peer: &str, local: &str) -> Option<Arc<TlsInfo>> {
    let id = |name: &str| Box::from(format!("spiffe://cluster.local/ns/default/sa/{name}").as_str());
    Some(Arc::new(TlsInfo {
        peer_certificate_presented: true,
        peer_uri_sans: vec![id(peer)],
        local_uri_sans: Arc::new([id(local)]),
        ..TlsInfo::default()
    }))
}

fn info(direction: Direction) -> StreamInfo {
    let address = "127.0.0.1:1".parse().unwrap();
    let mut info = StreamInfo::new(Rc::new(DownstreamInfo {
        connection_id: 1,
        remote_address: address,
        direct_remote_address: address,
        local_address: address,
        direct_local_address: address,
        server_name: None,
        tls: (direction == Direction::Inbound).then(|| tls("productpage", "reviews")).flatten(),
        direction,
        state: Rc::default(),
    }));
    info.protocol = Some(Protocol::Http11);
    info.response_code = Some(200);
    info.cluster = Some(Arc::new(ClusterInfo {
        name: "outbound|9080||reviews.default.svc.cluster.local".into(),
        service_host: Some("reviews.default.svc.cluster.local".into()),
        service_name: Some("reviews".into()),
        service_namespace: Some("default".into()),
        ..ClusterInfo::default()
    }));
    info
}

fn recorded(config: &PluginConfig, direction: Direction, local: &str, info: &StreamInfo) -> String {
    let store = Store::new();
    let stats = IstioStats::new(config, direction, &peer(local), &Default::default(), &store);
    stats.on_http_end(info);
    let query = Query { used_only: true, ..Query::default() };
    let out = prometheus(&store, &Rules::default(), &query);
    out.lines().find(|line| line.starts_with("istio_requests_total")).unwrap_or_default().to_owned()
}

#[test]
fn the_source_reports_what_the_endpoint_tells() {
    let mut info = info(Direction::Outbound);
    info.upstream = Some(UpstreamInfo {
        tls: tls("reviews", "productpage"),
        workload: Some("reviews-v1;default;reviews;v1;Kubernetes".into()),
        ..UpstreamInfo::default()
    });
    assert_eq!(
        recorded(&PluginConfig::default(), Direction::Outbound, "productpage", &info),
        "istio_requests_total{reporter=\"source\",source_workload=\"productpage-v1\",\
         source_canonical_service=\"productpage\",source_canonical_revision=\"v1\",\
         source_workload_namespace=\"default\",\
         source_principal=\"spiffe://cluster.local/ns/default/sa/productpage\",source_app=\"productpage\",\
         source_version=\"v1\",source_cluster=\"Kubernetes\",destination_workload=\"reviews-v1\",\
         destination_workload_namespace=\"default\",\
         destination_principal=\"spiffe://cluster.local/ns/default/sa/reviews\",destination_app=\"unknown\",\
         destination_version=\"unknown\",destination_service=\"reviews.default.svc.cluster.local\",\
         destination_canonical_service=\"reviews\",destination_canonical_revision=\"v1\",\
         destination_service_name=\"reviews\",destination_service_namespace=\"default\",\
         destination_cluster=\"Kubernetes\",request_protocol=\"http\",response_code=\"200\",\
         grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"unknown\"} 1"
    );
}

#[test]
fn the_destination_reports_its_peer_and_mutual_tls() {
    let mut info = info(Direction::Inbound);
    info.downstream_peer = Some(peer("productpage"));
    let line = recorded(&PluginConfig::default(), Direction::Inbound, "reviews", &info);
    for part in [
        "reporter=\"destination\"",
        "source_workload=\"productpage-v1\"",
        "source_principal=\"spiffe://cluster.local/ns/default/sa/productpage\"",
        "destination_workload=\"reviews-v1\"",
        "destination_principal=\"spiffe://cluster.local/ns/default/sa/reviews\"",
        "connection_security_policy=\"mutual_tls\"",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

#[test]
fn dimensions_are_set_and_removed() {
    let config = PluginConfig {
        metrics: vec![MetricConfig {
            name: "requests_total".to_owned(),
            dimensions: [("destination_port".to_owned(), "string(destination.port)".to_owned())].into(),
            tags_to_remove: vec!["response_flags".to_owned()],
            ..MetricConfig::default()
        }],
        ..PluginConfig::default()
    };
    check(&config).unwrap();
    let line = recorded(&config, Direction::Inbound, "reviews", &info(Direction::Inbound));
    assert!(line.contains("destination_port=\"1\"") && !line.contains("response_flags"), "{line}");

    let dropped = PluginConfig {
        metrics: vec![MetricConfig { drop: true, ..MetricConfig::default() }],
        ..PluginConfig::default()
    };
    assert_eq!(recorded(&dropped, Direction::Inbound, "reviews", &info(Direction::Inbound)), "");
}

/// By Istio's documentation: any expression, peers with all of their labels, and only some streams.
#[test]
fn expressions_give_labels_and_choose_streams() {
    let metric = |matches: &str, label: &str, expression: &str| MetricConfig {
        name: "requests_total".to_owned(),
        dimensions: [(label.to_owned(), expression.to_owned())].into(),
        r#match: matches.to_owned(),
        ..MetricConfig::default()
    };
    let config = PluginConfig {
        metrics: vec![
            metric("", "team", "filter_state.downstream_peer.labels['team']"),
            metric("", "tier", "downstream_peer.labels['tier'].value"),
            metric("", "size", "request.size > 3 ? 'large' : 'small'"),
            metric("response.code >= 500", "failed", "'yes'"),
            metric("response.code < 500", "fine", "'yes'"),
        ],
        ..PluginConfig::default()
    };
    check(&config).unwrap();
    let mut info = info(Direction::Inbound);
    let labels = [("team", "blue")].map(|(name, value)| (Box::from(name), Box::from(value)));
    info.downstream_peer =
        Some(Arc::new(PeerMetadata { labels: labels.into(), ..PeerMetadata::clone(&peer("productpage")) }));
    let line = recorded(&config, Direction::Inbound, "reviews", &info);
    for label in ["team=\"blue\"", "tier=\"unknown\"", "size=\"small\"", "fine=\"yes\""] {
        assert!(line.contains(label), "{line}");
    }
    assert!(!line.contains("failed="), "{line}");

    let drop =
        MetricConfig { r#match: "response.code == 200".to_owned(), drop: true, ..MetricConfig::default() };
    let config = PluginConfig { metrics: vec![drop], ..PluginConfig::default() };
    assert_eq!(recorded(&config, Direction::Inbound, "reviews", &info), "");
    info.response_code = Some(503);
    assert_ne!(recorded(&config, Direction::Inbound, "reviews", &info), "");
}

#[test]
fn what_is_not_understood_is_named() {
    let config = PluginConfig {
        metrics: vec![MetricConfig {
            dimensions: [("x".to_owned(), "frobnicate(request.size)".to_owned())].into(),
            ..MetricConfig::default()
        }],
        ..PluginConfig::default()
    };
    let error = check(&config).unwrap_err();
    assert!(error.starts_with("metrics[0].dimensions[x]: "), "{error}");
}

#[test]
fn tcp_bytes_are_told_once_each() {
    let store = Store::new();
    let stats = IstioStats::new(
        &PluginConfig::default(),
        Direction::Inbound,
        &peer("mongo"),
        &Default::default(),
        &store,
    );
    let mut info = info(Direction::Inbound);
    (info.protocol, info.response_code) = (None, None);
    stats.on_tcp_open(&mut info);
    (info.bytes.received, info.bytes.sent) = (10, 100);
    stats.on_tcp_interval(&mut info);
    stats.on_tcp_interval(&mut info);
    (info.bytes.received, info.bytes.sent) = (15, 100);
    stats.on_tcp_close(&mut info);
    let out = prometheus(&store, &Rules::default(), &Query { used_only: true, ..Query::default() });
    for (metric, value) in [
        ("connections_opened_total", 1),
        ("connections_closed_total", 1),
        ("received_bytes_total", 15),
        ("sent_bytes_total", 100),
    ] {
        let line = out.lines().find(|line| line.starts_with(&format!("istio_tcp_{metric}{{"))).unwrap();
        assert!(line.ends_with(&format!("}} {value}")), "{line}");
        assert!(line.contains("request_protocol=\"tcp\"") && !line.contains("response_code="), "{line}");
    }
}
