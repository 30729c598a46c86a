//! What a proxy can do: Istio's own filters are sent only to one that announces them.

use prost::Name;
use saild_model::{ProxyType, ProxyView};
use xds_api::envoy::extensions::filters::http::wasm::v3::Wasm;
use xds_api::istio::{alpn, metadata_exchange, peer_metadata, stats};

/// The name of the filters that exchange metadata.
pub(crate) const METADATA_EXCHANGE: &str = "istio.metadata_exchange";
/// The name of the filters that keep Istio's metrics.
pub(crate) const STATS: &str = "istio.stats";
/// The name of the filter that chooses the ALPN of upstream connections.
pub(crate) const ALPN: &str = "istio.alpn";

/// A proxy's kind and abilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Traits {
    /// Sidecar or gateway.
    pub kind: ProxyType,
    /// It exchanges metadata in HTTP headers.
    pub http_exchange: bool,
    /// It exchanges metadata at the start of TCP connections.
    pub tcp_exchange: bool,
    /// It keeps Istio's metrics.
    pub stats: bool,
    /// It chooses the ALPN by request.
    pub alpn: bool,
    /// It runs WebAssembly.
    pub wasm: bool,
}

impl Traits {
    /// What a proxy announces.
    pub(crate) fn of(proxy: &ProxyView) -> Self {
        let typed = |name: &str, url: String| {
            // Proxies that list no type URLs are taken at their names.
            let has_types = proxy.extensions.iter().any(|e| e.starts_with("type.googleapis.com/"));
            proxy.has(&url) || !has_types && proxy.has(name)
        };
        Self {
            kind: proxy.kind,
            http_exchange: typed(METADATA_EXCHANGE, peer_metadata::Config::type_url()),
            tcp_exchange: typed(METADATA_EXCHANGE, metadata_exchange::MetadataExchange::type_url()),
            stats: typed(STATS, stats::PluginConfig::type_url()),
            alpn: typed(ALPN, alpn::FilterConfig::type_url()),
            wasm: typed("envoy.filters.http.wasm", Wasm::type_url()),
        }
    }
}
