//! Makes one upstream connection: socket, TLS, HTTP codec.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sail_proxy_config::tls::{TcpStats, UpstreamSocket};
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::Host;
use tokio::io::AsyncWriteExt;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::ending::Ending;
use super::lease::Connection;
use super::{Facts, PoolError};
use crate::net::prefixed::Prefixed;
use crate::net::socket::{self, ConnectOptions};
use crate::net::{Raw, Stream};
use crate::stats::Traffic;
use crate::stats::sets::cluster_tls;
use crate::stream_info::UpstreamLife;
use crate::tcp_stats::Sampled;
use crate::tls::context::ContextError;
use crate::tls::{self, UpstreamTls};
use crate::worker::state::Worker;
use crate::{http1, http2};

/// How long an address has before the next one is tried beside it, as RFC 8305 says.
const NEXT_ADDRESS: Duration = Duration::from_millis(300);

/// What a host is spoken to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// What ALPN gives, HTTP/1 without it.
    Negotiated,
    /// None that the proxy knows: bytes.
    Tcp,
}

/// What carries the bytes to a host.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub(crate) socket: UpstreamSocket,
    /// Protocols to offer in place of the configuration's.
    pub(crate) alpn: Option<Arc<[Vec<u8>]>>,
    /// The name to ask for in place of the configuration's.
    pub(crate) sni: Option<Arc<str>>,
    /// A name that the server must bear.
    pub(crate) must_bear: Option<Arc<str>>,
    /// The host's name.
    pub(crate) hostname: Arc<str>,
}

/// How connections to a host are made.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) host: Arc<Host>,
    pub(crate) options: Rc<ConnectOptions>,
    /// Sent before everything else: the PROXY protocol's.
    pub(crate) header: Option<Rc<[u8]>>,
    pub(crate) timeout: Duration,
    pub(crate) transport: Transport,
    pub(crate) protocol: Protocol,
    pub(crate) http2: http2::Options,
    pub(crate) keepalive: Option<sail_proxy_config::hcm::Http2Keepalive>,
    pub(crate) http1: http1::Options,
    /// What handshakes count in.
    pub(crate) counts: Rc<tls::counts::OfCluster>,
    /// Whether the kernel is asked about connections, and how often.
    pub(crate) tcp_stats: Option<TcpStats>,
    /// Whose secrets are used: those of the moment when a connection is made.
    pub(crate) worker: Rc<Worker>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({}, {:?})", self.host.address, self.protocol)
    }
}

/// A connection as bytes.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) info: Facts,
}

/// A connection that takes requests. The second part is to be driven by a task.
pub(crate) enum Established {
    Http1 { stream: Stream, info: Facts },
    Tcp { stream: Stream, info: Facts },
    Http2 { send: http2::upstream::Connection, driver: http2::upstream::Driver, info: Facts },
}

impl Connector {
    /// Connects and does TLS's handshake, within the cluster's time.
    pub(crate) async fn open(&self) -> Result<Opened, PoolError> {
        tokio::time::timeout(self.timeout, self.open_unbounded()).await.unwrap_or(Err(PoolError::Timeout))
    }

    /// Connects up to a codec that takes requests. The bytes of one that starts here are counted.
    pub(super) async fn establish(&self, traffic: Traffic) -> Result<Established, PoolError> {
        let Opened { stream, info } = self.open().await?;
        let negotiated = info.tls.as_ref().and_then(|tls| tls.info.alpn.as_deref());
        let http2 = match self.protocol {
            Protocol::Tcp => return Ok(Established::Tcp { stream, info }),
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Negotiated => negotiated == Some("h2"),
        };
        if http2 {
            let counts = self.counts.http2(&self.worker.shared.store);
            let (send, driver) =
                http2::upstream::Connection::new(stream, self.http2, self.keepalive, traffic, counts);
            Ok(Established::Http2 { send, driver, info })
        } else {
            Ok(Established::Http1 { stream, info })
        }
    }

    /// Connects to the host, by the first of its addresses that answers: the next one is tried when one fails or is
    /// slow.
    async fn reach(&self) -> std::io::Result<Raw> {
        let first = socket::connect(&self.host.address, &self.options);
        if self.host.additional_addresses.is_empty() {
            return first.await;
        }
        let mut tries = FuturesUnordered::new();
        let mut rest = self.host.additional_addresses.iter();
        tries.push(Box::pin(first));
        let mut last = None;
        loop {
            tokio::select! {
                biased;
                done = tries.next() => match done {
                    Some(Ok(raw)) => return Ok(raw),
                    Some(Err(error)) => last = Some(error),
                    None => return Err(last.unwrap_or_else(|| std::io::Error::other("no address"))),
                },
                () = tokio::time::sleep(NEXT_ADDRESS), if rest.len() > 0 => {}
            }
            if let Some(address) = rest.next() {
                tries.push(Box::pin(socket::connect(address, &self.options)));
            }
        }
    }

    async fn open_unbounded(&self) -> Result<Opened, PoolError> {
        let failed = |error: std::io::Error| {
            let reason = os_reason(&error);
            let text = match &self.host.address {
                // A Unix socket says so at once.
                path @ Address::Pipe(_) => format!("immediate connect error: {reason}|remote address:{path}"),
                _ => format!("delayed connect error: {reason}"),
            };
            PoolError::Connect(text.into())
        };
        let begun = Instant::now();
        let mut raw = self.reach().await.map_err(failed)?;
        let connected = Instant::now();
        let sampled = self.tcp_stats.and_then(|config| {
            let stats = self.counts.tcp(&self.worker.shared.store).clone();
            Sampled::new(config, raw.as_fd(), stats).map(Box::new)
        });
        if let Some(header) = &self.header {
            raw.write_all(header).await.map_err(failed)?;
        }
        let local = match &raw {
            Raw::Tcp(tcp) => tcp.local_addr().ok(),
            Raw::Unix(_) => None,
        };
        let plain = Prefixed::new(Bytes::new(), raw);
        let (stream, tls) = match self.tls()? {
            None => (Stream::Plain(plain), None),
            Some(tls) => {
                let (stream, peer) = tls.connect(plain).await.map_err(|error| {
                    tls::counts::failed(self.counts.get(&self.worker.shared.store), &error);
                    PoolError::Connect(tls::words::failure(&error).into())
                })?;
                tls::counts::succeeded(self.counts.get(&self.worker.shared.store), &peer);
                (stream, Some(Rc::new(peer)))
            }
        };
        let id = self.worker.shared.next_connection.fetch_add(1, Relaxed);
        let handshaken = tls.is_some().then(Instant::now);
        let life = Rc::new(UpstreamLife { begun, connected, handshaken });
        let info = Rc::new(Connection {
            id,
            local,
            tls,
            life,
            requests: Cell::new(0),
            expires: Cell::new(None),
            ending: Ending::default(),
            _sampled: sampled,
        });
        Ok(Opened { stream, info })
    }

    /// TLS with the secrets of this moment; `None` for none.
    fn tls(&self) -> Result<Option<UpstreamTls>, PoolError> {
        let Transport { socket, alpn, sni, must_bear, hostname } = &self.transport;
        let context = match socket {
            UpstreamSocket::Raw => return Ok(None),
            UpstreamSocket::Tls(context) => context,
            UpstreamSocket::ProxyProtocol(_) | UpstreamSocket::Internal(_) | UpstreamSocket::TcpStats(..) => {
                return Err(PoolError::Connect("this transport socket is not supported".into()));
            }
        };
        let name: &str = match sni {
            Some(sni) => sni,
            None if context.auto_host_sni && !hostname.is_empty() => hostname,
            None => &context.sni,
        };
        let bears = must_bear.clone().or_else(|| context.auto_sni_san_validation.then(|| name.into()));
        let active = self.worker.active();
        let client = self.worker.shared.contexts.client(context, &active.snapshot, bears.as_ref()).map_err(
            |error| {
                if let ContextError::Waiting(_) = error {
                    self.counts.get(&self.worker.shared.store).inc(cluster_tls::secrets_not_ready);
                    return PoolError::Connect("TLS error: Secret is not supplied by SDS".into());
                }
                PoolError::Connect(format!("TLS_error: {error}").into())
            },
        )?;
        Ok(Some(UpstreamTls {
            server_name: tls::context::server_name(name, self.host.address.ip()),
            config: client.config,
            alpn: alpn.clone(),
            local: client.local,
        }))
    }
}

/// The system's words without the number that the standard library adds.
fn os_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
