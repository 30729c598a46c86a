//! The upstream transport socket that sends a PROXY protocol header before everything else.

use bytes::Bytes;

use super::{UpstreamSocket, upstream_socket};
use crate::convert::Cx;
use crate::listener::{self, PassTlvs};
use crate::pb;

/// PROXY protocol, upstream.
#[derive(Clone, Debug)]
pub struct UpstreamProxyProtocol {
    /// Version 1 or 2.
    pub version: ProxyProtocolVersion,
    /// Which of the downstream header's TLVs are sent on.
    pub pass: PassTlvs,
    /// TLVs of our own, by type; they stand in for those that are sent on.
    pub added: Box<[(u8, Bytes)]>,
    /// What carries the bytes.
    pub inner: UpstreamSocket,
}

/// PROXY protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

pub(super) fn convert(
    cx: &mut Cx<'_>,
    value: xds_api::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
) -> Option<UpstreamProxyProtocol> {
    use xds_api::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
    let ProxyProtocolUpstreamTransport {
        config,
        transport_socket,
        // Connections without addresses are announced as local ones in any case.
        allow_unspecified_address: _,
        // Connections with different headers are never shared.
        tlv_as_pool_key: _,
    } = value;
    let pb::core::ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = config.unwrap_or_default();
    let pass =
        cx.option("config.pass_through_tlvs", pass_through_tlvs, listener::pass_tlvs).unwrap_or_default();
    let added = cx.each("config.added_tlvs", added_tlvs, |cx, entry| {
        let pb::core::TlvEntry { r#type, value, format_string } = entry;
        cx.refuse("format_string", &format_string);
        Some((listener::tlv(cx, "type", r#type)?, Bytes::from(value)))
    });
    let version = if version == 0 { ProxyProtocolVersion::V1 } else { ProxyProtocolVersion::V2 };
    let inner = cx.required("transport_socket", transport_socket, upstream_socket)?;
    if matches!(inner, UpstreamSocket::ProxyProtocol(_)) {
        cx.error("transport_socket", "one PROXY protocol header is enough");
        return None;
    }
    Some(UpstreamProxyProtocol { version, pass, added: added.into(), inner })
}
