//! Envoy's and Istio's protobufs as Rust types, their type URLs, and their JSON and YAML form. No logic lives here.

pub mod any;
pub mod codec;
pub mod type_url;

pub use envoy_types::pb::{envoy, google, opentelemetry, udpa, xds};

/// Istio's own messages: the certificate service, the name table, workload addresses and the filters' configurations.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod istio {
    mod generated {
        include!(concat!(env!("OUT_DIR"), "/istio_protos.rs"));
    }
    /// `envoy.tcp.metadataexchange.config`: who the TCP peer is.
    pub use generated::envoy::tcp::metadataexchange::config as metadata_exchange;
    /// `io.istio.http.peer_metadata`: who the HTTP peer is.
    pub use generated::io::istio::http::peer_metadata;
    /// `istio.envoy.config.filter.http.alpn.v2alpha1`: the filter that chooses the ALPN of upstream connections.
    pub use generated::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn;
    /// `istio.networking.nds.v1`: the name table of the agent's DNS server.
    pub use generated::istio::networking::nds::v1 as nds;
    /// `istio.v1.auth`: the certificate service.
    pub use generated::istio::v1::auth;
    /// `istio.workload`: workload discovery.
    pub use generated::istio::workload;
    /// `stats`: Istio's standard metrics.
    pub use generated::stats;
}
