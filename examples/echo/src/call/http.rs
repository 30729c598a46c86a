//! HTTP requests, over kept connections unless told otherwise.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{Options, Outcome, header};

pub(super) struct Caller(Client<HttpConnector, Full<Bytes>>);

impl Caller {
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.http2_only(options.http2);
        if options.no_keepalive {
            builder.pool_max_idle_per_host(0);
        }
        Ok(Self(builder.build_http()))
    }

    pub(super) async fn call(&self, options: &Options) -> anyhow::Result<Outcome> {
        let mut request = Request::builder().method(options.method.as_str()).uri(&options.url);
        for option in &options.headers {
            let (name, value) = header(option)?;
            request = request.header(name, value);
        }
        let response = self.0.request(request.body(Full::from(options.data.clone()))?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        let told: Option<serde_json::Value> = serde_json::from_str(&body).ok();
        let version = told.and_then(|told| told.get("version")?.as_str().map(str::to_owned));
        let headers = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        Ok(Outcome { status: head.status.as_str().to_owned(), version, body, headers })
    }
}
