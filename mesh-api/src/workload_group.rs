//! `WorkloadGroup`: the template of workloads that register themselves.

use std::collections::BTreeMap;

use crate::check;
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::workload_entry::WorkloadEntry;

message! {
    /// `networking.istio.io/WorkloadGroup`.
    pub struct WorkloadGroup {
        metadata: Option<WorkloadMeta>,
        template: Option<WorkloadEntry>,
        probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Labels and annotations of the workload entries made.
    pub struct WorkloadMeta {
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

message! {
    /// `ReadinessProbe`. Absent numbers: Kubernetes' defaults.
    pub struct ReadinessProbe {
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        http_get: Option<HttpHealthCheck>,
        tcp_socket: Option<TcpHealthCheck>,
        exec: Option<ExecHealthCheck>,
        grpc: Option<GrpcHealthCheck>,
    }
}

message! {
    /// A GET that must answer 200 to 399.
    pub struct HttpHealthCheck {
        path: String,
        port: u16,
        host: String,
        scheme: String,
        http_headers: Vec<HttpHeader>,
    }
}

message! {
    /// A header of the probe.
    pub struct HttpHeader {
        name: String,
        value: String,
    }
}

message! {
    /// A connection that must be accepted.
    pub struct TcpHealthCheck {
        host: String,
        port: u16,
    }
}

message! {
    /// A command that must succeed.
    pub struct ExecHealthCheck {
        command: Vec<String>,
    }
}

message! {
    /// The gRPC health service.
    pub struct GrpcHealthCheck {
        port: u16,
        service: String,
    }
}

impl Spec for WorkloadGroup {
    const KIND: Kind = Kind::WorkloadGroup;
    fn validate(&self, _: &ObjectMeta, cx: &mut Cx) {
        match &self.template {
            None => cx.error_at("template", "must be set"),
            Some(template) => cx.field("template", |cx| {
                if !template.address.is_empty() {
                    cx.warn_at("address", "has no effect: each workload has its own");
                }
                template.check(cx);
            }),
        }
        cx.some("metadata", self.metadata.as_ref(), |cx, meta| check::labels("labels", &meta.labels, cx));
        cx.some("probe", self.probe.as_ref(), probe);
    }
}

pub(crate) fn probe(cx: &mut Cx, probe: &ReadinessProbe) {
    let methods =
        [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    if methods.into_iter().filter(|set| *set).count() != 1 {
        cx.error("exactly one of httpGet, tcpSocket, exec and grpc must be set");
    }
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        if number < 0 {
            cx.error_at(name, "must not be negative");
        }
    }
    cx.some("httpGet", probe.http_get.as_ref(), |cx, http| {
        cx.field("port", |cx| check::port(http.port, cx));
        if !matches!(http.scheme.as_str(), "" | "HTTP" | "HTTPS") {
            cx.error_at("scheme", "must be HTTP or HTTPS");
        }
        cx.each("httpHeaders", &http.http_headers, |cx, header| check::header_name(&header.name, cx));
    });
    cx.some("tcpSocket", probe.tcp_socket.as_ref(), |cx, tcp| {
        cx.field("port", |cx| check::port(tcp.port, cx))
    });
    cx.some("grpc", probe.grpc.as_ref(), |cx, grpc| cx.field("port", |cx| check::port(grpc.port, cx)));
    cx.some("exec", probe.exec.as_ref(), |cx, exec| {
        if exec.command.is_empty() {
            cx.error_at("command", "must not be empty");
        }
    });
}
