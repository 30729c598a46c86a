//! `header_to_metadata`

use std::sync::Arc;

use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::matcher::RegexRewrite;
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, matchers};
use crate::pb;
use crate::pb::filters::http::header_to_metadata::v3 as proto;

const NAME: &str = "envoy.extensions.filters.http.header_to_metadata.v3.Config";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::HeaderToMetadata(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute { name: NAME, convert: |cx, any| Some(PerFilterConfig::typed(read(cx, any)?)) }),
};

/// `Config`
#[derive(Debug)]
pub struct HeaderToMetadata {
    /// What its statistics are called; `None`: there are none.
    pub stat_prefix: Option<Arc<str>>,
    /// On requests.
    pub request: Box<[Rule]>,
    /// On responses.
    pub response: Box<[Rule]>,
}

/// `Rule`
#[derive(Debug)]
pub struct Rule {
    /// What is looked at.
    pub source: Source,
    /// What is written if it is there.
    pub on_present: Option<MetadataEntry>,
    /// What is written if it is not.
    pub on_missing: Option<MetadataEntry>,
    /// Whether the header is taken out.
    pub remove: bool,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A header.
    Header(HeaderKey),
    /// A cookie.
    Cookie(Box<str>),
}

/// `KeyValuePair`
#[derive(Debug)]
pub struct MetadataEntry {
    /// The namespace.
    pub namespace: Box<str>,
    /// The key.
    pub key: Box<str>,
    /// In place of the header's value; empty for that.
    pub value: Box<str>,
    /// What is made of the value.
    pub rewrite: Option<RegexRewrite>,
    /// What it is taken for.
    pub kind: ValueKind,
    /// Whether it is Base64.
    pub base64: bool,
}

/// `ValueType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Text.
    String,
    /// A number.
    Number,
    /// An encoded `google.protobuf.Value`.
    Protobuf,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HeaderToMetadata> {
    let proto::Config { request_rules, response_rules, stat_prefix } = cx.unpack(any)?;
    Some(HeaderToMetadata {
        stat_prefix: (!stat_prefix.is_empty()).then(|| stat_prefix.into()),
        request: cx.each("request_rules", request_rules, rule).into(),
        response: cx.each("response_rules", response_rules, rule).into(),
    })
}

fn rule(cx: &mut Cx<'_>, value: proto::config::Rule) -> Option<Rule> {
    let proto::config::Rule { header, cookie, on_header_present, on_header_missing, remove } = value;
    let source = match (header.as_str(), cookie.as_str()) {
        (header, "") if !header.is_empty() => Source::Header(cx.ok("header", HeaderKey::parse(header))?),
        ("", cookie) if !cookie.is_empty() => {
            if remove {
                cx.error("remove", "cookies are not removed");
            }
            Source::Cookie(cookie.into())
        }
        _ => {
            cx.error("", "either header or cookie must be set");
            return None;
        }
    };
    if on_header_present.is_none() && on_header_missing.is_none() {
        cx.error("", "on_header_present or on_header_missing must be set");
    }
    let on_missing = cx.option("on_header_missing", on_header_missing, entry);
    if on_missing.as_ref().is_some_and(|entry| entry.value.is_empty()) {
        cx.error("on_header_missing.value", "it must be set");
    }
    Some(Rule {
        source,
        on_present: cx.option("on_header_present", on_header_present, entry),
        on_missing,
        remove,
    })
}

fn entry(cx: &mut Cx<'_>, value: proto::config::KeyValuePair) -> Option<MetadataEntry> {
    use proto::config::{ValueEncode, ValueType};
    let proto::config::KeyValuePair { metadata_namespace, key, value, regex_value_rewrite, r#type, encode } =
        value;
    let kind = match ValueType::try_from(r#type) {
        Ok(ValueType::String) => ValueKind::String,
        Ok(ValueType::Number) => ValueKind::Number,
        Ok(ValueType::ProtobufValue) => ValueKind::Protobuf,
        Err(_) => {
            cx.error("type", "it is not known");
            return None;
        }
    };
    if regex_value_rewrite.is_some() && !value.is_empty() {
        cx.error("regex_value_rewrite", "it cannot be set together with value");
    }
    if key.is_empty() {
        cx.error("key", "it must be set");
    }
    let namespace = match metadata_namespace.as_str() {
        "" => "envoy.filters.http.header_to_metadata",
        namespace => namespace,
    };
    Some(MetadataEntry {
        namespace: namespace.into(),
        key: key.into(),
        value: value.into(),
        rewrite: cx.option("regex_value_rewrite", regex_value_rewrite, matchers::rewrite),
        kind,
        base64: encode == ValueEncode::Base64 as i32,
    })
}
