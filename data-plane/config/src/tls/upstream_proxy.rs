//! The upstream transport socket that sends a PROXY protocol header before everything else.

use bytes::Bytes;
use sail_proxy_decide::format::Format;

use super::{UpstreamSocket, upstream_socket};
use crate::access_log;
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
    pub added: Box<[AddedTlv]>,
    /// What carries the bytes.
    pub inner: UpstreamSocket,
}

/// `TlvEntry`: a TLV of our own.
#[derive(Clone, Debug)]
pub struct AddedTlv {
    /// Its type.
    pub kind: u8,
    /// What it says.
    pub value: TlvValue,
}

/// What a TLV of our own says.
#[derive(Clone, Debug)]
pub enum TlvValue {
    /// These bytes.
    Literal(Bytes),
    /// What the connection makes of this.
    Format(Format),
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
    let added = cx.each("config.added_tlvs", added_tlvs, added_tlv);
    let version = if version == 0 { ProxyProtocolVersion::V1 } else { ProxyProtocolVersion::V2 };
    let inner = cx.required("transport_socket", transport_socket, upstream_socket)?;
    if matches!(inner, UpstreamSocket::ProxyProtocol(_)) {
        cx.error("transport_socket", "one PROXY protocol header is enough");
        return None;
    }
    Some(UpstreamProxyProtocol { version, pass, added: added.into(), inner })
}

/// `TlvEntry`
pub(crate) fn added_tlv(cx: &mut Cx<'_>, entry: pb::core::TlvEntry) -> Option<AddedTlv> {
    let pb::core::TlvEntry { r#type, value, format_string } = entry;
    let kind = listener::tlv(cx, "type", r#type)?;
    let Some(format) = format_string else {
        return Some(AddedTlv { kind, value: TlvValue::Literal(value.into()) });
    };
    if !value.is_empty() {
        cx.error("format_string", "value is set already: a TLV has one of them");
        return None;
    }
    let format = cx.within("format_string", |cx| access_log::text_format(cx, format))?;
    Some(AddedTlv { kind, value: TlvValue::Format(format) })
}
