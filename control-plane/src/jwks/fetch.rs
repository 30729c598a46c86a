//! One key set over HTTP: bounded in size, time and redirections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use saild_model::mesh::JwksSource;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A key set larger than this is none.
const MAX_SIZE: usize = 1 << 20;
const MAX_REDIRECTS: usize = 5;

/// Why a key set was not had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0:?} is not an http or https URL")]
    Url(String),
    #[error("{host} resolves to {address}, which BLOCKED_CIDRS_IN_JWKS_URIS refuses")]
    Blocked { host: String, address: IpAddr },
    #[error("connecting to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("TLS with {0}")]
    Tls(String, #[source] std::io::Error),
    #[error("the exchange with {0}")]
    Http(String, #[source] hyper::Error),
    #[error("{url} answers {status}")]
    Status { url: Uri, status: StatusCode },
    #[error("{0}: more than {MAX_REDIRECTS} redirections")]
    Redirects(Uri),
    #[error("{0}: the body cannot be read, or is larger than {MAX_SIZE} bytes")]
    Body(Uri, #[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{url}: {what}")]
    Content { url: Uri, what: &'static str },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Fetches key sets.
#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    /// Networks that are not asked.
    pub(crate) blocked: Vec<IpNet>,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Fetcher {
    /// Asks all but these networks.
    pub(crate) fn new(blocked: Vec<IpNet>) -> Self {
        Self { blocked, tls: OnceCell::new() }
    }

    /// Trusts these roots instead of the system's.
    #[cfg(test)]
    pub(crate) fn trusting(roots: RootCertStore) -> Self {
        Self { blocked: Vec::new(), tls: OnceCell::new_with(Some(config(roots))) }
    }

    /// The key set of a source.
    pub(crate) async fn keys(&self, source: &JwksSource) -> Result<String, Error> {
        let mut url = parse(&source.url())?;
        if matches!(source, JwksSource::Issuer(_)) {
            let document = json(&url, &self.get(&url).await?)?;
            let next = document.get("jwks_uri").and_then(Value::as_str);
            let next = next.ok_or_else(|| Error::Content { url, what: "the document has no jwks_uri" })?;
            url = parse(next)?;
        }
        let body = self.get(&url).await?;
        if !json(&url, &body)?.get("keys").is_some_and(Value::is_array) {
            return Err(Error::Content { url, what: "is not a JSON Web Key set ({\"keys\": […]})" });
        }
        String::from_utf8(body.to_vec()).map_err(|_| Error::Content { url, what: "is not UTF-8" })
    }

    async fn get(&self, url: &Uri) -> Result<Bytes, Error> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            match self.once(&url).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Elsewhere(next) => url = next,
            }
        }
        Err(Error::Redirects(url))
    }

    async fn once(&self, url: &Uri) -> Result<Answer, Error> {
        let host = url.host().ok_or_else(|| Error::Url(url.to_string()))?.to_owned();
        let https = url.scheme_str() == Some("https");
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        let stream = self.connect(&host, port).await?;
        if !https {
            return exchange(stream, url).await;
        }
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| Error::Url(url.to_string()))?;
        let connector = TlsConnector::from(Arc::clone(self.tls.get_or_init(system_roots).await));
        let stream = connector.connect(name, stream).await.map_err(|error| Error::Tls(host, error))?;
        exchange(stream, url).await
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let failed = |error| Error::Connect(format!("{host}:{port}"), error);
        let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await.map_err(failed)?;
        let addresses: Vec<SocketAddr> = found.collect();
        let is_blocked =
            |address: &&SocketAddr| self.blocked.iter().any(|net| net.contains(&address.ip().to_canonical()));
        if let Some(address) = addresses.iter().find(is_blocked) {
            return Err(Error::Blocked { host: host.to_owned(), address: address.ip() });
        }
        TcpStream::connect(addresses.as_slice()).await.map_err(failed)
    }
}

enum Answer {
    Body(Bytes),
    Elsewhere(Uri),
}

async fn exchange<S>(stream: S, url: &Uri) -> Result<Answer, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error| Error::Http(url.to_string(), error);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let _connection = base::task::Supervised::spawn(async move {
        // What goes wrong here goes wrong with the request, too, and is told there.
        let _ = connection.await;
    });
    let authority = url.authority().map(ToString::to_string).unwrap_or_default();
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Error::Url(url.to_string()))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| absolute(url, location));
        return next.map(Answer::Elsewhere).ok_or_else(|| Error::Status { url: url.clone(), status });
    }
    if status != StatusCode::OK {
        return Err(Error::Status { url: url.clone(), status });
    }
    let body = Limited::new(response.into_body(), MAX_SIZE).collect().await;
    body.map(|body| Answer::Body(body.to_bytes())).map_err(|error| Error::Body(url.clone(), error))
}

/// A redirection's target: a URL, or a path on the same host. From https it leads nowhere else.
fn absolute(from: &Uri, location: &str) -> Option<Uri> {
    let next = match location.strip_prefix('/') {
        Some(_) if !location.starts_with("//") => {
            format!("{}://{}{location}", from.scheme_str()?, from.authority()?)
        }
        _ => location.to_owned(),
    };
    let next = parse(&next).ok()?;
    (from.scheme_str() != Some("https") || next.scheme_str() == Some("https")).then_some(next)
}

fn parse(url: &str) -> Result<Uri, Error> {
    let parsed: Uri = url.parse().map_err(|_| Error::Url(url.to_owned()))?;
    let known = matches!(parsed.scheme_str(), Some("http" | "https")) && parsed.host().is_some();
    known.then_some(parsed).ok_or_else(|| Error::Url(url.to_owned()))
}

fn json(url: &Uri, body: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(body).map_err(|_| Error::Content { url: url.clone(), what: "is not JSON" })
}

async fn system_roots() -> Arc<ClientConfig> {
    let load = tokio::task::spawn_blocking(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("the system's root certificates: {error}");
        }
        roots.add_parsable_certificates(found.certs);
        roots
    });
    config(load.await.unwrap_or_else(|_| RootCertStore::empty()))
}

fn config(roots: RootCertStore) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(identity::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
