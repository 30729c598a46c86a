//! Asks an HTTP server: 200 is a consent, 5xx a failure, the rest a refusal.

use ::http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use sail_proxy_config::http_filter::ext_authz::HttpService;
use sail_proxy_decide::headers::AppendAction;
use sail_proxy_decide::matcher::StringMatcher;
use sail_proxy_decide::route::retry::RetryOn;
use serde_json::Value;

use super::{Check, Consent, Excerpt, PARTIAL_BODY, Refusal, Verdict};
use crate::callout::{self, CalloutError};
use crate::http::head::Head;

const HEADERS_TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

pub(super) async fn ask(
    check: &Check<'_>,
    service: &HttpService,
    head: &Head,
    body: Option<Excerpt>,
) -> Verdict {
    let Some(request) = request(check, service, head, body.as_ref()) else {
        return Verdict::Error { status: None, timeout: false };
    };
    let body = body.map(|body| body.bytes).unwrap_or_default();
    let call = again(check, service, request, body);
    let answer = match service.target.timeout {
        None => call.await,
        Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or(Err(CalloutError::Timeout(limit))),
    };
    match answer {
        Ok(response) => verdict(service, &response),
        Err(error) => {
            tracing::debug!(cluster = %service.target.cluster, %error, "ext_authz service failed");
            Verdict::Error { status: None, timeout: matches!(error, CalloutError::Timeout(_)) }
        }
    }
}

/// Asks, and asks again where the server fails and that is wanted.
async fn again(
    check: &Check<'_>,
    service: &HttpService,
    request: Head,
    body: Bytes,
) -> Result<Response<Bytes>, CalloutError> {
    let worker = &check.exchange.connection.worker;
    let Some(retries) = service.retries else {
        return callout::http(worker, &service.target, request, body).await;
    };
    let mut left = retries.count;
    let mut pause = retries.base;
    loop {
        let answer = callout::http(worker, &service.target, request.clone(), body.clone()).await;
        let failed = is_retried(retries.on, &answer);
        if !failed || left == 0 {
            return answer;
        }
        left -= 1;
        let share = f64::from(u32::try_from(worker.random() >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        tokio::time::sleep(pause.mul_f64(share)).await;
        pause = (pause * 2).min(retries.max);
    }
}

/// Whether an answer is such as is asked for again.
fn is_retried(on: RetryOn, answer: &Result<Response<Bytes>, CalloutError>) -> bool {
    let has = |condition| on.contains(condition);
    match answer {
        Ok(answer) => {
            let by_status = match answer.status().as_u16() {
                502..=504 => has(RetryOn::ANY_5XX) || has(RetryOn::GATEWAY_ERROR),
                500..=599 => has(RetryOn::ANY_5XX),
                409 => has(RetryOn::RETRIABLE_4XX),
                _ => false,
            };
            // A rate-limited answer is asked for again only where that is said.
            if answer.headers().contains_key("x-envoy-ratelimited") {
                return has(RetryOn::ENVOY_RATELIMITED);
            }
            by_status || on.has_grpc_status(answer.headers())
        }
        Err(CalloutError::NoCluster(_) | CalloutError::NoHost(_) | CalloutError::Authority(_)) => false,
        Err(CalloutError::Pool(_)) if has(RetryOn::CONNECT_FAILURE) => true,
        Err(_) => has(RetryOn::ANY_5XX) || has(RetryOn::GATEWAY_ERROR) || has(RetryOn::RESET),
    }
}

fn named(list: &[StringMatcher], name: &HeaderName) -> bool {
    list.iter().any(|matcher| matcher.is_match(name.as_str().as_bytes()))
}

/// The client's request, less the headers that are not to go along; `None` if the path is none.
fn request(check: &Check<'_>, service: &HttpService, head: &Head, body: Option<&Excerpt>) -> Option<Head> {
    let config = check.config;
    let allowed = config.allowed_headers.as_deref().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for (name, value) in &head.headers {
        let wanted = *name == AUTHORIZATION || named(allowed, name) || named(&service.allowed_headers, name);
        let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, HOST].contains(name);
        if wanted && !framing && name != PARTIAL_BODY && !named(&config.disallowed_headers, name) {
            headers.append(name, value.clone());
        }
    }
    if let Some(body) = body {
        let partial = if body.partial { "true" } else { "false" };
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(partial));
    }
    check.exchange.with_attributes(head, |attributes| {
        for add in &service.headers_to_add {
            if let Some(value) = add.value(attributes) {
                headers.insert(add.name.clone(), value);
            }
        }
    });
    let path = match &service.path_override {
        Some(path) => path.parse().ok()?,
        None if service.path_prefix.is_empty() => head.path.clone(),
        None => format!("{}{}", service.path_prefix, head.path).parse().ok()?,
    };
    let mut request = callout::head(&service.target, head.method.clone(), headers);
    // The server decides by the host that the client asked for.
    request.authority = head.authority.clone();
    request.path = path;
    Some(request)
}

fn verdict(service: &HttpService, response: &Response<Bytes>) -> Verdict {
    if response.status().is_server_error() {
        return Verdict::Error { status: None, timeout: false };
    }
    let headers = response.headers();
    let metadata = headers.iter().filter(|(name, _)| named(&service.metadata_from_headers, name));
    let metadata: serde_json::Map<_, _> = metadata
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), Value::String(text))
        })
        .collect();
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let pick = |list: &[StringMatcher]| -> Vec<(String, Vec<u8>)> {
        let found = headers.iter().filter(|(name, _)| named(list, name));
        found.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
    };
    let for_client = |list: Vec<(String, Vec<u8>)>| {
        list.into_iter().map(|(name, value)| (name, value, AppendAction::AppendIfExistsOrAdd)).collect()
    };
    if response.status() == StatusCode::OK {
        let remove = headers.get_all(HEADERS_TO_REMOVE).iter().filter_map(|value| value.to_str().ok());
        let remove = remove.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned());
        return Verdict::Ok(Box::new(Consent {
            set: pick(&service.upstream_headers),
            append: pick(&service.upstream_headers_to_append),
            remove: remove.filter(|name| !name.is_empty()).collect(),
            response: for_client(pick(&service.client_headers_on_success)),
            metadata,
            ..Consent::default()
        }));
    }
    // With a list, what every refusal needs goes along.
    let always = ["www-authenticate", "location"];
    let client = headers.iter().filter(|(name, _)| match &service.client_headers {
        None => true,
        Some(list) => named(list, name) || always.contains(&name.as_str()),
    });
    let client = client.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    Verdict::Denied(Box::new(Refusal {
        status: response.status(),
        headers: for_client(client),
        body: String::from_utf8_lossy(response.body()).into_owned(),
        metadata,
    }))
}
