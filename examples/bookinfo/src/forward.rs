//! Calls to other services, carrying on what ties them to the request they are made for: the trace headers, the
//! request id, the user. Without this a mesh sees single calls and no traces.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

/// The headers that a call inherits from the request that it serves.
const INHERITED: [HeaderName; 19] = [
    HeaderName::from_static("x-request-id"),
    // B3, in many headers and in one.
    HeaderName::from_static("x-b3-traceid"),
    HeaderName::from_static("x-b3-spanid"),
    HeaderName::from_static("x-b3-parentspanid"),
    HeaderName::from_static("x-b3-sampled"),
    HeaderName::from_static("x-b3-flags"),
    HeaderName::from_static("b3"),
    // W3C.
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("x-ot-span-context"),
    HeaderName::from_static("x-datadog-trace-id"),
    HeaderName::from_static("x-datadog-parent-id"),
    HeaderName::from_static("x-datadog-sampling-priority"),
    HeaderName::from_static("sw8"),
    HeaderName::from_static("x-cloud-trace-context"),
    // Who is asking, and with what.
    HeaderName::from_static("end-user"),
    HeaderName::from_static("user-agent"),
    HeaderName::from_static("authorization"),
];

/// The inherited part of a request's headers.
pub(crate) fn inherited(headers: &HeaderMap) -> HeaderMap {
    let mut forwarded = HeaderMap::new();
    for name in &INHERITED {
        for value in headers.get_all(name) {
            forwarded.append(name, value.clone());
        }
    }
    forwarded
}

/// A client for one process.
#[derive(Clone)]
pub(crate) struct Caller(Client<HttpConnector, Full<Bytes>>);

impl Caller {
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// GETs JSON. Anything but a 200 within `timeout` is an error that says what happened.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        inherited: &HeaderMap,
        timeout: Duration,
    ) -> anyhow::Result<T> {
        let mut request =
            Request::get(url).body(Full::default()).with_context(|| format!("{url} is not a URL"))?;
        request.headers_mut().extend(inherited.clone());
        let exchange = async {
            let response = self.0.request(request).await.with_context(|| format!("cannot reach {url}"))?;
            let status = response.status();
            let body = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
            if status != StatusCode::OK {
                bail!("{url} answered {status}: {}", String::from_utf8_lossy(&body).trim());
            }
            serde_json::from_slice(&body)
                .with_context(|| format!("{url} did not answer with the JSON expected"))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(result) => result,
            Err(_) => bail!("{url} did not answer within {timeout:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_and_user_are_carried_on_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for name in ["x-b3-traceid", "end-user", "cookie", "content-length"] {
            headers.insert(HeaderName::from_static(name), "1".parse().unwrap());
        }
        let forwarded = inherited(&headers);
        assert_eq!(forwarded.len(), 2);
        assert!(forwarded.contains_key("x-b3-traceid") && forwarded.contains_key("end-user"));
    }
}
