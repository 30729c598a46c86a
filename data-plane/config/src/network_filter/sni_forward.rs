//! `envoy.filters.network.sni_dynamic_forward_proxy`: the SNI is a name to resolve, and to connect to.

use std::sync::Arc;

use crate::cluster::{DnsCache, dns_cache};
use crate::convert::{Cx, values};
use crate::pb::filters::network::sni_dynamic_forward_proxy::v3::{
    FilterConfig, filter_config::PortSpecifier,
};

/// The network filter `sni_dynamic_forward_proxy`.
#[derive(Debug)]
pub struct SniForward {
    /// Names and their addresses, shared with the cluster.
    pub cache: Arc<DnsCache>,
    /// Where upstreams listen; `None`: at the port that the cluster's transport has.
    pub port: Option<u16>,
    /// Whether the address is kept in filter state.
    pub save_upstream_address: bool,
}

/// `FilterConfig`
pub(super) fn sni_forward(cx: &mut Cx<'_>, value: FilterConfig) -> Option<SniForward> {
    let FilterConfig { dns_cache_config, save_upstream_address, port_specifier } = value;
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => Some(values::port(cx, "port_value", port)?),
        None => None,
    };
    let cache = cx.required("dns_cache_config", dns_cache_config, dns_cache)?;
    Some(SniForward { cache: Arc::new(cache), port, save_upstream_address })
}
