//! What routes, metadata and services over HTTP change of a processor.

use std::net::SocketAddr;

use serde_json::json;
use xds_api::envoy::service::ext_proc::v3 as proc;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response;

use super::grpc::{self, Say};
use super::h2::{self, Message, call};
use super::setup::{
    APP, FILTERS, HTTP2, agrees, cluster, counted, filter, http1, line, logged, mirror, proxy,
};

/// A processor that tells the upstream of its stream's head, of metadata, and of the protocol.
fn telling() -> SocketAddr {
    grpc::play(|head| {
        let token = head.get("x-token").map_or(String::new(), |value| value.to_str().unwrap().to_owned());
        move |message: Option<proc::ProcessingRequest>| {
            let Some(message) = message else { return vec![Say::End(0, "")] };
            let mut names: Vec<_> =
                message.metadata_context.iter().flat_map(|all| all.filter_metadata.keys()).collect();
            names.sort();
            let told = format!(
                "token {token:?} metadata {names:?} config {:?}",
                message.protocol_config.map(|config| config.request_body_mode)
            );
            let set = |key: &str, value: &str| xds_api::envoy::config::core::v3::HeaderValueOption {
                header: Some(xds_api::envoy::config::core::v3::HeaderValue {
                    key: key.into(),
                    raw_value: value.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let mutation = proc::HeaderMutation {
                set_headers: vec![set("x-told", &told), set("x-envoy-no", "1"), set("host", "other")],
                remove_headers: vec!["x-gone".into(), ":path".into()],
            };
            let common = proc::CommonResponse { header_mutation: Some(mutation), ..Default::default() };
            let response = match message.request.unwrap() {
                Request::RequestHeaders(_) => {
                    Response::RequestHeaders(proc::HeadersResponse { response: Some(common) })
                }
                Request::ResponseHeaders(_) => {
                    Response::ResponseHeaders(proc::HeadersResponse { response: Some(common) })
                }
                other => panic!("{other:?}"),
            };
            let value = |text: &str| xds_api::google::protobuf::Value {
                kind: Some(xds_api::google::protobuf::value::Kind::StringValue(text.into())),
            };
            let object = |key: &str, text: &str| xds_api::google::protobuf::Value {
                kind: Some(xds_api::google::protobuf::value::Kind::StructValue(
                    xds_api::google::protobuf::Struct { fields: [(key.to_owned(), value(text))].into() },
                )),
            };
            let written = xds_api::google::protobuf::Struct {
                fields: [("mine".to_owned(), object("k", "v")), ("other".to_owned(), object("k", "w"))]
                    .into(),
            };
            vec![Say::Message(proc::ProcessingResponse {
                response: Some(response),
                dynamic_metadata: Some(written),
                ..Default::default()
            })]
        }
    })
}

#[test]
fn routes_override_and_metadata_pass() {
    let app = mirror(&["x-told", "x-envoy-no", "x-gone", "host"], |_| Message::default());
    let per_route = |path: &str, text: &str| {
        format!(
            "{{match: {{prefix: /{path}}}, route: {{cluster: app}}, typed_per_filter_config: {{proc: {{\"@type\": \
             {FILTERS}.ext_proc.v3.ExtProcPerRoute, {text}}}}}}}, "
        )
    };
    let routes = per_route("off", "disabled: true")
        + &per_route("token", "overrides: {grpc_initial_metadata: [{key: x-token, value: t}]}")
        + &per_route(
            "meta",
            "overrides: {metadata_options: {forwarding_namespaces: {untyped: [seen, nothing]}, receiving_namespaces: {untyped: [other]}}}",
        )
        + &per_route("mode", "overrides: {processing_mode: {request_header_mode: SKIP}}")
        + &per_route(
            "none",
            "overrides: {processing_mode: {request_header_mode: SKIP, response_header_mode: SKIP}}",
        )
        + &per_route("gone", "overrides: {grpc_service: {envoy_grpc: {cluster_name: nobody}}}")
        + &per_route(
            "open",
            "overrides: {grpc_service: {envoy_grpc: {cluster_name: nobody}}, failure_mode_allow: true}",
        )
        + APP;
    let metadata = "set_metadata.v3.Config, metadata: [{metadata_namespace: seen, value: {a: b}}]";
    let config = "ext_proc.v3.ExternalProcessor, message_timeout: 10s, grpc_service: {envoy_grpc: {cluster_name: service}}, \
                  metadata_options: {receiving_namespaces: {untyped: [mine]}}";
    let show = "header_mutation.v3.HeaderMutation, mutations: {response_mutations: [{append: {header: {key: x-mine, value: \
                \"%DYNAMIC_METADATA(mine:k)% %DYNAMIC_METADATA(other:k)%\"}}}]}";
    let filters = filter("meta", metadata) + &filter("show", show) + &filter("proc", config);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clusters = cluster("app", &[app], HTTP2)
        + &cluster("service", &[telling()], HTTP2)
        + &cluster("nobody", &[closed], HTTP2);
    let proxy = proxy(&filters, &routes, &clusters);
    let to = proxy.listener("l");
    let mut seen = Vec::new();
    for path in ["/", "/off", "/token", "/meta", "/mode", "/none", "/gone", "/open"] {
        let answer = call(to, "GET", path, &[("x-gone", "1")], &[], &[]);
        seen.push(line(path, &answer, &["x-told", "x-mine", "x-envoy-no"]));
        seen.push(format!("  {}", logged(&proxy, seen.len() / 2 + 1)));
    }
    let counted = counted(&proxy, "http.in.ext_proc");
    // When a stream is closed by both is a matter of time.
    let steady = counted
        .split(' ')
        .filter(|part| !part.starts_with("server_half") && !part.starts_with("streams_closed"));
    seen.push(steady.collect::<Vec<_>>().join(" "));
    agrees("ext_proc_routes", &seen);
}

#[test]
fn services_may_speak_http() {
    let app = mirror(&["x-told"], |_| Message::default());
    let service = h2::serve(|asked| {
        let question: serde_json::Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        let sides = ["request_headers", "response_headers", "requestHeaders", "responseHeaders"];
        let side = sides.into_iter().find(|side| question.get(side).is_some()).unwrap_or("nothing");
        let shown = &question[side]["headers"]["headers"];
        let path = shown.as_array().into_iter().flatten().find(|header| header["key"] == ":path");
        let path =
            path.map_or(String::new(), |header| header["raw_value"].as_str().unwrap_or("none").to_owned());
        let keys: Vec<_> = question.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let told = format!("{} {} {path} {keys:?}", asked.path, asked.header("content-type"));
        use base64::Engine as _;
        let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let (mut status, mut answer) = (
            200,
            json!({side: {"response": {"headerMutation": {"setHeaders": [
            {"header": {"key": "x-told", "rawValue": encoded(&told)}}]}}}}),
        );
        if path == encoded("/refuse") {
            answer = json!({"immediateResponse": {"status": {"code": 403}, "body": encoded("no"), "details": "so be it"}});
        }
        if path == encoded("/fail") {
            status = 503;
        }
        if path == encoded("/nonsense") {
            answer = json!([1]);
        }
        Message {
            status,
            head: h2::map(&[("content-type", "application/json")]),
            body: answer.to_string().into(),
            ..Default::default()
        }
    });
    let config = "ext_proc.v3.ExternalProcessor, http_service: {http_service: {http_uri: {uri: \"http://service/check\", \
                  cluster: service, timeout: 10s}}}, message_timeout: 10s, processing_mode: {response_header_mode: SKIP}";
    let clusters = cluster("app", &[app], HTTP2) + &cluster("service", &[service], HTTP2);
    let proxy = proxy(&filter("proc", config), APP, &clusters);
    let to = proxy.listener("l");
    let mut seen = Vec::new();
    for path in ["/ok", "/refuse", "/fail", "/nonsense"] {
        seen.push(line(path, &http1(to, "GET", path, &[], b""), &["x-told"]));
        seen.push(format!("  {}", logged(&proxy, seen.len() / 2 + 1)));
    }
    agrees("ext_proc_http", &seen);
}
