//! `set_metadata`

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Entry, HttpFilterKind};
use crate::convert::{Cx, values};
use crate::pb;
use crate::pb::filters::http::set_metadata::v3 as proto;

pub(super) const ENTRY: Entry =
    Entry { name: "envoy.extensions.filters.http.set_metadata.v3.Config", convert: read, per_route: None };

/// An entry of `metadata`.
#[derive(Debug)]
pub struct SetMetadata {
    /// The namespace.
    pub namespace: Box<str>,
    /// Whether a namespace that is there is written into.
    pub allow_overwrite: bool,
    /// What is written; `None`: only a message is.
    pub value: Option<Map<String, Value>>,
    /// The message that is written.
    pub typed: Option<pb::Any>,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let proto::Config { metadata_namespace, value, metadata } = cx.unpack(any)?;
    let mut all = Vec::new();
    if let Some(value) = value {
        let namespace = metadata_namespace.into();
        let value = Some(values::object(value));
        all.push(SetMetadata { namespace, allow_overwrite: true, value, typed: None });
    }
    all.extend(cx.each("metadata", metadata, |_, value| {
        let proto::Metadata { metadata_namespace, allow_overwrite, value, typed_value } = value;
        // Where there are both, the message is nothing, as in Envoy.
        let typed = typed_value.filter(|_| value.is_none());
        let value = match value {
            None if typed.is_some() => None,
            value => Some(values::object(value.unwrap_or_default())),
        };
        let namespace = metadata_namespace.into();
        Some(SetMetadata { namespace, allow_overwrite, value, typed })
    }));
    Some(HttpFilterKind::SetMetadata(Arc::from(all)))
}
