//! `grpc_http1_bridge`

use super::{Entry, HttpFilterKind};
use crate::pb::filters::http::grpc_http1_bridge::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config",
    convert: |cx, any| {
        let proto::Config { upgrade_protobuf_to_grpc, ignore_query_parameters } = cx.unpack(any)?;
        Some(HttpFilterKind::GrpcHttp1Bridge(GrpcHttp1Bridge {
            upgrade_protobuf: upgrade_protobuf_to_grpc,
            ignore_query: ignore_query_parameters,
        }))
    },
    per_route: None,
};

/// `grpc_http1_bridge`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcHttp1Bridge {
    /// Whether plain protobuf becomes gRPC.
    pub upgrade_protobuf: bool,
    /// Whether queries are cut off.
    pub ignore_query: bool,
}
