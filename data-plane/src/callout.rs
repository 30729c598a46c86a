//! Requests of the proxy's own, made by filters and logs through their worker's clusters and pools.

pub(crate) mod grpc;
pub(crate) mod json;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body_util::BodyExt;
use sail_proxy_config::callout::HttpTarget;
use sail_proxy_decide::route::Priority;

use crate::cluster::LbContext;
use crate::http::body::{Body, BodyError};
use crate::http::head::{Head, Keep};
use crate::http::scan::Present;
use crate::pool::PoolError;
use crate::pool::lease::{Hold, Lease, SendError};
use crate::pool::limits::Resource;
use crate::stats::sets::cluster as stats;
use crate::worker::state::Worker;

/// As much of an answer as is read.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// So many connections may turn out to have ended before a call gets none.
const STALE_CONNECTIONS: u32 = 5;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CalloutError {
    /// The configuration names a cluster that is not there.
    #[error("there is no cluster {0:?}")]
    NoCluster(Arc<str>),
    /// Nobody to ask.
    #[error("cluster {0:?} has no healthy host")]
    NoHost(Arc<str>),
    /// No connection.
    #[error("upstream connect error: {0}")]
    Pool(#[from] PoolError),
    /// The exchange broke off.
    #[error("upstream reset: {0}")]
    Codec(#[from] BodyError),
    /// The cluster's name, or what stands in for it, is no authority.
    #[error("{0:?} cannot be an :authority")]
    Authority(String),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer does not fit.
    #[error("the answer has more than {ANSWER_LIMIT} bytes")]
    TooLarge,
}

/// Sends a request to a host of a cluster. The lease is to be finished when the response was read.
pub(crate) async fn send(
    worker: &Rc<Worker>,
    cluster: &Arc<str>,
    mut head: Head,
    body: Body,
) -> Result<(Response<Body>, Lease), CalloutError> {
    let active = worker.active();
    let cluster = active.cluster(cluster).ok_or_else(|| CalloutError::NoCluster(cluster.clone()))?;
    let choice = cluster
        .choose(&LbContext::default(), worker)
        .ok_or_else(|| CalloutError::NoHost(cluster.config.name.clone()))?;
    let cluster = choice.member.clone().unwrap_or(cluster);
    let pool = cluster.own_pool(&choice, worker).ok_or(PoolError::Overflow)?;
    let mut lease = pool.acquire().await?;
    let permit = cluster.limits(Priority::Default).acquire(Resource::Requests);
    lease.hold(Hold::new(cluster.stats(), &choice.host, permit.ok_or(PoolError::Overflow)?));
    let http2 = lease.is_http2();
    let parts = if http2 { head.http2_parts(Keep::Headers) } else { Some(head.http1_parts(Keep::Headers)) };
    let parts = parts.ok_or_else(|| CalloutError::Authority(head.authority().to_owned()))?;
    let mut request = Request::from_parts(parts, body);
    cluster.stats().inc(stats::upstream_rq_total);
    let mut stale = 0;
    loop {
        let SendError { unsent, error } = match lease.send(request).await {
            Ok(response) => {
                cluster.count_response(&choice.host, response.status().as_u16());
                return Ok((response, lease));
            }
            Err(error) => error,
        };
        let Some(unsent) = unsent.filter(|_| stale < STALE_CONNECTIONS) else {
            cluster.stats().inc(stats::upstream_rq_rx_reset);
            return Err(error.into());
        };
        // The connection had ended while it was idle, and nothing was sent.
        stale += 1;
        request = *unsent;
        let hold = lease.take_hold();
        lease = pool.acquire().await?;
        if let Some(hold) = hold {
            lease.hold(hold);
        }
        if lease.is_http2() != http2 {
            return Err(error.into());
        }
    }
}

/// The head of a call.
pub(crate) fn head(target: &HttpTarget, method: Method, headers: HeaderMap) -> Head {
    Head {
        method,
        scheme: if target.https { "https" } else { "http" },
        authority: HeaderValue::from_str(target.authority.as_str())
            .unwrap_or_else(|_| HeaderValue::from_static("")),
        path: target.path.clone(),
        protocol: None,
        version: Version::HTTP_11,
        headers,
        present: Present::default(),
    }
}

/// Calls an HTTP service, and reads its answer to the end.
pub(crate) async fn http(
    worker: &Rc<Worker>,
    target: &HttpTarget,
    mut head: Head,
    body: Bytes,
) -> Result<Response<Bytes>, CalloutError> {
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    fetch(worker, &target.cluster, head, body, target.timeout).await
}

/// Sends a request as it is to a cluster, and reads its answer to the end.
pub(crate) async fn fetch(
    worker: &Rc<Worker>,
    cluster: &Arc<str>,
    head: Head,
    body: Bytes,
    timeout: Option<Duration>,
) -> Result<Response<Bytes>, CalloutError> {
    let call = async {
        let (response, lease) = send(worker, cluster, head, Body::text(body)).await?;
        let (parts, body) = response.into_parts();
        let body = read(body).await?;
        lease.finish();
        Ok(Response::from_parts(parts, body))
    };
    within(timeout, call).await
}

async fn within<T>(
    limit: Option<Duration>,
    call: impl Future<Output = Result<T, CalloutError>>,
) -> Result<T, CalloutError> {
    match limit {
        None => call.await,
        Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or(Err(CalloutError::Timeout(limit))),
    }
}

async fn read(mut body: Body) -> Result<Bytes, CalloutError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if all.len() + data.len() > ANSWER_LIMIT {
                return Err(CalloutError::TooLarge);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}
