//! The seam to `sail-proxy-config`: protobuf in, runtime types out, or why not.

use std::sync::Arc;

use sail_proxy_config::cluster::Cluster;
use sail_proxy_config::http_filter::HttpFilterKind;
use sail_proxy_config::listener::Listener;
use sail_proxy_config::network_filter::NetworkFilter;

use crate::observe::check_istio_stats;

/// What the conversion leaves to this crate to check: configurations that stay messages.
pub(super) fn check_listener(listener: &Listener) -> Result<(), String> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    for chain in chains {
        for filter in chain.filters.iter() {
            let config = match filter {
                NetworkFilter::IstioStats(config) => Some(config),
                NetworkFilter::HttpConnectionManager(hcm) => {
                    hcm.http_filters.iter().find_map(|filter| match &filter.kind {
                        HttpFilterKind::IstioStats(config) => Some(config),
                        _ => None,
                    })
                }
                _ => None,
            };
            if let Some(config) = config {
                check_istio_stats(config)
                    .map_err(|reason| format!("filter chain {:?}: istio.stats: {reason}", chain.name))?;
            }
        }
    }
    Ok(())
}

/// Whether the cluster's hosts are names to resolve.
pub(super) fn is_dns(cluster: &Arc<Cluster>) -> bool {
    use sail_proxy_config::cluster::Discovery;
    matches!(cluster.discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_))
}

const PENDING: &str = "conversion is not there yet";

pub(super) fn cluster(
    _message: &xds_api::envoy::config::cluster::v3::Cluster,
) -> Result<Arc<Cluster>, String> {
    Err(PENDING.to_owned())
}

pub(super) fn listener(
    _message: &xds_api::envoy::config::listener::v3::Listener,
) -> Result<Arc<Listener>, String> {
    Err(PENDING.to_owned())
}

pub(super) fn endpoints(
    _message: &xds_api::envoy::config::endpoint::v3::ClusterLoadAssignment,
    _previous: Option<&sail_proxy_decide::host::Endpoints>,
) -> Result<Arc<sail_proxy_decide::host::Endpoints>, String> {
    Err(PENDING.to_owned())
}

pub(super) fn route(
    _message: &xds_api::envoy::config::route::v3::RouteConfiguration,
) -> Result<Arc<sail_proxy_decide::route::RouteTable>, String> {
    Err(PENDING.to_owned())
}

pub(super) fn secret(
    _message: &xds_api::envoy::extensions::transport_sockets::tls::v3::Secret,
) -> Result<sail_proxy_config::secret::Secret, String> {
    Err(PENDING.to_owned())
}
