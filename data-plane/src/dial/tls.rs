//! A cluster's transport socket round the main thread's own connections.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use sail_proxy_config::Snapshot;
use sail_proxy_config::tls::{ProxyProtocolVersion, UpstreamSocket};

use super::target::{ClientTls, Connect};
use crate::net::proxy_protocol::{self, Version};
use crate::tls::context::Contexts;

/// TLS for this socket, if it has any.
pub(crate) fn client(
    contexts: &Contexts,
    snapshot: &Snapshot,
    socket: &UpstreamSocket,
    name: &str,
) -> Result<Option<ClientTls>, String> {
    match socket {
        UpstreamSocket::Raw => Ok(None),
        UpstreamSocket::Internal(inner) | UpstreamSocket::TcpStats(inner, _) => {
            client(contexts, snapshot, inner, name)
        }
        UpstreamSocket::ProxyProtocol(_) => {
            Err("the proxy's own calls do not speak the PROXY protocol upstream".to_owned())
        }
        UpstreamSocket::Tls(tls) => {
            let built = contexts.client(tls, snapshot, None).map_err(|error| error.to_string())?;
            let sni = if tls.sni.is_empty() { name } else { &tls.sni };
            // Something that is no name is asked for by no name.
            let name = ServerName::try_from(sni.to_owned())
                .or_else(|_| ServerName::try_from("cluster".to_owned()))
                .map_err(|error| error.to_string())?;
            Ok(Some((built.config, name)))
        }
    }
}

/// The PROXY protocol's header of a connection that speaks for the proxy itself, where the socket has one; and what
/// carries the bytes behind it.
pub(crate) fn own_header(socket: &UpstreamSocket) -> (Option<Vec<u8>>, &UpstreamSocket) {
    match socket {
        UpstreamSocket::Internal(inner) | UpstreamSocket::TcpStats(inner, _) => own_header(inner),
        UpstreamSocket::ProxyProtocol(outer) => {
            let version = match outer.version {
                ProxyProtocolVersion::V1 => Version::V1,
                ProxyProtocolVersion::V2 => Version::V2,
            };
            (Some(proxy_protocol::write(version, None, &[])), &outer.inner)
        }
        UpstreamSocket::Raw | UpstreamSocket::Tls(_) => (None, socket),
    }
}

/// Does the client's side of a handshake, if there is one.
pub(crate) async fn wrap(stream: Box<dyn Connect>, tls: Option<ClientTls>) -> io::Result<Box<dyn Connect>> {
    let Some((config, name)) = tls else { return Ok(stream) };
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
    Ok(Box::new(connector.connect(name, stream).await?))
}
