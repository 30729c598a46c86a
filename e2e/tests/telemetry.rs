//! Metrics and traces, on bookinfo.

use std::collections::BTreeMap;

use e2e::{Turn, ensure, eventually};
use serde_json::Value;

const BOOKINFO: [&str; 4] = [
    "examples/bookinfo/platform/bookinfo.yaml",
    "examples/bookinfo/networking/bookinfo-gateway.yaml",
    "examples/bookinfo/networking/destination-rule-all.yaml",
    "examples/bookinfo/networking/virtual-service-all-v1.yaml",
];

fn turn() -> Turn {
    Turn::take("telemetry", &BOOKINFO)
}

/// Labels and value.
type Sample = (BTreeMap<String, String>, f64);

/// The samples of one metric at one sidecar: labels and value.
fn samples(mesh: &Turn, pod: &str, metric: &str) -> Result<Vec<Sample>, String> {
    let output = mesh.sailctl(&[
        "exec",
        pod,
        "-c",
        "istio-proxy",
        "--",
        "curl",
        "-s",
        "localhost:15020/stats/prometheus",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines =
        text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{')?.split_once("} "));
    let parse = |(labels, value): (&str, &str)| {
        let labels = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
        let labels =
            labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned())).collect();
        (labels, value.trim().parse().unwrap_or(f64::NAN))
    };
    let samples: Vec<_> = lines.map(parse).collect();
    ensure(!samples.is_empty(), || {
        format!("no {metric} at {pod}: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok(samples)
}

#[test]
fn both_reporters_count_with_the_right_labels() {
    let mesh = turn();
    eventually(|| {
        mesh.product_page(None)?;
        for (pod, reporter) in [("deploy/productpage-v1", "source"), ("deploy/details-v1", "destination")] {
            let found = samples(&mesh, pod, "istio_requests_total")?;
            let wanted = [
                ("reporter", reporter),
                ("source_workload", "productpage-v1"),
                ("source_canonical_service", "productpage"),
                ("source_canonical_revision", "v1"),
                ("source_workload_namespace", "default"),
                ("source_principal", "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"),
                ("source_app", "productpage"),
                ("source_version", "v1"),
                ("destination_workload", "details-v1"),
                ("destination_workload_namespace", "default"),
                ("destination_principal", "spiffe://cluster.local/ns/default/sa/bookinfo-details"),
                ("destination_app", "details"),
                ("destination_version", "v1"),
                ("destination_service", "details.default.svc.cluster.local"),
                ("destination_service_name", "details"),
                ("destination_service_namespace", "default"),
                ("request_protocol", "http"),
                ("response_code", "200"),
                ("response_flags", "-"),
                ("connection_security_policy", if reporter == "source" { "unknown" } else { "mutual_tls" }),
            ];
            let fits = |labels: &BTreeMap<String, String>| {
                wanted.iter().all(|(name, value)| labels.get(*name).is_some_and(|found| found == value))
            };
            ensure(found.iter().any(|(labels, value)| fits(labels) && *value >= 1.0), || {
                format!("{pod}: {found:?}")
            })?;
        }
        Ok(())
    });
}

/// The spans of the collector, by trace.
fn traces(mesh: &Turn) -> Result<BTreeMap<String, Vec<Value>>, String> {
    let output = mesh.sailctl(&[
        "exec",
        "-n",
        "istio-system",
        "deploy/zipkin",
        "--",
        "curl",
        "-s",
        "localhost:9411/spans",
    ]);
    let spans: Vec<Value> = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let mut traces: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for span in spans {
        traces.entry(span["traceId"].as_str().unwrap_or_default().to_owned()).or_default().push(span);
    }
    Ok(traces)
}

/// Whether a trace has a span of the caller's and one of the callee's sidecar for a call, the latter below the former.
fn has_call(spans: &[Value], caller: &str, callee: &str) -> bool {
    let of = |service: &str, kind: &str| -> Vec<&Value> {
        let service = format!("{service}.default");
        spans
            .iter()
            .filter(|span| span["localEndpoint"]["serviceName"] == *service && span["kind"] == kind)
            .collect()
    };
    of(callee, "SERVER").iter().any(|server| {
        of(caller, "CLIENT")
            .iter()
            .any(|client| client["id"] == server["parentId"] || client["id"] == server["id"])
    })
}

#[test]
fn a_page_is_one_trace_with_right_parents() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/tracing.yaml");
    mesh.apply("examples/bookinfo/networking/virtual-service-reviews-v3.yaml");
    eventually(|| {
        mesh.product_page(None)?;
        let traces = traces(&mesh)?;
        let whole = |spans: &Vec<Value>| {
            has_call(spans, "productpage", "reviews") && has_call(spans, "reviews", "ratings")
        };
        ensure(traces.values().any(whole), || format!("no trace has both calls: {traces:#?}"))
    });
}
