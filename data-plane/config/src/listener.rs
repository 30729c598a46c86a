//! Listeners and their filter chains.

pub(crate) mod convert;
mod filter;

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::address::Address;
use sail_proxy_decide::filter_chain::{Connection, FilterChainIndex};
use sail_proxy_decide::route::Metadata;

use crate::access_log::AccessLog;
use crate::network_filter::NetworkFilter;
use crate::tls::DownstreamSocket;

pub use filter::{
    KNOWN, ListenerFilter, ListenerFilterKind, ListenerLocalRateLimit, ListenerPredicate, PassTlvs,
    ProxyProtocol, TlvEncoding, TlvLocation, TlvRule,
};
pub(crate) use filter::{kind as filter_kind, pass_tlvs, tlv};

/// `Listener`
#[derive(Debug)]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// What its statistics are called; empty: by its address.
    pub stat_prefix: Arc<str>,
    /// Where it listens; the first is the main one.
    pub addresses: Box<[Address]>,
    /// What is asked of the sockets of each address, in the same order.
    pub sockets: Box<[SocketSettings]>,
    /// Whether it has sockets of its own, or takes connections that another hands over.
    pub bind_to_port: bool,
    /// Whether it hands connections over to the listener of their original destination.
    pub use_original_dst: bool,
    /// Whether its sockets are transparent (TPROXY).
    pub transparent: bool,
    /// Whether its sockets bind to addresses that are not there yet.
    pub freebind: bool,
    /// Whether each worker has its own socket.
    pub reuse_port: bool,
    /// The queue of TCP Fast Open.
    pub tcp_fast_open_queue_length: Option<u32>,
    /// The queue of `listen`; 128 by default.
    pub tcp_backlog_size: Option<u32>,
    /// Which way its traffic goes.
    pub traffic_direction: TrafficDirection,
    /// Run in order on every new connection.
    pub listener_filters: Box<[ListenerFilter]>,
    /// How long they may take; `None`: for ever.
    pub listener_filters_timeout: Option<Duration>,
    /// Whether a connection goes on when they take too long.
    pub continue_on_listener_filters_timeout: bool,
    /// The chains, in configuration's order.
    pub filter_chains: Box<[Arc<FilterChain>]>,
    /// Which of them takes a connection.
    pub index: FilterChainIndex,
    /// What takes a connection that none of them takes.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Logs of connections that no chain took, and the like.
    pub access_logs: Box<[Arc<AccessLog>]>,
    /// How much a connection may buffer.
    pub per_connection_buffer_limit: u32,
    /// When its connections drain.
    pub drain_type: DrainType,
    /// Whether it does not count against the limit of all connections.
    pub ignore_global_conn_limit: bool,
    /// Whether it takes connections on overload, too.
    pub bypass_overload_manager: bool,
    /// Metadata, by namespace.
    pub metadata: Metadata,
    /// A hash of the protobuf that it was built from: an equal one is not built again.
    pub version: u64,
    /// The same without the filter chains: while it stays, a change concerns the connections of other chains alone.
    pub frame: u64,
}

/// What is asked of the sockets of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketSettings {
    /// Whether an IPv6 address takes IPv4 connections as well.
    pub ipv4_compat: bool,
    /// The mode of a Unix socket's file; `None`: as the process' mask has it.
    pub mode: Option<u32>,
    /// Options.
    pub options: Box<[SocketOption]>,
    /// Keep-alive of its connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
}

/// `TrafficDirection`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficDirection {
    /// Not said.
    #[default]
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// `Listener.DrainType`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainType {
    /// On updates, shutdown and failed health checks.
    #[default]
    Default,
    /// On updates and shutdown only.
    ModifyOnly,
}

/// `SocketOption`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// `SOL_SOCKET`, `IPPROTO_TCP`, …
    pub level: i32,
    /// The option's number.
    pub name: i32,
    /// Its value.
    pub value: SocketOptionValue,
    /// When it is set.
    pub state: SocketState,
}

/// The value of a socket option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketOptionValue {
    /// A number.
    Int(i32),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// When a socket option is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Before `bind`.
    Prebind,
    /// After `bind`.
    Bound,
    /// After `listen`.
    Listening,
}

/// `TcpKeepalive`; `None`: as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// How many probes.
    pub probes: Option<u32>,
    /// How long idle before the first.
    pub time: Option<Duration>,
    /// How long between them.
    pub interval: Option<Duration>,
}

/// `FilterChain`
#[derive(Debug)]
pub struct FilterChain {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// How bytes are carried.
    pub socket: DownstreamSocket,
    /// How long the TLS handshake may take; `None`: for ever.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// Its network filters; the last one ends the chain.
    pub filters: Box<[NetworkFilter]>,
    /// Metadata, by namespace.
    pub metadata: Metadata,
    /// A hash of the protobuf that it was built from.
    pub version: u64,
}

impl Listener {
    /// The chain for a connection; `None`: it is closed.
    pub fn find_chain(&self, connection: &Connection<'_>) -> Option<&Arc<FilterChain>> {
        let found = self.index.find(connection).and_then(|index| self.filter_chains.get(index));
        found.or(self.default_filter_chain.as_ref())
    }

    /// Whether this version takes the place of another without more than filter chains being touched.
    pub fn is_in_place(old: &Self, new: &Self) -> bool {
        old.frame == new.frame && !new.filter_chains.is_empty()
    }

    /// All chains.
    pub fn chains(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.filter_chains.iter().chain(&self.default_filter_chain)
    }
}
