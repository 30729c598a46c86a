//! gRPC over one HTTP/2 connection.

use std::task::{Context, Poll};

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::body::Body;

use super::target::{Connect, Target, TargetError};

/// Why a gRPC connection did not come about.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// No connection.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The peer does not speak HTTP/2.
    #[error("cluster {cluster} does not answer in HTTP/2")]
    Handshake {
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
}

/// One HTTP/2 connection as tonic's transport. The connection ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct H2Service {
    send: http2::SendRequest<Body>,
    authority: Authority,
}

/// Connects to the target and speaks HTTP/2 on it.
pub async fn grpc(
    target: &Target,
    authority: Option<&str>,
) -> Result<tonic::client::Grpc<H2Service>, GrpcError> {
    let stream = target.connect().await?;
    let over = grpc_over(stream, authority.unwrap_or(&target.cluster)).await;
    over.map_err(|source| GrpcError::Handshake { cluster: target.cluster.to_string(), source })
}

/// Speaks HTTP/2 on a connection that stands.
pub async fn grpc_over(
    stream: Box<dyn Connect>,
    authority: &str,
) -> Result<tonic::client::Grpc<H2Service>, hyper::Error> {
    let (send, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        // Its end is seen by whoever has a stream on it.
        let _ = connection.await;
    });
    // A cluster's name need not be a host's: `outbound|80||x` is none.
    let authority = authority.parse().unwrap_or_else(|_| Authority::from_static("cluster"));
    let service = H2Service { send, authority };
    Ok(tonic::client::Grpc::new(service).max_decoding_message_size(usize::MAX))
}

impl tower_service::Service<Request<Body>> for H2Service {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        // All three parts are there, so this is a URI.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        Box::pin(self.send.send_request(request))
    }
}
