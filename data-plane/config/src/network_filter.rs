//! Network filters: what a filter chain does with a connection. One file a filter, one table of their types.

mod convert;
mod ext_authz;
mod filter_state;
mod limits;
mod rate_limit;
mod rbac;
mod sni_forward;
mod tcp_proxy;

use std::sync::Arc;

use bytes::Bytes;
use xds_api::istio::{metadata_exchange, stats};

use crate::discovered::Discovered;
use crate::hcm::Hcm;

pub use convert::KNOWN;
pub(crate) use convert::{chain, discoverable, is_discoverable};
pub use ext_authz::NetworkExtAuthz;
pub use filter_state::{FilterStateValue, SetFilterState, Shared};
pub(crate) use filter_state::{filter_state, filter_states};
pub(crate) use limits::token_bucket;
pub use limits::{ConnectionLimit, NetworkLocalRateLimit};
pub use rate_limit::{ConnectionDescriptor, NetworkRateLimit};
pub use rbac::NetworkRbac;
pub use sni_forward::SniForward;
pub use tcp_proxy::{
    ConnectBackoff, ConnectMode, ProxyTlvs, TcpCluster, TcpClusterWeight, TcpProxy, TlvMerge,
    TunnelRequestId, Tunneling,
};

/// A network filter.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// `http_connection_manager`: ends the chain.
    HttpConnectionManager(Arc<Hcm>),
    /// `tcp_proxy`: ends the chain.
    TcpProxy(Arc<TcpProxy>),
    /// `rbac`
    Rbac(Arc<NetworkRbac>),
    /// `ext_authz`
    ExtAuthz(Arc<NetworkExtAuthz>),
    /// `direct_response`: ends the chain.
    DirectResponse(Bytes),
    /// `echo`: ends the chain.
    Echo,
    /// `set_filter_state`
    SetFilterState(Arc<SetFilterState>),
    /// `mongo_proxy`, which lets all pass.
    MongoProxy,
    /// `sni_cluster`: the SNI names the cluster.
    SniCluster,
    /// One whose configuration is a resource of its own.
    Discovered(Arc<Discovered<NetworkFilter>>),
    /// `sni_dynamic_forward_proxy`: the SNI names the host.
    SniForward(Arc<SniForward>),
    /// `ratelimit`
    RateLimit(Arc<NetworkRateLimit>),
    /// `connection_limit`
    ConnectionLimit(Arc<ConnectionLimit>),
    /// `local_ratelimit`
    LocalRateLimit(Arc<NetworkLocalRateLimit>),
    /// `istio.stats`
    IstioStats(Arc<stats::PluginConfig>),
    /// `istio.metadata_exchange`
    MetadataExchange(Arc<metadata_exchange::MetadataExchange>),
}
