//! The labels of Istio's standard metrics, from both peers' metadata and the connection's security.

use std::hash::BuildHasher;
use std::sync::Arc;

use crate::stats::push_label;
use crate::stream_info::{PeerMetadata, StreamInfo};

/// Which proxy reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reporter {
    /// The caller's, also a gateway's.
    Source,
    /// The callee's.
    Destination,
    /// A waypoint.
    Waypoint,
}

/// What the labels of one stream are made of. Borrowed: equal ones are found again by their hash, and only new ones
/// are rendered.
#[derive(Hash)]
pub(super) struct Labels<'a> {
    local: &'a PeerMetadata,
    peer: Option<&'a PeerMetadata>,
    reporter: u8,
    source_principal: &'a str,
    destination_principal: &'a str,
    service: &'a str,
    service_name: &'a str,
    service_namespace: &'a str,
    protocol: &'static str,
    response_code: Option<u16>,
    grpc_status: Option<u32>,
    flags: crate::stream_info::ResponseFlags,
    security: &'static str,
    /// Whether the labels of requests are there.
    http: bool,
    /// Values of configured dimensions.
    pub(super) custom: &'a [String],
}

const UNKNOWN: &str = "unknown";
const LATEST: &str = "latest";

impl<'a> Labels<'a> {
    /// The labels of a stream.
    pub(super) fn new(
        reporter: Reporter,
        local: &'a PeerMetadata,
        endpoint: Option<&'a PeerMetadata>,
        info: &'a StreamInfo,
        host_fallback: bool,
    ) -> Self {
        let source = reporter == Reporter::Source;
        let peer =
            if source { info.upstream_peer.as_deref().or(endpoint) } else { info.downstream_peer.as_deref() };
        let tls = if source {
            info.upstream.as_ref().and_then(|upstream| upstream.tls.as_deref())
        } else {
            info.downstream.tls.as_deref()
        };
        let (mut ours, mut theirs) = (UNKNOWN, UNKNOWN);
        if let Some(tls) = tls {
            ours = tls.local_principal().unwrap_or(UNKNOWN);
            theirs = tls.peer_principal().unwrap_or(UNKNOWN);
        }
        let (source_principal, destination_principal) = if source { (ours, theirs) } else { (theirs, ours) };
        let security = match (source, tls) {
            (true, _) => UNKNOWN,
            (false, Some(tls)) if tls.peer_certificate_presented => "mutual_tls",
            (false, _) => "none",
        };
        let (service, service_name, service_namespace) = service(source, local, peer, info, host_fallback);
        let http = info.protocol.is_some();
        let grpc =
            info.captured.request("content-type").is_some_and(|kind| kind.starts_with("application/grpc"));
        let protocol = match (http, grpc) {
            (false, _) => "tcp",
            (true, true) => "grpc",
            (true, false) => "http",
        };
        Self {
            local,
            peer,
            reporter: reporter as u8,
            source_principal,
            destination_principal,
            service,
            service_name,
            service_namespace,
            protocol,
            response_code: info.response_code,
            grpc_status: info.grpc_status.filter(|_| grpc),
            flags: info.flags,
            security,
            http,
            custom: &[],
        }
    }

    /// A number that stands for these labels within one observer.
    pub(super) fn key(&self, hasher: &impl BuildHasher) -> u64 {
        hasher.hash_one(self)
    }

    /// The labels, in Istio's order.
    pub(super) fn list(&self) -> Vec<(&'static str, String)> {
        let empty = PeerMetadata::default();
        let peer = self.peer.unwrap_or(&empty);
        let is_source = self.reporter == Reporter::Source as u8;
        let (source, destination) = if is_source { (self.local, peer) } else { (peer, self.local) };
        let or =
            |value: &str, default: &str| if value.is_empty() { default.to_owned() } else { value.to_owned() };
        let known = |value: &str| or(value, UNKNOWN);
        let reporter = match self.reporter {
            r if r == Reporter::Source as u8 => "source",
            r if r == Reporter::Destination as u8 => "destination",
            _ => "waypoint",
        };
        let mut list = vec![
            ("reporter", reporter.to_owned()),
            ("source_workload", known(&source.workload)),
            ("source_canonical_service", known(&source.canonical_name)),
            ("source_canonical_revision", or(&source.canonical_revision, LATEST)),
            ("source_workload_namespace", known(&source.namespace)),
            ("source_principal", known(self.source_principal)),
            ("source_app", known(&source.app)),
            ("source_version", known(&source.version)),
            ("source_cluster", known(&source.cluster)),
            ("destination_workload", known(&destination.workload)),
            ("destination_workload_namespace", known(&destination.namespace)),
            ("destination_principal", known(self.destination_principal)),
            ("destination_app", known(&destination.app)),
            ("destination_version", known(&destination.version)),
            ("destination_service", known(self.service)),
            ("destination_canonical_service", known(&destination.canonical_name)),
            ("destination_canonical_revision", or(&destination.canonical_revision, LATEST)),
            ("destination_service_name", known(self.service_name)),
            ("destination_service_namespace", known(self.service_namespace)),
            ("destination_cluster", known(&destination.cluster)),
            ("request_protocol", self.protocol.to_owned()),
        ];
        if self.http {
            list.push(("response_code", self.response_code.unwrap_or(0).to_string()));
            list.push(("grpc_response_status", self.grpc_status.map(|s| s.to_string()).unwrap_or_default()));
        }
        list.push(("response_flags", self.flags.to_string()));
        list.push(("connection_security_policy", self.security.to_owned()));
        list
    }
}

/// Labels in Prometheus' form.
pub(super) fn render(labels: &[(Arc<str>, String)]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        push_label(&mut out, name, value);
    }
    out
}

/// The destination's service: its host, name and namespace.
fn service<'a>(
    source: bool,
    local: &'a PeerMetadata,
    peer: Option<&'a PeerMetadata>,
    info: &'a StreamInfo,
    host_fallback: bool,
) -> (&'a str, &'a str, &'a str) {
    const PASSTHROUGH: [&str; 3] = ["PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"];
    let cluster = info.cluster.as_deref();
    let mut host = cluster.and_then(|cluster| cluster.service_host.as_deref()).unwrap_or_default();
    if host.is_empty() && host_fallback {
        host = info.request.authority();
    }
    let name = match cluster {
        Some(cluster) if PASSTHROUGH.contains(&&*cluster.name) => &*cluster.name,
        Some(cluster) => cluster.service_name.as_deref().unwrap_or(host),
        None => host,
    };
    let namespace = cluster.and_then(|cluster| cluster.service_namespace.as_deref());
    let fallback =
        if source { peer.map(|peer| peer.namespace.as_str()) } else { Some(local.namespace.as_str()) };
    (host, name, namespace.or(fallback).unwrap_or_default())
}
