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
    /// What is written.
    pub value: Map<String, Value>,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let proto::Config { metadata_namespace, value, metadata } = cx.unpack(any)?;
    let mut all = Vec::new();
    if let Some(value) = value {
        let namespace = metadata_namespace.into();
        all.push(SetMetadata { namespace, allow_overwrite: true, value: values::object(value) });
    }
    all.extend(cx.each("metadata", metadata, |cx, value| {
        let proto::Metadata { metadata_namespace, allow_overwrite, value, typed_value } = value;
        cx.refuse("typed_value", &typed_value);
        let value = values::object(value.unwrap_or_default());
        Some(SetMetadata { namespace: metadata_namespace.into(), allow_overwrite, value })
    }));
    Some(HttpFilterKind::SetMetadata(Arc::from(all)))
}
