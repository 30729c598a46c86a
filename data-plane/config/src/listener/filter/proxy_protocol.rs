//! The listener filter `proxy_protocol`, and which of its TLVs go upstream.

use std::sync::Arc;

use crate::convert::{Cx, arc};
use crate::pb;
use crate::tls::ProxyProtocolVersion;

/// `ProxyProtocol`
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// What its statistics are called; may be empty.
    pub stat_prefix: Arc<str>,
    /// Whether connections without a header pass.
    pub allow_without: bool,
    /// Versions that are not let through.
    pub disallowed: Box<[ProxyProtocolVersion]>,
    /// TLVs that become metadata, or filter state.
    pub rules: Box<[TlvRule]>,
    /// Which of the two.
    pub location: TlvLocation,
    /// TLVs that may go upstream.
    pub pass: PassTlvs,
}

/// `TlvLocation`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvLocation {
    /// Dynamic metadata, by namespace and key.
    DynamicMetadata,
    /// One object of filter state, by key.
    FilterState,
}

/// A TLV that becomes metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlvRule {
    /// The TLV's type.
    pub tlv_type: u8,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key within it.
    pub key: Arc<str>,
    /// How bytes become text.
    pub encoding: TlvEncoding,
}

/// How a TLV's bytes become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvEncoding {
    /// What is not UTF-8 becomes `!`.
    SanitizedUtf8,
    /// Base64.
    Base64,
}

/// `ProxyProtocolPassThroughTLVs`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PassTlvs {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of these types.
    Only(Box<[u8]>),
}

impl PassTlvs {
    /// Whether a TLV of this type passes.
    pub fn passes(&self, tlv_type: u8) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(types) => types.contains(&tlv_type),
        }
    }
}

const NAMESPACE: &str = "envoy.filters.listener.proxy_protocol";

pub(super) fn proxy_protocol(
    cx: &mut Cx<'_>,
    value: pb::filters::listener::proxy_protocol::v3::ProxyProtocol,
) -> Option<ProxyProtocol> {
    use pb::filters::listener::proxy_protocol::v3 as pp;
    let pp::ProxyProtocol {
        rules,
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
        tlv_location,
    } = value;
    let location = match pp::proxy_protocol::TlvLocation::try_from(tlv_location) {
        Ok(pp::proxy_protocol::TlvLocation::DynamicMetadata) => TlvLocation::DynamicMetadata,
        Ok(pp::proxy_protocol::TlvLocation::FilterState) => TlvLocation::FilterState,
        Err(_) => {
            cx.error("tlv_location", "it is not known");
            return None;
        }
    };
    let rules = cx.each("rules", rules, rule);
    let disallowed = disallowed_versions
        .into_iter()
        .map(|version| if version == 0 { ProxyProtocolVersion::V1 } else { ProxyProtocolVersion::V2 });
    Some(ProxyProtocol {
        stat_prefix: arc(stat_prefix),
        allow_without: allow_requests_without_proxy_protocol,
        disallowed: disallowed.collect(),
        rules: rules.into(),
        location,
        pass: cx.option("pass_through_tlvs", pass_through_tlvs, pass_tlvs).unwrap_or_default(),
    })
}

fn rule(
    cx: &mut Cx<'_>,
    value: pb::filters::listener::proxy_protocol::v3::proxy_protocol::Rule,
) -> Option<TlvRule> {
    use pb::filters::listener::proxy_protocol::v3::proxy_protocol::{
        KeyValuePair, Rule, key_value_pair::ValueStringEncoding,
    };
    let Rule { tlv_type, on_tlv_present } = value;
    let tlv_type = tlv(cx, "tlv_type", tlv_type)?;
    let KeyValuePair { metadata_namespace, key, value_string_encoding } = on_tlv_present?;
    let encoding = match ValueStringEncoding::try_from(value_string_encoding) {
        Ok(ValueStringEncoding::Unspecified | ValueStringEncoding::SanitizedUtf8) => {
            TlvEncoding::SanitizedUtf8
        }
        Ok(ValueStringEncoding::Base64) => TlvEncoding::Base64,
        Err(_) => {
            cx.error("on_tlv_present.value_string_encoding", "it is not known");
            return None;
        }
    };
    let namespace = if metadata_namespace.is_empty() { NAMESPACE.to_owned() } else { metadata_namespace };
    Some(TlvRule { tlv_type, namespace: arc(namespace), key: arc(key), encoding })
}

/// `ProxyProtocolPassThroughTLVs`
pub(crate) fn pass_tlvs(cx: &mut Cx<'_>, value: pb::core::ProxyProtocolPassThroughTlVs) -> Option<PassTlvs> {
    use pb::core::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
    let pb::core::ProxyProtocolPassThroughTlVs { match_type, tlv_type } = value;
    match PassTlVsMatchType::try_from(match_type) {
        Ok(PassTlVsMatchType::IncludeAll) => Some(PassTlvs::All),
        Ok(PassTlVsMatchType::Include) => {
            let types = cx.each("tlv_type", tlv_type, |cx, value| tlv(cx, "", value));
            Some(PassTlvs::Only(types.into()))
        }
        Err(_) => {
            cx.error("match_type", "it is not known");
            None
        }
    }
}

/// A TLV's type.
pub(crate) fn tlv(cx: &mut Cx<'_>, field: &str, value: u32) -> Option<u8> {
    cx.ok(field, u8::try_from(value).map_err(|_| format!("{value} is above 255")))
}
