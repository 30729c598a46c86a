//! `grpc_web`

use super::{Entry, HttpFilterKind};

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    convert: |_, _| Some(HttpFilterKind::GrpcWeb),
    per_route: None,
};
