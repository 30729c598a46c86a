//! Connections to the control plane: addresses, TLS that follows the mounted root, and the token of each request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::TrustBundle;
use identity::tls::{ClientSide, PeerPolicy, Watched};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint, Uri};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the control plane cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("{address:?} is not of the form HOST:PORT")]
    Address {
        /// As given.
        address: String,
    },
    /// A file cannot be read.
    #[error("reading {what} {}", path.display())]
    Read {
        /// What it is for.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root is none.
    #[error("the control plane's root {}", path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: identity::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS to the control plane")]
    Tls(#[source] identity::Error),
    /// No connection.
    #[error("connecting to {address}")]
    Connect {
        /// Whom.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// A header cannot be sent.
    #[error("header {name}: its name or value cannot be sent")]
    Header {
        /// Which.
        name: String,
    },
}

/// How a server of the control plane proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// It does not.
    Plaintext,
    /// By a certificate of this root, in a file that is read at each connection.
    Root(PathBuf),
    /// By a certificate of one of the system's roots.
    SystemRoots,
}

/// A server of the control plane.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// HOST:PORT
    pub address: String,
    /// How it proves who it is.
    pub security: Security,
    /// The name that its certificate must bear; the host when empty.
    pub server_name: String,
    /// The file of the token that authenticates the agent, read at each use.
    pub token: Option<PathBuf>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
}

impl Upstream {
    /// Opens a connection.
    pub async fn connect(&self) -> Result<Channel, Error> {
        let bad_address = || Error::Address { address: self.address.clone() };
        let (host, _) = self.address.rsplit_once(':').ok_or_else(bad_address)?;
        let tls = self.tls().await?;
        let name = if self.server_name.is_empty() { host } else { &self.server_name };
        let name = ServerName::try_from(name.trim_start_matches('[').trim_end_matches(']').to_owned())
            .map_err(|_| bad_address())?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = Uri::try_from(format!("{scheme}://{}", self.address)).map_err(|_| bad_address())?;
        // The endpoint itself is `http`: the connector below does the TLS, so that roots may change while running.
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(|_| bad_address())?
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(4 << 20);
        let address = self.address.clone();
        let connector = tower::service_fn(move |_: Uri| dial(address.clone(), tls.clone(), name.clone()));
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|source| Error::Connect { address: self.address.clone(), source })
    }

    /// Adds the token and the headers to a request.
    pub async fn authenticate(&self, metadata: &mut MetadataMap) -> Result<(), Error> {
        if let Some(path) = &self.token {
            let token = read("the token", path).await?;
            let token = token.trim();
            insert(metadata, "authorization", &format!("Bearer {token}"))?;
        }
        for (name, value) in &self.headers {
            insert(metadata, name, value)?;
        }
        Ok(())
    }

    async fn tls(&self) -> Result<Option<tokio_rustls::TlsConnector>, Error> {
        let bundle = match &self.security {
            Security::Plaintext => return Ok(None),
            Security::Root(path) => {
                let pem = read("the control plane's root", path).await?;
                let refuse = |source| Error::Root { path: path.clone(), source };
                TrustBundle::from_pem(&pem).map_err(refuse)?
            }
            Security::SystemRoots => {
                let (path, pem) = system_roots().await?;
                TrustBundle::from_pem(&pem).map_err(|source| Error::Root { path, source })?
            }
        };
        let side = ClientSide {
            svid: None,
            bundle: Watched::new(bundle),
            policy: PeerPolicy::server_name(),
            alpn: vec![b"h2".to_vec()],
        };
        let config = side.config().map_err(Error::Tls)?;
        Ok(Some(tokio_rustls::TlsConnector::from(Arc::new(config))))
    }
}

/// Where distributions keep the system's roots.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The system's roots.
pub async fn system_roots() -> Result<(PathBuf, String), Error> {
    let path = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
    let path = path.unwrap_or_else(|| Path::new(SYSTEM_ROOTS[0])).to_owned();
    let pem = read("the system's roots", &path).await?;
    Ok((path, pem))
}

async fn read(what: &'static str, path: &Path) -> Result<String, Error> {
    let refuse = |source| Error::Read { what, path: path.to_owned(), source };
    tokio::fs::read_to_string(path).await.map_err(refuse)
}

fn insert(metadata: &mut MetadataMap, name: &str, value: &str) -> Result<(), Error> {
    let refuse = || Error::Header { name: name.to_owned() };
    let key: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|_| refuse())?;
    let value: AsciiMetadataValue = value.parse().map_err(|_| refuse())?;
    metadata.insert(key, value);
    Ok(())
}

/// Either kind of stream.
type Stream = Box<dyn Io>;

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}

async fn dial(
    address: String,
    tls: Option<tokio_rustls::TlsConnector>,
    name: ServerName<'static>,
) -> io::Result<TokioIo<Stream>> {
    let stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let stream: Stream = match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.connect(name, stream).await?),
    };
    Ok(TokioIo::new(stream))
}
