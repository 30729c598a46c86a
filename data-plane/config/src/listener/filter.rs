//! Listener filters: what is done with a connection before a filter chain takes it.

mod convert;
mod predicate;
mod proxy_protocol;

use std::sync::Arc;

use sail_proxy_decide::fraction::RuntimeFlag;
use sail_proxy_decide::rate_limit::TokenBucketConfig;

use crate::discovered::Discovered;
use crate::network_filter::FilterStateValue;

pub(crate) use convert::{kind, listener_filter};
pub use predicate::ListenerPredicate;
pub use proxy_protocol::{PassTlvs, ProxyProtocol, TlvEncoding, TlvLocation, TlvRule};
pub(crate) use proxy_protocol::{pass_tlvs, tlv};

/// Types of listener filters that there are.
pub const KNOWN: &[&str] = &[
    convert::HTTP_INSPECTOR,
    convert::LOCAL_RATE_LIMIT,
    convert::ORIGINAL_DST,
    convert::ORIGINAL_SRC,
    convert::PROXY_PROTOCOL,
    convert::SET_FILTER_STATE,
    convert::TLS_INSPECTOR,
];

/// `ListenerFilter`
#[derive(Debug)]
pub struct ListenerFilter {
    /// Its name.
    pub name: Arc<str>,
    /// Connections for which it does not run.
    pub disabled: Option<ListenerPredicate>,
    /// What it does.
    pub kind: ListenerFilterKind,
}

/// What a listener filter does.
#[derive(Clone, Debug)]
pub enum ListenerFilterKind {
    /// Finds the address that the client connected to.
    OriginalDst,
    /// Connects upstream from the client's address.
    OriginalSrc {
        /// Whether the port is kept as well.
        bind_port: bool,
        /// `SO_MARK` of upstream connections.
        mark: u32,
    },
    /// Finds TLS, its SNI and ALPN.
    TlsInspector {
        /// How much is read at first; `None`: as much as there is.
        initial_read_buffer_size: Option<u32>,
        /// How long a hello may be; longer ones are no TLS.
        max_client_hello_size: usize,
        /// Whether a broken hello closes the connection.
        close_on_parse_error: bool,
        /// Whether a JA3 fingerprint is taken.
        ja3: bool,
        /// Whether a JA4 fingerprint is taken.
        ja4: bool,
    },
    /// Finds HTTP/1 and HTTP/2.
    HttpInspector,
    /// Reads a PROXY protocol header.
    ProxyProtocol(Arc<ProxyProtocol>),
    /// One whose configuration is a resource of its own.
    Discovered(Arc<Discovered<ListenerFilterKind>>),
    /// Sets values that later filters, logs and upstream connections read.
    SetFilterState(Arc<[FilterStateValue]>),
    /// Takes so many connections in a time; others are closed at once.
    LocalRateLimit(Arc<ListenerLocalRateLimit>),
}

/// The listener filter `local_ratelimit`.
#[derive(Clone, Debug)]
pub struct ListenerLocalRateLimit {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// The bucket.
    pub bucket: TokenBucketConfig,
    /// Whether the filter is on.
    pub enabled: RuntimeFlag,
}
