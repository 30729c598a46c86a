//! `wasm`

use std::sync::Arc;

use super::{Entry, HttpFilterKind};
use crate::convert::Cx;
use crate::pb;
use crate::pb::filters::http::wasm::v3 as proto;
use crate::wasm;

pub(super) const ENTRY: Entry =
    Entry { name: "envoy.extensions.filters.http.wasm.v3.Wasm", convert: read, per_route: None };

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let proto::Wasm { config } = cx.unpack(any)?;
    let plugin = cx.required("config", config, wasm::plugin)?;
    Some(HttpFilterKind::Wasm(Arc::new(plugin)))
}
