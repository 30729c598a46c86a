//! Sockets, with mutual TLS around them where a folder of certificates is given.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::either::Either;

/// A connection of either kind.
pub(crate) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// What takes connections in.
#[derive(Clone)]
pub(crate) struct Acceptor(Option<TlsAcceptor>);

impl Acceptor {
    /// Over TLS, where there is a folder.
    pub(crate) fn new(folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self(None)) };
        let (roots, chain, key) = files(folder, "server")?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let config =
            ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
        Ok(Self(Some(TlsAcceptor::from(Arc::new(config)))))
    }

    /// The connection of a socket, its handshake done.
    pub(crate) async fn accept(&self, socket: TcpStream) -> Result<Stream> {
        Ok(match &self.0 {
            None => Either::Left(socket),
            Some(tls) => Either::Right(tls.accept(socket).await?.into()),
        })
    }
}

/// The one upstream.
pub(crate) struct Upstream {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Upstream {
    /// Over TLS, where there is a folder.
    pub(crate) fn new(address: SocketAddr, folder: Option<&Path>) -> Result<Self> {
        let Some(folder) = folder else { return Ok(Self { address, tls: None }) };
        let (roots, chain, key) = files(folder, "client")?;
        let config =
            ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        Ok(Self { address, tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Stream> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Either::Left(socket),
            Some(tls) => Either::Right(tls.connect(ServerName::try_from("server")?, socket).await?.into()),
        })
    }
}

fn files(
    folder: &Path,
    who: &str,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificates = |name: &str| -> Result<Vec<CertificateDer<'static>>> {
        let path = folder.join(name);
        let found = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
        found.with_context(|| format!("cannot read certificates of {}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("ca.pem")?);
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{who}.key")))
        .with_context(|| format!("cannot read the key of {who}"))?;
    Ok((roots, certificates(&format!("{who}.pem"))?, key))
}
