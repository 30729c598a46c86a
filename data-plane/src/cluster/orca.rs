//! Load reports that come with responses (ORCA): `endpoint-load-metrics` in headers or trailers, as text, as JSON, or as
//! a protobuf.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use prost::Message;
use sail_proxy_decide::host::Host;
use sail_proxy_decide::lb::{LoadReport, ReportedWeights};

use crate::http::body::Body;
use crate::http::seen;
use crate::outlier::now_ms;

const METRICS: &str = "endpoint-load-metrics";
const METRICS_BINARY: &str = "endpoint-load-metrics-bin";

/// `xds.data.orca.v3.OrcaLoadReport`
#[derive(Clone, PartialEq, Message)]
struct Report {
    #[prost(double, tag = "1")]
    cpu_utilization: f64,
    #[prost(double, tag = "2")]
    mem_utilization: f64,
    #[prost(map = "string, double", tag = "4")]
    request_cost: HashMap<String, f64>,
    #[prost(map = "string, double", tag = "5")]
    utilization: HashMap<String, f64>,
    #[prost(double, tag = "6")]
    rps_fractional: f64,
    #[prost(double, tag = "7")]
    eps: f64,
    #[prost(map = "string, double", tag = "8")]
    named_metrics: HashMap<String, f64>,
    #[prost(double, tag = "9")]
    application_utilization: f64,
}

/// Notes the report among these headers, if there is one; says whether there was.
pub(crate) fn note(config: &ReportedWeights, host: &Host, headers: &HeaderMap) -> bool {
    let Some(report) = read(headers) else { return false };
    if let Some(weight) = report.weight(config) {
        host.state.reported().note(weight, now_ms().max(1));
    }
    true
}

fn read(headers: &HeaderMap) -> Option<LoadReport> {
    if let Some(value) = headers.get(METRICS_BINARY) {
        return binary(value.as_bytes());
    }
    let text = headers.get(METRICS)?.to_str().ok()?;
    if let Some(text) = text.strip_prefix("TEXT ") {
        LoadReport::from_text(text)
    } else if let Some(json) = text.strip_prefix("JSON ") {
        LoadReport::from_json(json)
    } else {
        binary(text.strip_prefix("BIN ")?.trim().as_bytes())
    }
}

fn binary(text: &[u8]) -> Option<LoadReport> {
    let report = Report::decode(&STANDARD.decode(text).ok()?[..]).ok()?;
    let maps = [
        ("request_cost", report.request_cost),
        ("utilization", report.utilization),
        ("named_metrics", report.named_metrics),
    ];
    let named = maps.into_iter().flat_map(|(map, fields)| {
        fields.into_iter().map(move |(key, value)| (format!("{map}.{key}").into(), value))
    });
    Some(LoadReport {
        cpu_utilization: report.cpu_utilization,
        mem_utilization: report.mem_utilization,
        application_utilization: report.application_utilization,
        rps_fractional: report.rps_fractional,
        eps: report.eps,
        named: named.collect(),
    })
}

/// A response's body whose trailers may bear a report.
pub(crate) fn watched(body: Body, host: Arc<Host>, config: Arc<ReportedWeights>) -> Body {
    seen::by(body, move |frame| {
        if let Some(trailers) = frame.trailers_ref() {
            note(&config, &host, trailers);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &'static str, value: &str) -> Option<LoadReport> {
        read(&[(http::HeaderName::from_static(name), value.parse().unwrap())].into_iter().collect())
    }

    #[test]
    fn reports_come_in_four_forms() {
        let text = one(METRICS, "TEXT cpu_utilization=0.5,rps_fractional=4,named_metrics.foo=2").unwrap();
        let json = r#"JSON {"cpu_utilization": 0.5, "rps_fractional": 4, "named_metrics": {"foo": 2}}"#;
        assert_eq!(one(METRICS, json), Some(text.clone()));
        let report = Report {
            cpu_utilization: 0.5,
            rps_fractional: 4.0,
            named_metrics: [("foo".to_owned(), 2.0)].into(),
            ..Report::default()
        };
        let encoded = STANDARD.encode(report.encode_to_vec());
        assert_eq!(one(METRICS_BINARY, &encoded), Some(text.clone()));
        assert_eq!(one(METRICS, &format!("BIN {encoded}")), Some(text));
        assert_eq!(one(METRICS, "cpu_utilization=0.5"), None);
        assert_eq!(one(METRICS_BINARY, "!"), None);
    }
}
