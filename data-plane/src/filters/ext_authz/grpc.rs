//! Asks an `envoy.service.auth.v3.Authorization` service.

use std::net::SocketAddr;

use ::http::StatusCode;
use sail_proxy_config::callout::GrpcTarget;
use sail_proxy_decide::headers::AppendAction;
use serde_json::{Map, Value};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use xds_api::envoy::service::auth::v3::check_response::HttpResponse;
use xds_api::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use xds_api::google::protobuf::Timestamp;

use super::{Check, Consent, Excerpt, PARTIAL_BODY, Refusal, ResponseHeader, Verdict};
use crate::callout::{grpc, json};
use crate::filters::edit;
use crate::http::head::Head;
use crate::stream_info::{StreamInfo, TlsInfo};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

pub(super) async fn ask(
    check: &Check<'_>,
    target: &GrpcTarget,
    head: &Head,
    body: Option<&Excerpt>,
) -> Verdict {
    let request = CheckRequest { attributes: Some(attributes(check, head, body)) };
    let worker = &check.exchange.connection.worker;
    match grpc::unary::<_, CheckResponse>(worker, target, PATH, &request).await {
        Ok(response) => verdict(response),
        Err(status) => {
            tracing::debug!(cluster = %target.cluster, %status, "ext_authz service failed");
            Verdict::Error { status: None, timeout: status.is_timeout() }
        }
    }
}

fn attributes(check: &Check<'_>, head: &Head, body: Option<&Excerpt>) -> AttributeContext {
    let info = check.exchange.info.borrow();
    let tls = info.downstream.tls.as_deref();
    let source = source(check, head);
    let destination = Peer {
        address: Some(address(info.downstream.local_address)),
        principal: tls.and_then(TlsInfo::local_principal).unwrap_or_default().to_owned(),
        labels: check.config.labels_key.as_deref().map(|key| labels(check, key)).unwrap_or_default(),
        ..Default::default()
    };
    let since = info.start_time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or_default(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    };
    let http = http_request(check, head, &info, body);
    let route = check.exchange.routed.get().clone();
    let route = route.as_ref().and_then(|found| found.route.as_ref()?.metadata.clone());
    let config = check.config;
    AttributeContext {
        source: Some(source),
        destination: Some(destination),
        request: Some(Request { time: Some(time), http: Some(http) }),
        context_extensions: check.context_extensions().collect(),
        metadata_context: Some(core::Metadata {
            typed_filter_metadata: config
                .typed_metadata_namespaces
                .iter()
                .filter_map(|name| Some((name.to_string(), info.dynamic_metadata.typed(name)?.clone())))
                .collect(),
            ..metadata(&config.metadata_namespaces, |namespace| {
                info.dynamic_metadata.get(namespace).map(json::to_struct)
            })
        }),
        route_metadata_context: (!config.route_metadata_namespaces.is_empty()).then(|| {
            metadata(&config.route_metadata_namespaces, |namespace| {
                route.as_ref()?.get(namespace).map(json::to_struct)
            })
        }),
        tls_session: (config.include_tls_session && tls.is_some()).then(|| TlsSession {
            sni: info.downstream.server_name.as_deref().unwrap_or_default().to_owned(),
        }),
    }
}

/// What the node's metadata say of this workload.
fn labels(check: &Check<'_>, key: &str) -> std::collections::HashMap<String, String> {
    use xds_api::google::protobuf::value::Kind;
    let node = &check.exchange.connection.worker.shared.options.node_metadata;
    let Some(Kind::StructValue(labels)) = node.fields.get(key).and_then(|value| value.kind.as_ref()) else {
        return std::collections::HashMap::new();
    };
    let texts = labels.fields.iter().filter_map(|(name, value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((name.clone(), text.clone())),
        _ => None,
    });
    texts.collect()
}

fn metadata(
    namespaces: &[std::sync::Arc<str>],
    get: impl Fn(&str) -> Option<xds_api::google::protobuf::Struct>,
) -> core::Metadata {
    let found = namespaces.iter().filter_map(|namespace| Some((namespace.to_string(), get(namespace)?)));
    core::Metadata { filter_metadata: found.collect(), ..Default::default() }
}

fn source(check: &Check<'_>, head: &Head) -> Peer {
    let tls = check.exchange.connection.accepted.tls.as_deref();
    let principal = tls.and_then(|peer| {
        let names = peer.uri_sans.first().or(peer.dns_sans.first()).map(String::as_str);
        names.or(peer.info.peer_subject.as_deref())
    });
    let certificate = tls
        .filter(|_| check.config.include_peer_certificate)
        .and_then(|peer| peer.chain.first())
        .map(|leaf| crate::http::xfcc::pem(std::slice::from_ref(leaf)));
    let service = head.headers.get("x-envoy-downstream-service-cluster");
    Peer {
        address: Some(address(check.exchange.connection.downstream.remote_address)),
        service: service.map(text).unwrap_or_default(),
        principal: principal.unwrap_or_default().to_owned(),
        certificate: certificate.unwrap_or_default(),
        ..Default::default()
    }
}

fn text(value: &::http::HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn address(address: SocketAddr) -> core::Address {
    use core::socket_address::PortSpecifier;
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(address.port()))),
        ..Default::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn http_request(check: &Check<'_>, head: &Head, info: &StreamInfo, body: Option<&Excerpt>) -> HttpRequest {
    let config = check.config;
    let goes = |name: &str| {
        let named = |list: &[sail_proxy_decide::matcher::StringMatcher]| {
            list.iter().any(|matcher| matcher.is_match(name.as_bytes()))
        };
        name != PARTIAL_BODY
            && config.allowed_headers.as_deref().is_none_or(named)
            && !named(&config.disallowed_headers)
    };
    let mut request = HttpRequest {
        id: check.exchange.random().to_string(),
        method: head.method.to_string(),
        path: head.path.to_string(),
        host: head.authority().to_owned(),
        scheme: head.scheme.to_owned(),
        size: -1,
        protocol: info.protocol.map(|protocol| protocol.as_str().to_owned()).unwrap_or_default(),
        ..Default::default()
    };
    let partial = body.map(|body| if body.partial { "true" } else { "false" });
    if config.encode_raw_headers {
        let mut headers: Vec<_> = edit::request_headers(head)
            .filter(|(name, _)| goes(name))
            .map(|(name, value)| raw(name, value))
            .collect();
        headers.extend(partial.map(|partial| raw(PARTIAL_BODY, partial.as_bytes())));
        request.header_map = Some(core::HeaderMap { headers });
    } else {
        for (name, value) in edit::request_headers(head).filter(|(name, _)| goes(name)) {
            let value = String::from_utf8_lossy(value).replace(char::REPLACEMENT_CHARACTER, "!");
            let entry: &mut String = request.headers.entry(name.to_owned()).or_default();
            if !entry.is_empty() {
                entry.push(',');
            }
            entry.push_str(&value);
        }
        request.headers.extend(partial.map(|partial| (PARTIAL_BODY.to_owned(), partial.to_owned())));
    }
    if let Some(body) = body {
        request.size = i64::try_from(body.bytes.len()).unwrap_or(i64::MAX);
        if body.settings.pack_as_bytes {
            request.raw_body = body.bytes.to_vec();
        } else {
            request.body = String::from_utf8_lossy(&body.bytes).replace(char::REPLACEMENT_CHARACTER, "!");
        }
    } else if let Some(size) = head.headers.get(::http::header::CONTENT_LENGTH) {
        request.size = text(size).parse().unwrap_or(-1);
    }
    request
}

fn raw(name: &str, value: &[u8]) -> core::HeaderValue {
    core::HeaderValue { key: name.to_owned(), raw_value: value.to_vec(), ..Default::default() }
}

fn verdict(response: CheckResponse) -> Verdict {
    let CheckResponse { status, http_response, dynamic_metadata } = response;
    let metadata = dynamic_metadata.map(json::object);
    let ok = status.is_none_or(|status| status.code == 0);
    match (ok, http_response) {
        (true, Some(HttpResponse::OkResponse(response))) => {
            Verdict::Ok(Box::new(consent(response, metadata)))
        }
        (true, _) => Verdict::Ok(Box::new(Consent { metadata, ..Consent::default() })),
        (false, Some(HttpResponse::DeniedResponse(response))) => {
            Verdict::Denied(Box::new(refusal(response, metadata)))
        }
        (false, Some(HttpResponse::ErrorResponse(response))) => {
            let status = response.status.map(|status| status.code).filter(|code| *code > 0);
            Verdict::Error { status: status.and_then(self::status), timeout: false }
        }
        (false, _) => Verdict::Denied(Box::new(refusal(DeniedHttpResponse::default(), metadata))),
    }
}

fn status(code: i32) -> Option<StatusCode> {
    u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok())
}

#[expect(deprecated, reason = "services of old send them")]
fn consent(response: OkHttpResponse, metadata: Option<Map<String, Value>>) -> Consent {
    let OkHttpResponse {
        headers,
        headers_to_remove,
        dynamic_metadata,
        response_headers_to_add,
        query_parameters_to_set,
        query_parameters_to_remove,
    } = response;
    let mut consent = Consent {
        remove: headers_to_remove,
        response: response_headers_to_add.into_iter().filter_map(option).collect(),
        set_query: query_parameters_to_set.into_iter().map(|query| (query.key, query.value)).collect(),
        remove_query: query_parameters_to_remove,
        metadata: dynamic_metadata.map(json::object).or(metadata),
        ..Consent::default()
    };
    for header in headers {
        let append = header.append.is_some_and(|append| append.value);
        let Some((name, value, _)) = option(header) else { continue };
        if append { consent.append.push((name, value)) } else { consent.set.push((name, value)) }
    }
    consent
}

fn refusal(response: DeniedHttpResponse, metadata: Option<Map<String, Value>>) -> Refusal {
    let DeniedHttpResponse { status, headers, body } = response;
    Refusal {
        status: status.and_then(|status| self::status(status.code)).unwrap_or(StatusCode::FORBIDDEN),
        headers: headers.into_iter().filter_map(option).collect(),
        body,
        metadata,
    }
}

/// A header that a service sends; by default it takes the place of others of its name.
#[expect(deprecated, reason = "services of old send them")]
pub(crate) fn option(option: core::HeaderValueOption) -> Option<ResponseHeader> {
    use core::header_value_option::HeaderAppendAction as Action;
    let core::HeaderValue { key, value, raw_value } = option.header?;
    let value = if raw_value.is_empty() { value.into_bytes() } else { raw_value };
    let action = match (option.append, Action::try_from(option.append_action)) {
        (Some(append), _) if append.value => AppendAction::AppendIfExistsOrAdd,
        (None, Ok(Action::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (None, Ok(Action::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        _ => AppendAction::OverwriteIfExistsOrAdd,
    };
    Some((key, value, action))
}
