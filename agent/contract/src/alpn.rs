//! ALPN lists between proxies, and what each name means.

/// A peer of the mesh that speaks TCP through, without peer metadata.
pub const ISTIO: &str = "istio";
/// A peer of the mesh that exchanges metadata before a TCP stream.
pub const ISTIO_PEER_EXCHANGE: &str = "istio-peer-exchange";
/// HTTP/1.0 over mesh mTLS.
pub const ISTIO_HTTP_10: &str = "istio-http/1.0";
/// HTTP/1.1 over mesh mTLS.
pub const ISTIO_HTTP_11: &str = "istio-http/1.1";
/// HTTP/2 over mesh mTLS.
pub const ISTIO_H2: &str = "istio-h2";
/// HTTP/2.
pub const H2: &str = "h2";
/// HTTP/1.1.
pub const HTTP_11: &str = "http/1.1";
/// HTTP/1.0.
pub const HTTP_10: &str = "http/1.0";

/// Offered to an mTLS upstream whose protocol is TCP.
pub const MESH_TCP_UPSTREAM: [&str; 2] = [ISTIO_PEER_EXCHANGE, ISTIO];
/// Offered to an mTLS upstream that speaks HTTP/1.1.
pub const MESH_HTTP1_UPSTREAM: [&str; 1] = [ISTIO];
/// Offered to an mTLS upstream that speaks HTTP/2.
pub const MESH_H2_UPSTREAM: [&str; 2] = [ISTIO, H2];
/// Offered by an inbound HTTP chain over mTLS.
pub const HTTP_DOWNSTREAM: [&str; 2] = [H2, HTTP_11];
/// Offered by an inbound TCP chain over mTLS.
pub const TCP_DOWNSTREAM: [&str; 4] = [ISTIO_PEER_EXCHANGE, H2, HTTP_11, HTTP_10];
/// What marks HTTP over mesh mTLS in a filter-chain match.
pub const MESH_HTTP: [&str; 3] = [ISTIO_HTTP_10, ISTIO_HTTP_11, ISTIO_H2];
/// What marks plain HTTP in a filter-chain match.
pub const PLAINTEXT_HTTP: [&str; 3] = [HTTP_10, HTTP_11, "h2c"];
