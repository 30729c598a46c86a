//! A service that is asked whether requests may pass: what it is told, and what it may say.

use xds_api::envoy::service::auth::v3 as auth;
use xds_api::google::protobuf as pb;

use super::grpc;
use super::h2::{Message, call};
use super::setup::{APP, FILTERS, HTTP2, agrees, cluster, counted, filter, line, logged, mirror, proxy};

/// Tells the upstream what it was told; refuses what begins with `/no`.
fn service() -> std::net::SocketAddr {
    grpc::serve(|| {
        |message: auth::CheckRequest| {
            let attributes = message.attributes.unwrap();
            let http = attributes.request.unwrap().http.unwrap();
            let mut extensions: Vec<_> = attributes.context_extensions.iter().collect();
            extensions.sort();
            let metadata = attributes.metadata_context.unwrap_or_default();
            let mut seen: Vec<_> = metadata.filter_metadata.keys().collect();
            seen.sort();
            let told = format!(
                "body {:?} raw {:?} partial {:?} extensions {extensions:?} metadata {seen:?} labels {:?}",
                http.body,
                String::from_utf8_lossy(&http.raw_body),
                http.headers.get("x-envoy-auth-partial-body"),
                attributes.destination.unwrap().labels,
            );
            let header = |key: &str, value: &str| xds_api::envoy::config::core::v3::HeaderValueOption {
                header: Some(xds_api::envoy::config::core::v3::HeaderValue {
                    key: key.into(),
                    value: value.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let text = |text: &str| pb::Value { kind: Some(pb::value::Kind::StringValue(text.into())) };
            let metadata = pb::Struct { fields: [("who".to_owned(), text("you"))].into() };
            let refused = http.path.starts_with("/no");
            let response = if refused {
                auth::check_response::HttpResponse::DeniedResponse(auth::DeniedHttpResponse {
                    status: Some(xds_api::envoy::r#type::v3::HttpStatus { code: 401 }),
                    headers: vec![header("x-why", "because")],
                    body: "go away".to_owned(),
                })
            } else {
                auth::check_response::HttpResponse::OkResponse(auth::OkHttpResponse {
                    headers: vec![header("x-told", &told)],
                    headers_to_remove: vec!["x-gone".to_owned()],
                    ..Default::default()
                })
            };
            vec![auth::CheckResponse {
                status: Some(xds_api::google::rpc::Status {
                    code: if refused { 7 } else { 0 },
                    ..Default::default()
                }),
                http_response: Some(response),
                dynamic_metadata: Some(metadata),
            }]
        }
    })
}

#[test]
fn bodies_metadata_and_routes_are_told() {
    let app = mirror(&["x-told", "x-gone"], |_| Message::default());
    let per_route = |path: &str, text: &str| {
        format!(
            "{{match: {{prefix: /{path}}}, route: {{cluster: app}}, typed_per_filter_config: {{authz: {{\"@type\": \
             {FILTERS}.ext_authz.v3.ExtAuthzPerRoute, {text}}}}}}}, "
        )
    };
    let routes = per_route("off", "disabled: true")
        + &per_route("more", "check_settings: {context_extensions: {a: b}}")
        + &per_route("bare", "check_settings: {disable_request_body_buffering: true}")
        + &per_route(
            "raw",
            "check_settings: {with_request_body: {max_request_bytes: 8, allow_partial_message: true, pack_as_bytes: true}}",
        )
        + &per_route("whole", "check_settings: {with_request_body: {max_request_bytes: 4}}")
        + APP;
    let filters = filter(
        "meta",
        "set_metadata.v3.Config, metadata: [{metadata_namespace: seen, value: {a: b}}]",
    ) + &filter(
        "show",
        "header_mutation.v3.HeaderMutation, mutations: {response_mutations: [{append: {header: {key: x-meta, value: \
             \"%DYNAMIC_METADATA(envoy.filters.http.ext_authz:who)%\"}}}]}",
    );
    let clusters = cluster("app", &[app], HTTP2) + &cluster("service", &[service()], HTTP2);
    let config = |more: &str| {
        format!(
            "ext_authz.v3.ExtAuthz, grpc_service: {{envoy_grpc: {{cluster_name: service}}, timeout: 10s}}, \
             transport_api_version: V3, metadata_context_namespaces: [seen, none], with_request_body: \
             {{max_request_bytes: 5, allow_partial_message: true}}, {more}"
        )
    };
    let mut seen = Vec::new();
    let shown = &["x-told", "x-meta", "x-why"];
    let asking = proxy(&(filters.clone() + &filter("authz", &config(""))), &routes, &clusters);
    for (path, body) in [
        ("/short", "abc"),
        ("/long", "abcdefgh"),
        ("/exact", "abcde"),
        ("/off", "abc"),
        ("/more", "abc"),
        ("/bare", "abc"),
        ("/raw", "abcdefghijk"),
        ("/whole", "abc"),
        ("/whole", "abcdef"),
        ("/no", "abc"),
    ] {
        let answer = call(asking.listener("l"), "POST", path, &[("x-gone", "1")], &[body.as_bytes()], &[]);
        seen.push(line(&format!("{path} {body}"), &answer, shown));
        seen.push(format!("  {}", logged(&asking, seen.len() / 2 + 1)));
    }
    seen.push(counted(&asking, "http.in.ext_authz"));
    let shadow = proxy(&(filters + &filter("authz", &config("shadow_mode: true"))), &routes, &clusters);
    for path in ["/yes", "/no"] {
        seen.push(line(
            &format!("shadow {path}"),
            &call(shadow.listener("l"), "POST", path, &[], &[b"abc"], &[]),
            &["x-meta", "x-why"],
        ));
    }
    seen.push(counted(&shadow, "http.in.ext_authz"));
    agrees("ext_authz", &seen);
}
