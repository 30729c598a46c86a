//! HTTP calls of modules, through the worker's own clusters. A call that fails before an answer has the answer that the
//! router would give.

use std::rc::Rc;
use std::time::Duration;

use base::task::Supervised;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, Version};
use http_body_util::BodyExt as _;
use sail_proxy_config::callout::HttpTarget;
use sail_proxy_wasm::{HttpCall, HttpCallResponse, Pairs, Status};

use super::host::Tasks;
use crate::callout::{self, CalloutError};
use crate::http::body::{Body, BodyError};
use crate::http::head::Head;
use crate::http::scan::Present;
use crate::worker::state::Worker;

/// As much of an answer as a module is given.
const ANSWER_LIMIT: usize = 32 * 1024 * 1024;
/// As large as a module may be.
const MODULE_LIMIT: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Callout(#[from] CalloutError),
    #[error("the answer broke off: {0}")]
    Broken(#[from] BodyError),
    #[error("the answer is too large")]
    TooLarge,
}

/// Begins a call.
pub(super) fn http(
    worker: &Rc<Worker>,
    tasks: &Rc<Tasks>,
    (root, token): (u32, u32),
    call: HttpCall,
) -> Result<(), Status> {
    let head = head(&call.headers).ok_or(Status::BadArgument)?;
    let cluster = worker.active().cluster(&call.cluster).ok_or(Status::BadArgument)?;
    let name = cluster.config.name.clone();
    let trailers = headers(&call.trailers);
    let (worker, of_call) = (worker.clone(), Rc::downgrade(tasks));
    let task = Supervised::spawn_local(async move {
        let body = crate::http::gather::joined(call.body, trailers, Body::Empty);
        let exchange = async {
            let (response, lease) = callout::send(&worker, &name, head, body).await?;
            let (parts, body) = response.into_parts();
            let (body, trailers) = collect(body, ANSWER_LIMIT).await?;
            lease.finish();
            let mut headers: Pairs = vec![(":status".into(), parts.status.as_str().to_owned().into())];
            headers.extend(pairs(&parts.headers));
            let trailers = trailers.as_ref().map(|trailers| pairs(trailers).collect()).unwrap_or_default();
            Ok::<_, Failure>(HttpCallResponse { headers, body, trailers })
        };
        let response = within(call.timeout, exchange).await;
        let Some(tasks) = of_call.upgrade() else { return };
        tasks.forget(token);
        let running = tasks.running.borrow().upgrade();
        if let Some(running) = running {
            running.call(|vm| vm.on_http_call_response(root, token, response));
        }
    });
    tasks.calls.borrow_mut().insert(token, task);
    Ok(())
}

/// The answer, or what stands for it.
async fn within(
    limit: Duration,
    exchange: impl Future<Output = Result<HttpCallResponse, Failure>>,
) -> HttpCallResponse {
    let result =
        if limit.is_zero() { Ok(exchange.await) } else { tokio::time::timeout(limit, exchange).await };
    match result {
        Ok(Ok(response)) => response,
        Err(_) => local("504", "upstream request timeout"),
        Ok(Err(Failure::Callout(CalloutError::NoHost(_)))) => local("503", "no healthy upstream"),
        Ok(Err(Failure::Callout(error))) => local("503", &error.to_string()),
        Ok(Err(Failure::Broken(_) | Failure::TooLarge)) => HttpCallResponse::default(),
    }
}

fn local(status: &'static str, text: &str) -> HttpCallResponse {
    let headers = vec![
        (":status".into(), status.into()),
        ("content-length".into(), text.len().to_string().into()),
        ("content-type".into(), "text/plain".into()),
    ];
    HttpCallResponse { headers, body: Bytes::copy_from_slice(text.as_bytes()), trailers: Pairs::new() }
}

/// Fetches a module.
pub(super) async fn fetch(
    worker: &Rc<Worker>,
    target: &HttpTarget,
    head: Head,
) -> Result<Response<Bytes>, Failure> {
    let exchange = async {
        let (response, lease) = callout::send(worker, &target.cluster, head, Body::Empty).await?;
        let (parts, body) = response.into_parts();
        let (body, _) = collect(body, MODULE_LIMIT).await?;
        lease.finish();
        Ok(Response::from_parts(parts, body))
    };
    match target.timeout {
        None => exchange.await,
        Some(limit) => {
            let result = tokio::time::timeout(limit, exchange).await;
            result.unwrap_or(Err(CalloutError::Timeout(limit).into()))
        }
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<(Bytes, Option<HeaderMap>), Failure> {
    let mut all = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if all.len() + data.len() > limit => return Err(Failure::TooLarge),
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((all.freeze(), trailers))
}

/// Headers as modules see them.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (Bytes, Bytes)> + '_ {
    headers.iter().map(|(name, value)| {
        (Bytes::copy_from_slice(name.as_str().as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    })
}

/// Headers of pairs; what can be none is left out.
pub(super) fn headers(pairs: &Pairs) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().filter(|(name, _)| !name.starts_with(b":")) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    (!headers.is_empty()).then_some(headers)
}

/// The head of a request, which must have a method, a path and an authority.
fn head(pairs: &Pairs) -> Option<Head> {
    let pseudo = |name: &[u8]| pairs.iter().find(|(key, _)| **key == *name).map(|(_, value)| &**value);
    let authority = HeaderValue::from_bytes(pseudo(b":authority")?).ok()?;
    authority.to_str().ok()?;
    let mut headers = headers(pairs).unwrap_or_default();
    headers.remove(HOST);
    // The body has the length that it has.
    headers.remove(CONTENT_LENGTH);
    Some(Head {
        method: Method::from_bytes(pseudo(b":method")?).ok()?,
        scheme: if pseudo(b":scheme") == Some(b"https") { "https" } else { "http" },
        authority,
        path: PathAndQuery::try_from(pseudo(b":path")?).ok()?,
        protocol: None,
        version: Version::HTTP_11,
        headers,
        present: Present::default(),
    })
}
