//! Single HTTP requests to the proxy, the application and the agent itself: a connection each, bounded in time and
//! size.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

/// More than this is not read.
const MAX_BODY: usize = 64 << 20;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("connecting to {0}")]
    Connect(String, #[source] io::Error),
    /// The request or the response is damaged.
    #[error("HTTP with {0}")]
    Http(String, #[source] hyper::Error),
    /// The request cannot be sent.
    #[error("the request to {0} is not valid")]
    Request(String, #[source] http::Error),
    /// The body is too long or damaged.
    #[error("reading the response of {0}: {1}")]
    Body(String, String),
    /// It took too long.
    #[error("{0} did not answer within {1:?}")]
    Timeout(String, Duration),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Fetch<'a> {
    /// GET, POST …
    pub method: Method,
    /// The host, perhaps a name.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: &'a str,
    /// Further header fields.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Bytes,
    /// For everything together.
    pub timeout: Duration,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl<'a> Fetch<'a> {
    /// A GET.
    pub fn get(host: &'a str, port: u16, path: &'a str, timeout: Duration) -> Self {
        Self { method: Method::GET, host, port, path, headers: HeaderMap::new(), body: Bytes::new(), timeout }
    }

    /// The same with another method.
    pub fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// Sends it.
    pub async fn send(self) -> Result<Fetched, Error> {
        let (peer, timeout) = (format!("{}:{}", self.host, self.port), self.timeout);
        tokio::time::timeout(timeout, self.exchange(peer.clone()))
            .await
            .map_err(|_| Error::Timeout(peer, timeout))?
    }

    async fn exchange(self, peer: String) -> Result<Fetched, Error> {
        let stream = TcpStream::connect((self.host, self.port))
            .await
            .map_err(|source| Error::Connect(peer.clone(), source))?;
        exchange(stream, self, peer).await
    }
}

/// Connects from a source address where one is given and usable.
pub async fn connect_from(source: Option<IpAddr>, host: IpAddr, port: u16) -> io::Result<TcpStream> {
    let address = (host, port).into();
    let Some(source) = source.filter(|source| source.is_ipv4() == host.is_ipv4()) else {
        return TcpStream::connect(address).await;
    };
    let socket = if host.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    match socket.bind((source, 0).into()) {
        Ok(()) => socket.connect(address).await,
        // ::6 is on no interface unless somebody put it there; the capture rules let localhost pass as well.
        Err(_) => TcpStream::connect(address).await,
    }
}

/// One HTTP/1.1 exchange over a given stream.
pub async fn exchange<S>(stream: S, fetch: Fetch<'_>, peer: String) -> Result<Fetched, Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let http = |source| Error::Http(peer.clone(), source);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let mut request = http::Request::builder().method(fetch.method).uri(fetch.path);
    if let Some(headers) = request.headers_mut() {
        headers.extend(fetch.headers);
        if !headers.contains_key(http::header::HOST)
            && let Ok(host) = HeaderValue::try_from(&peer)
        {
            headers.insert(http::header::HOST, host);
        }
    }
    let request =
        request.body(Full::new(fetch.body)).map_err(|source| Error::Request(peer.clone(), source))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| Error::Body(peer.clone(), error.to_string()))?.to_bytes();
        Ok(Fetched { status: head.status, headers: head.headers, body })
    };
    // The connection is driven by whoever waits for the response, and dropped with it.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        ended = &mut connection => match ended {
            Err(source) => Err(Error::Http(peer.clone(), source)),
            Ok(()) => exchange.await,
        },
    }
}
