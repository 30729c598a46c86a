//! `connect_grpc_bridge`

use super::{Entry, HttpFilterKind};
use crate::pb::filters::http::connect_grpc_bridge::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.connect_grpc_bridge.v3.FilterConfig",
    convert: |cx, any| {
        let proto::FilterConfig {} = cx.unpack(any)?;
        Some(HttpFilterKind::ConnectGrpcBridge)
    },
    per_route: None,
};
