//! A service that is asked by HTTP: the messages are JSON, each a request of its own.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use sail_proxy_config::http_filter::ext_proc::HttpService;
use serde_json::{Map, Value, json};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::ext_proc::v3 as proc;
use xds_api::envoy::service::ext_proc::v3::processing_request::Request as Phase;
use xds_api::envoy::service::ext_proc::v3::processing_response::Response as Answer;
use xds_api::google::protobuf as pb;

use super::session::{Session, Stop};
use crate::access_log::{LogType, View};
use crate::callout::{self, json};
use crate::http::exchange::Exchange;
use crate::stats::sets::http_ext_proc as stats;

/// What is said of a service that fails.
const FAILED: &str = "ext_proc_error_HTTP_ERROR";

/// Asks the service.
pub(super) async fn ask(
    exchange: &Rc<Exchange>,
    service: &HttpService,
    message: &proc::ProcessingRequest,
    session: &Session,
) -> Result<proc::ProcessingResponse, Stop> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    {
        let info = exchange.info.borrow();
        let view = View::new(&info, LogType::NotAccepted);
        for add in &service.headers {
            if let Some(value) = add.value(&view) {
                sail_proxy_decide::headers::put(&mut headers, &add.name, value, add.action);
            }
        }
    }
    let head = callout::head(&service.target, Method::POST, headers);
    let body = Bytes::from(written(message).to_string());
    let worker = &exchange.connection.worker;
    let answer = match callout::http(worker, &service.target, head, body).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(%error, "ext_proc service failed");
            session.stats.inc(stats::streams_failed);
            return Err(session.fail(FAILED));
        }
    };
    if answer.status() != StatusCode::OK {
        session.stats.inc(stats::http_not_ok_resp_received);
        return Err(session.fail(FAILED));
    }
    session.stats.inc(stats::stream_msgs_received);
    let read = serde_json::from_slice::<Value>(answer.body()).ok().and_then(|value| read(&value));
    read.ok_or_else(|| session.fail(FAILED))
}

/// A message as protobuf's JSON.
fn written(message: &proc::ProcessingRequest) -> Value {
    let mut all = Map::new();
    let headers = |value: &proc::HttpHeaders| {
        let list = value.headers.iter().flat_map(|map| &map.headers);
        let list: Vec<_> = list
            .map(|header| json!({"key": header.key, "raw_value": STANDARD.encode(&header.raw_value)}))
            .collect();
        let mut shown = json!({ "headers": { "headers": list } });
        if value.end_of_stream {
            shown["end_of_stream"] = true.into();
        }
        shown
    };
    match &message.request {
        Some(Phase::RequestHeaders(value)) => all.insert("request_headers".into(), headers(value)),
        Some(Phase::ResponseHeaders(value)) => all.insert("response_headers".into(), headers(value)),
        // It sees nothing else.
        _ => None,
    };
    let objects = |map: &std::collections::HashMap<String, pb::Struct>| {
        let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
        let objects =
            sorted.into_iter().map(|(key, value)| (key.clone(), json::object(value.clone()).into()));
        Value::Object(objects.collect())
    };
    if !message.attributes.is_empty() {
        all.insert("attributes".into(), objects(&message.attributes));
    }
    if let Some(metadata) = &message.metadata_context {
        all.insert("metadata_context".into(), json!({"filter_metadata": objects(&metadata.filter_metadata)}));
    }
    if message.protocol_config.is_some() {
        all.insert("protocol_config".into(), json!({}));
    }
    if message.observability_mode {
        all.insert("observability_mode".into(), true.into());
    }
    Value::Object(all)
}

/// A field, by its name in the API or in JSON.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).or_else(|| {
        let mut camel = String::with_capacity(name.len());
        let mut upper = false;
        for letter in name.chars() {
            match letter {
                '_' => upper = true,
                letter if std::mem::take(&mut upper) => camel.push(letter.to_ascii_uppercase()),
                letter => camel.push(letter),
            }
        }
        value.get(camel)
    })
}

fn text(value: &Value, name: &str) -> String {
    field(value, name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn bytes(value: &Value, name: &str) -> Option<Vec<u8>> {
    let text = field(value, name)?.as_str()?;
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()
}

fn flag(value: &Value, name: &str) -> bool {
    field(value, name).and_then(Value::as_bool).unwrap_or(false)
}

/// One of an enumeration's values, by name or number.
fn number(value: &Value, name: &str, names: &[&str]) -> i32 {
    match field(value, name) {
        Some(Value::String(text)) => {
            names.iter().position(|name| name == text).and_then(|at| i32::try_from(at).ok()).unwrap_or(0)
        }
        Some(value) => value.as_i64().and_then(|value| i32::try_from(value).ok()).unwrap_or(0),
        None => 0,
    }
}

/// An answer from protobuf's JSON.
fn read(value: &Value) -> Option<proc::ProcessingResponse> {
    let head = |value: &Value| proc::HeadersResponse { response: field(value, "response").map(common) };
    let response = if let Some(value) = field(value, "request_headers") {
        Some(Answer::RequestHeaders(head(value)))
    } else if let Some(value) = field(value, "response_headers") {
        Some(Answer::ResponseHeaders(head(value)))
    } else {
        field(value, "immediate_response").map(|value| Answer::ImmediateResponse(immediate(value)))
    };
    let dynamic_metadata = field(value, "dynamic_metadata").map(json::to_struct);
    value.is_object().then(|| proc::ProcessingResponse { response, dynamic_metadata, ..Default::default() })
}

#[expect(deprecated, reason = "services of old send it")]
fn mutation(value: &Value) -> proc::HeaderMutation {
    let list = |name: &str| field(value, name).and_then(Value::as_array).into_iter().flatten();
    let actions =
        ["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"];
    let set_headers = list("set_headers").map(|option| core::HeaderValueOption {
        header: field(option, "header").map(|header| core::HeaderValue {
            key: text(header, "key"),
            value: text(header, "value"),
            raw_value: bytes(header, "raw_value").unwrap_or_default(),
        }),
        append: field(option, "append").and_then(Value::as_bool).map(|value| pb::BoolValue { value }),
        append_action: number(option, "append_action", &actions),
        ..Default::default()
    });
    proc::HeaderMutation {
        set_headers: set_headers.collect(),
        remove_headers: list("remove_headers").filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
    }
}

fn common(value: &Value) -> proc::CommonResponse {
    use proc::body_mutation::Mutation;
    let body = field(value, "body_mutation").and_then(|value| match bytes(value, "body") {
        Some(body) => Some(Mutation::Body(body)),
        None => flag(value, "clear_body").then_some(Mutation::ClearBody(true)),
    });
    proc::CommonResponse {
        status: number(value, "status", &["CONTINUE", "CONTINUE_AND_REPLACE"]),
        header_mutation: field(value, "header_mutation").map(mutation),
        body_mutation: body.map(|mutation| proc::BodyMutation { mutation: Some(mutation) }),
        clear_route_cache: flag(value, "clear_route_cache"),
        ..Default::default()
    }
}

fn immediate(value: &Value) -> proc::ImmediateResponse {
    let status = field(value, "status").and_then(|status| match field(status, "code")? {
        Value::Number(code) => i32::try_from(code.as_i64()?).ok(),
        Value::String(name) => status_of(name),
        _ => None,
    });
    let grpc = field(value, "grpc_status").map(|status| number(status, "status", &[]));
    proc::ImmediateResponse {
        status: status.map(|code| xds_api::envoy::r#type::v3::HttpStatus { code }),
        headers: field(value, "headers").map(mutation),
        body: bytes(value, "body").unwrap_or_default(),
        grpc_status: grpc.map(|status| proc::GrpcStatus { status: status.unsigned_abs() }),
        details: text(value, "details"),
    }
}

/// `StatusCode`'s names are the usual phrases.
fn status_of(name: &str) -> Option<i32> {
    let plain = |text: &str| {
        text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    let wanted = plain(name);
    let found = (100..=511).find(|code| {
        let phrase = StatusCode::from_u16(*code).ok().and_then(|status| status.canonical_reason());
        phrase.is_some_and(|phrase| plain(phrase) == wanted)
    });
    found.map(i32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_with_names_of_both_kinds() {
        let value = json!({"requestHeaders": {"response": {"status": "CONTINUE_AND_REPLACE", "header_mutation":
            {"setHeaders": [{"header": {"key": "a", "rawValue": "Yg=="}, "append_action": "ADD_IF_ABSENT"}],
            "removeHeaders": ["c"]}, "bodyMutation": {"body": "aGk="}, "clearRouteCache": true}}});
        let Some(Answer::RequestHeaders(head)) = read(&value).unwrap().response else { panic!() };
        let common = head.response.unwrap();
        assert_eq!((common.status, common.clear_route_cache), (1, true));
        let mutation = common.header_mutation.unwrap();
        assert_eq!(mutation.set_headers[0].append_action, 1);
        assert_eq!(mutation.set_headers[0].header.as_ref().unwrap().raw_value, b"b");
        assert_eq!(mutation.remove_headers, ["c"]);
        let value = json!({"immediateResponse": {"status": {"code": "ImATeapot"}, "body": "aGk="}});
        let Some(Answer::ImmediateResponse(answer)) = read(&value).unwrap().response else { panic!() };
        assert_eq!((answer.status.unwrap().code, &*answer.body), (418, &b"hi"[..]));
    }

    #[test]
    fn questions_are_written_as_protobuf_writes_them() {
        let headers = core::HeaderMap {
            headers: vec![core::HeaderValue {
                key: "a".into(),
                raw_value: b"b".into(),
                ..Default::default()
            }],
        };
        let head = proc::HttpHeaders { headers: Some(headers), end_of_stream: true, ..Default::default() };
        let message =
            proc::ProcessingRequest { request: Some(Phase::RequestHeaders(head)), ..Default::default() };
        let wanted = json!({"request_headers": {"headers": {"headers": [{"key": "a", "raw_value": "Yg=="}]},
            "end_of_stream": true}});
        assert_eq!(written(&message), wanted);
    }
}
