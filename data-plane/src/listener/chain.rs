//! A filter chain ready for connections: its TLS, the network filters that judge a connection, and what ends it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sail_proxy_config::listener::{FilterChain, Listener};
use sail_proxy_config::network_filter::NetworkFilter;
use sail_proxy_config::tls::{DownstreamTls, TcpStats};
use tokio::io::AsyncWriteExt;

use super::Drain;
use super::connection::Accepted;
use crate::http::manager::Manager;
use crate::net::Stream;
use crate::tcp::{self, proxy::TcpProxy};
use crate::worker::state::Worker;

/// How long a handshake may take where the configuration says nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

enum Terminal {
    Http(Rc<Manager>),
    Tcp(Rc<TcpProxy>),
    Respond(Bytes),
    Echo,
    /// A chain without an end closes the connection.
    Close,
}

/// See the module's documentation.
pub(crate) struct Chain {
    config: Arc<FilterChain>,
    terminal: Terminal,
    /// The end of its connections, which may come before the listener's.
    pub(super) drain: Drain,
}

impl Chain {
    pub(crate) fn new(
        config: &Arc<FilterChain>,
        listener: &Listener,
        drain: Drain,
        worker: &Worker,
    ) -> Rc<Self> {
        let shared = &worker.shared;
        let terminal = match config.filters.last() {
            Some(NetworkFilter::HttpConnectionManager(hcm)) => {
                Terminal::Http(Rc::new(Manager::new(hcm, listener, config, shared)))
            }
            Some(NetworkFilter::TcpProxy(proxy)) => {
                Terminal::Tcp(Rc::new(TcpProxy::new(proxy, listener, config, shared)))
            }
            Some(NetworkFilter::DirectResponse(bytes)) => Terminal::Respond(bytes.clone()),
            Some(NetworkFilter::Echo) => Terminal::Echo,
            _ => Terminal::Close,
        };
        Rc::new(Self { config: config.clone(), terminal, drain })
    }

    pub(super) fn version(&self) -> u64 {
        self.config.version
    }

    /// The TLS that clients are expected to speak.
    pub(crate) fn tls(&self) -> Option<&Arc<DownstreamTls>> {
        self.config.socket.tls()
    }

    /// Whether the kernel is asked about connections, and how often.
    pub(crate) fn tcp_stats(&self) -> Option<TcpStats> {
        self.config.socket.tcp_stats()
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.config.transport_socket_connect_timeout.unwrap_or(HANDSHAKE_TIMEOUT)
    }

    /// Whether a log tells round trips.
    pub(crate) fn wants_round_trip(&self) -> bool {
        match &self.terminal {
            Terminal::Http(manager) => manager.observer.capture().round_trip,
            Terminal::Tcp(proxy) => proxy.wants_round_trip(),
            _ => false,
        }
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(&self, worker: Rc<Worker>, accepted: Accepted, mut stream: Stream) {
        let judged = tcp::filters::judge(&self.config.filters, &worker, &accepted, &mut stream).await;
        let judged = match judged {
            Ok(judged) => judged,
            Err(denied) => {
                if let Terminal::Tcp(proxy) = &self.terminal {
                    proxy.deny(&accepted, self.config.name.clone(), denied);
                }
                return;
            }
        };
        match &self.terminal {
            Terminal::Http(manager) => {
                // Requests begin with bytes: what is set when they arrive may as well be there before.
                judged.set_on_data(&accepted.downstream, 0);
                // The codec reads the connection from its first byte.
                crate::http::conn::serve(worker, manager.clone(), accepted, stream).await;
            }
            Terminal::Tcp(proxy) => {
                let name = self.config.name.clone();
                Box::pin(proxy.clone().serve(worker, accepted, name, judged, stream)).await;
            }
            Terminal::Respond(bytes) => {
                // The client may be gone; nothing is lost then.
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
            }
            Terminal::Echo => {
                let (mut read, mut write) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            }
            Terminal::Close => {}
        }
    }
}
