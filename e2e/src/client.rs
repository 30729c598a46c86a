//! A client outside the mesh, as a browser is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as text.
    pub body: String,
    /// From the request to the end of the body.
    pub took: Duration,
}

/// GETs a page.
pub fn get(url: &str) -> Result<Answer, String> {
    get_with(url, &[])
}

/// GETs a page with headers of the caller's. An answer that takes longer than 30 s is an error.
pub fn get_with(url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request = Request::get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let started = Instant::now();
        let exchange = async {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let (head, body) =
                client.request(request).await.map_err(|error| format!("{url}: {error}"))?.into_parts();
            let body = body.collect().await.map_err(|error| format!("{url}: {error}"))?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, took: started.elapsed() })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .map_err(|_| format!("{url}: no answer in 30 s"))?
    })
}
