//! Health checks and outlier detection.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use sail_proxy_decide::outlier::{Enforcing, FailurePercentage, OutlierDetection, SuccessRate};

use super::{HealthCheck, HealthChecker};
use crate::convert::{Cx, arc, headers, matchers, type_name, values};
use crate::pb;
use crate::pb::core::health_check as hc;

/// `HealthCheck`
pub(super) fn check(cx: &mut Cx<'_>, value: pb::core::HealthCheck) -> Option<HealthCheck> {
    let pb::core::HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = value;
    cx.refuse("event_service", &event_service);
    let sinks = cx.each("event_logger", event_logger, event_sink);
    if sinks.len() > 1 {
        cx.error("event_logger", "one sink is supported");
    }
    let mut positive = |field: &str, value: Option<pb::Duration>| -> Option<Duration> {
        let found = values::duration(cx, field, value).filter(|value| !value.is_zero());
        if found.is_none() {
            cx.error(field, "it must be above 0");
        }
        found
    };
    let (timeout, interval) = (positive("timeout", timeout)?, positive("interval", interval)?);
    let or =
        |cx: &mut Cx<'_>, field: &str, value, default| values::duration(cx, field, value).unwrap_or(default);
    let unhealthy_interval = or(cx, "unhealthy_interval", unhealthy_interval, interval);
    let no_traffic_interval = or(cx, "no_traffic_interval", no_traffic_interval, Duration::from_secs(60));
    Some(HealthCheck {
        timeout,
        interval,
        initial_jitter: or(cx, "initial_jitter", initial_jitter, Duration::ZERO),
        interval_jitter: or(cx, "interval_jitter", interval_jitter, Duration::ZERO),
        interval_jitter_percent,
        unhealthy_threshold: values::u32_or(unhealthy_threshold, 1).max(1),
        healthy_threshold: values::u32_or(healthy_threshold, 1).max(1),
        unhealthy_interval,
        unhealthy_edge_interval: or(
            cx,
            "unhealthy_edge_interval",
            unhealthy_edge_interval,
            unhealthy_interval,
        ),
        healthy_edge_interval: or(cx, "healthy_edge_interval", healthy_edge_interval, interval),
        no_traffic_interval,
        no_traffic_healthy_interval: or(
            cx,
            "no_traffic_healthy_interval",
            no_traffic_healthy_interval,
            no_traffic_interval,
        ),
        alt_port: match alt_port {
            Some(value) => Some(values::port(cx, "alt_port", value.value)?),
            None => None,
        },
        reuse_connection: values::bool_or(reuse_connection, true),
        alpn_protocols: tls_options.unwrap_or_default().alpn_protocols.into_iter().map(Box::from).collect(),
        checker: checker(cx, health_checker)?,
        event_log: sinks.into_iter().next().or((!event_log_path.is_empty()).then(|| arc(event_log_path))),
        always_log_failures: always_log_health_check_failures,
        always_log_successes: always_log_health_check_success,
        socket_criteria: transport_socket_match_criteria.map(values::object),
    })
}

fn event_sink(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<Arc<str>> {
    use xds_api::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
    let any = value.typed_config.unwrap_or_default();
    if type_name(&any) != "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink" {
        cx.error("typed_config", format_args!("there is no event sink {:?}", type_name(&any)));
        return None;
    }
    let sink = cx.within("typed_config", |cx| cx.unpack::<HealthCheckEventFileSink>(&any))?;
    Some(arc(sink.event_log_path))
}

fn checker(cx: &mut Cx<'_>, value: Option<hc::HealthChecker>) -> Option<HealthChecker> {
    match value {
        Some(hc::HealthChecker::HttpHealthCheck(value)) => {
            cx.within("http_health_check", |cx| http(cx, value))
        }
        Some(hc::HealthChecker::TcpHealthCheck(value)) => cx.within("tcp_health_check", |cx| {
            let hc::TcpHealthCheck { send, receive, proxy_protocol_config } = value;
            cx.refuse("proxy_protocol_config", &proxy_protocol_config);
            Some(HealthChecker::Tcp {
                send: cx.option("send", send, payload),
                receive: cx.each("receive", receive, payload).into(),
            })
        }),
        Some(hc::HealthChecker::GrpcHealthCheck(value)) => cx.within("grpc_health_check", |cx| {
            let hc::GrpcHealthCheck { service_name, authority, initial_metadata } = value;
            let headers = headers::ops(cx, &headers::REQUEST, initial_metadata, Vec::new());
            Some(HealthChecker::Grpc { service: arc(service_name), authority: arc(authority), headers })
        }),
        Some(hc::HealthChecker::CustomHealthCheck(value)) => {
            cx.error("custom_health_check", format_args!("there is no health check {:?}", value.name));
            None
        }
        None => {
            cx.error("health_checker", "it must be set");
            None
        }
    }
}

fn payload(cx: &mut Cx<'_>, value: hc::Payload) -> Option<Bytes> {
    match value.payload {
        Some(hc::payload::Payload::Text(text)) => cx.ok("text", hex::decode(text)).map(Bytes::from),
        Some(hc::payload::Payload::Binary(bytes)) => Some(bytes.into()),
        None => {
            cx.error("payload", "it must be set");
            None
        }
    }
}

fn http(cx: &mut Cx<'_>, value: hc::HttpHealthCheck) -> Option<HealthChecker> {
    let hc::HttpHealthCheck {
        host,
        path,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = value;
    let send = cx.option("send", send, payload);
    if !path.starts_with('/') {
        cx.error("path", "it must begin with a /");
    }
    let range = |cx: &mut Cx<'_>, range: pb::ty::Int64Range| -> Option<Range<u16>> {
        let bound = |value: i64| u16::try_from(value).ok().filter(|value| (100..=600).contains(value));
        let range = bound(range.start).zip(bound(range.end)).filter(|(start, end)| start < end);
        cx.ok("", range.ok_or("it is not a range of statuses")).map(|(start, end)| start..end)
    };
    let mut expected = cx.each("expected_statuses", expected_statuses, range);
    if expected.is_empty() {
        expected.push(200..201);
    }
    let method = match pb::core::RequestMethod::try_from(method) {
        Ok(pb::core::RequestMethod::MethodUnspecified) => Method::GET,
        Ok(method) => cx.ok("method", Method::from_bytes(method.as_str_name().as_bytes()))?,
        Err(_) => {
            cx.error("method", "it is not known");
            return None;
        }
    };
    let takes_body = matches!(method, Method::POST | Method::PUT | Method::PATCH | Method::OPTIONS);
    if send.is_some() && !takes_body {
        cx.error("send", format_args!("a request by {method} has no body"));
    }
    Some(HealthChecker::Http {
        send,
        host: arc(host),
        path: arc(path),
        method,
        expected_statuses: expected.into(),
        retriable_statuses: cx.each("retriable_statuses", retriable_statuses, range).into(),
        http2: codec_client_type == pb::ty::CodecClientType::Http2 as i32,
        headers: headers::ops(cx, &headers::REQUEST, request_headers_to_add, request_headers_to_remove),
        receive: cx.each("receive", receive, payload).into(),
        response_buffer_size: response_buffer_size.map_or(1024, |value| value.value),
        service_name: cx.option("service_name_matcher", service_name_matcher, matchers::string),
    })
}

/// `OutlierDetection`
pub(super) fn outlier(cx: &mut Cx<'_>, value: pb::cluster::OutlierDetection) -> Option<OutlierDetection> {
    let pb::cluster::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = value;
    cx.refuse("monitors", &monitors);
    cx.refuse("detect_degraded_hosts", &detect_degraded_hosts);
    let base =
        values::duration(cx, "base_ejection_time", base_ejection_time).unwrap_or(Duration::from_secs(30));
    let max = values::duration(cx, "max_ejection_time", max_ejection_time)
        .unwrap_or(Duration::from_secs(300).max(base));
    let interval = values::duration(cx, "interval", interval).unwrap_or(Duration::from_secs(10));
    if interval.is_zero() {
        cx.error("interval", "it must be above 0");
    }
    Some(OutlierDetection {
        consecutive_5xx: values::u32_or(consecutive_5xx, 5),
        consecutive_gateway_failure: values::u32_or(consecutive_gateway_failure, 5),
        consecutive_local_origin_failure: values::u32_or(consecutive_local_origin_failure, 5),
        interval,
        base_ejection_time: base,
        max_ejection_time: max,
        max_ejection_time_jitter: values::duration(cx, "max_ejection_time_jitter", max_ejection_time_jitter)
            .unwrap_or_default(),
        max_ejection_percent: values::u32_or(max_ejection_percent, 10).min(100),
        always_eject_one_host: values::bool_or(always_eject_one_host, false),
        split_external_local_origin_errors,
        enforcing: Enforcing {
            consecutive_5xx: values::u32_or(enforcing_consecutive_5xx, 100),
            consecutive_gateway_failure: values::u32_or(enforcing_consecutive_gateway_failure, 0),
            consecutive_local_origin_failure: values::u32_or(enforcing_consecutive_local_origin_failure, 100),
            success_rate: values::u32_or(enforcing_success_rate, 100),
            local_origin_success_rate: values::u32_or(enforcing_local_origin_success_rate, 100),
            failure_percentage: values::u32_or(enforcing_failure_percentage, 0),
            failure_percentage_local_origin: values::u32_or(enforcing_failure_percentage_local_origin, 0),
        },
        success_rate: SuccessRate {
            minimum_hosts: values::u32_or(success_rate_minimum_hosts, 5),
            request_volume: values::u32_or(success_rate_request_volume, 100),
            stdev_factor: values::u32_or(success_rate_stdev_factor, 1900),
        },
        failure_percentage: FailurePercentage {
            threshold: values::u32_or(failure_percentage_threshold, 85),
            minimum_hosts: values::u32_or(failure_percentage_minimum_hosts, 5),
            request_volume: values::u32_or(failure_percentage_request_volume, 50),
        },
        successful_active_health_check_uneject_host: values::bool_or(
            successful_active_health_check_uneject_host,
            true,
        ),
    })
}
