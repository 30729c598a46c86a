//! `json_to_metadata`

use std::sync::Arc;

use sail_proxy_decide::matcher::FullRegex;
use sail_proxy_decide::route::PerFilterConfig;
use serde_json::Value;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, matchers, values};
use crate::pb;
use crate::pb::filters::http::json_to_metadata::v3 as proto;

const NAME: &str = "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::JsonToMetadata(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute { name: NAME, convert: |cx, any| Some(PerFilterConfig::typed(read(cx, any)?)) }),
};

/// `JsonToMetadata`
#[derive(Debug)]
pub struct JsonToMetadata {
    /// On requests.
    pub request: Option<MatchRules>,
    /// On responses.
    pub response: Option<MatchRules>,
}

/// `MatchRules`
#[derive(Debug)]
pub struct MatchRules {
    /// What is done.
    pub rules: Box<[Rule]>,
    /// Types of content that are read.
    pub content_types: Box<[Box<str>]>,
    /// Others that are.
    pub content_type_regex: Option<FullRegex>,
    /// Whether content without a type is.
    pub allow_empty_content_type: bool,
}

/// `Rule`
#[derive(Debug)]
pub struct Rule {
    /// The way to the value.
    pub path: Box<[Box<str>]>,
    /// What is written if it is there.
    pub on_present: Option<MetadataValue>,
    /// What is written if it is not.
    pub on_missing: Option<MetadataValue>,
    /// What is written if the body cannot be read.
    pub on_error: Option<MetadataValue>,
}

/// `KeyValuePair`
#[derive(Debug)]
pub struct MetadataValue {
    /// The namespace.
    pub namespace: Box<str>,
    /// The key.
    pub key: Box<str>,
    /// In place of what was found.
    pub value: Option<Value>,
    /// What it becomes.
    pub kind: ValueKind,
    /// Whether what is there already stays.
    pub keep: bool,
}

/// `ValueType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// As it is.
    Value,
    /// Text.
    String,
    /// A number.
    Number,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<JsonToMetadata> {
    let proto::JsonToMetadata { request_rules, response_rules } = cx.unpack(any)?;
    if request_rules.is_none() && response_rules.is_none() {
        cx.error("", "request_rules or response_rules must be set");
    }
    Some(JsonToMetadata {
        request: cx.option("request_rules", request_rules, rules),
        response: cx.option("response_rules", response_rules, rules),
    })
}

fn rules(cx: &mut Cx<'_>, value: proto::json_to_metadata::MatchRules) -> Option<MatchRules> {
    let proto::json_to_metadata::MatchRules {
        rules,
        allow_content_types,
        allow_empty_content_type,
        allow_content_types_regex,
    } = value;
    if rules.is_empty() {
        cx.error("rules", "there must be one");
    }
    let content_types = match allow_content_types {
        types if types.is_empty() => Box::from([Box::from("application/json")]),
        types => types.into_iter().map(Box::from).collect(),
    };
    Some(MatchRules {
        rules: cx.each("rules", rules, rule).into(),
        content_types,
        content_type_regex: cx.option(
            "allow_content_types_regex",
            allow_content_types_regex,
            matchers::regex,
        ),
        allow_empty_content_type,
    })
}

fn rule(cx: &mut Cx<'_>, value: proto::json_to_metadata::Rule) -> Option<Rule> {
    use proto::json_to_metadata::selector::Selector;
    let proto::json_to_metadata::Rule { selectors, on_present, on_missing, on_error } = value;
    let path = cx.each("selectors", selectors, |cx, value| match value.selector {
        Some(Selector::Key(key)) if !key.is_empty() => Some(Box::from(key)),
        _ => {
            cx.error("key", "it must be set");
            None
        }
    });
    if path.is_empty() {
        cx.error("selectors", "there must be one");
    }
    if on_present.is_none() && on_missing.is_none() && on_error.is_none() {
        cx.error("", "on_present, on_missing or on_error must be set");
    }
    let on_missing = cx.option("on_missing", on_missing, entry);
    let on_error = cx.option("on_error", on_error, entry);
    for (field, entry) in [("on_missing.value", &on_missing), ("on_error.value", &on_error)] {
        if entry.as_ref().is_some_and(|entry| entry.value.is_none()) {
            cx.error(field, "it must be set");
        }
    }
    Some(Rule {
        path: path.into(),
        on_present: cx.option("on_present", on_present, entry),
        on_missing,
        on_error,
    })
}

fn entry(cx: &mut Cx<'_>, value: proto::json_to_metadata::KeyValuePair) -> Option<MetadataValue> {
    use proto::json_to_metadata::ValueType;
    use proto::json_to_metadata::key_value_pair::ValueType as Given;
    let proto::json_to_metadata::KeyValuePair {
        metadata_namespace,
        key,
        r#type,
        preserve_existing_metadata_value,
        value_type,
    } = value;
    let kind = match ValueType::try_from(r#type) {
        Ok(ValueType::ProtobufValue) => ValueKind::Value,
        Ok(ValueType::String) => ValueKind::String,
        Ok(ValueType::Number) => ValueKind::Number,
        Err(_) => {
            cx.error("type", "it is not known");
            return None;
        }
    };
    if key.is_empty() {
        cx.error("key", "it must be set");
    }
    let namespace = match metadata_namespace.as_str() {
        "" => "envoy.filters.http.json_to_metadata",
        namespace => namespace,
    };
    Some(MetadataValue {
        namespace: namespace.into(),
        key: key.into(),
        value: value_type.map(|Given::Value(value)| values::json(value)),
        kind,
        keep: preserve_existing_metadata_value,
    })
}
