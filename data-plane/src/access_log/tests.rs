//! Lines as Envoy and Istio write them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sail_proxy_config::access_log::DEFAULT_FORMAT;
use sail_proxy_decide::format::{Format, Missing};

use super::attributes::View;
use super::{LogType, plan_format};
use crate::stream_info::{
    Capture, ClusterInfo, Direction, DownstreamInfo, Protocol, ResponseFlag, StreamInfo, UpstreamAddress,
    details,
};

/// Istio's text format (`EnvoyTextLogFormat`).
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% \
    %ROUTE_NAME%\n";

pub(crate) fn downstream() -> Rc<DownstreamInfo> {
    Rc::new(DownstreamInfo {
        connection_id: 7,
        remote_address: "10.0.0.1:40000".parse().unwrap(),
        direct_remote_address: "10.0.0.1:40000".parse().unwrap(),
        local_address: "10.0.0.2:9080".parse().unwrap(),
        direct_local_address: "10.0.0.2:9080".parse().unwrap(),
        server_name: Some("outbound_.9080_._.reviews.default.svc.cluster.local".into()),
        tls: None,
        direction: Direction::Inbound,
        state: Rc::default(),
    })
}

fn request(format: &str) -> StreamInfo {
    let mut info = StreamInfo::new(downstream());
    info.start_time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_522_796_769_123);
    info.timing.end = Some(info.start + Duration::from_millis(12));
    info.protocol = Some(Protocol::Http11);
    info.request.method = Some(http::Method::GET);
    info.request.path = Some("/reviews/0?x=1".into());
    info.request.authority = Some("reviews:9080".into());
    info.response_code = Some(200);
    info.code_details = Some(details::VIA_UPSTREAM.into());
    info.bytes.sent = 375;
    info.cluster = Some(Arc::new(ClusterInfo { name: "inbound|9080||".into(), ..ClusterInfo::default() }));
    info.upstream_mut().host = Some(UpstreamAddress::Socket("127.0.0.1:9080".parse().unwrap()));
    info.route_name = Some("default".into());
    let mut plan = Capture::default();
    plan_format(&Format::parse(format).unwrap(), &mut plan);
    info.captured.plan(&Arc::new(plan));
    let headers = [("user-agent", "curl/8"), ("x-request-id", "id"), ("cookie", "no")];
    let parse = |(name, value): (&str, &str)| (name.parse().unwrap(), value.parse().unwrap());
    info.captured.take_request(&headers.map(parse).into_iter().collect());
    info.captured.take_response(&[("x-envoy-upstream-service-time", "11")].map(parse).into_iter().collect());
    info
}

fn line(format: &str, change: impl FnOnce(&mut StreamInfo)) -> String {
    let mut info = request(format);
    change(&mut info);
    let mut out = String::new();
    let view = View::new(&info, LogType::DownstreamEnd);
    Format::parse(format).unwrap().write(&view, Missing::Dash, &mut out);
    out
}

#[test]
fn envoys_default_line() {
    assert_eq!(
        line(DEFAULT_FORMAT, |_| {}),
        "[2018-04-03T23:06:09.123Z] \"GET /reviews/0?x=1 HTTP/1.1\" 200 - 0 375 12 11 \"-\" \"curl/8\" \"id\" \
         \"reviews:9080\" \"127.0.0.1:9080\"\n"
    );
}

#[test]
fn istios_line() {
    assert_eq!(
        line(ISTIO, |info| {
            info.flag(ResponseFlag::UpstreamConnectionFailure);
            info.response_code = Some(503);
        }),
        "[2018-04-03T23:06:09.123Z] \"GET /reviews/0?x=1 HTTP/1.1\" 503 UF via_upstream - \"-\" 0 375 12 11 \"-\" \
         \"curl/8\" \"id\" \"reviews:9080\" \"127.0.0.1:9080\" inbound|9080|| - 10.0.0.2:9080 10.0.0.1:40000 \
         outbound_.9080_._.reviews.default.svc.cluster.local default\n"
    );
}

#[test]
fn a_tcp_connections_line() {
    let text = line("%RESPONSE_CODE% %PROTOCOL% %REQ(:METHOD)% %BYTES_SENT%", |info| {
        info.protocol = None;
        info.response_code = None;
        info.request = Default::default();
    });
    assert_eq!(text, "0 - - 375");
}
