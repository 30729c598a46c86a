//! `buffer`

use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::Cx;
use crate::pb;
use crate::pb::filters::http::buffer::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.buffer.v3.Buffer",
    convert: read,
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        convert: read_per_route,
    }),
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let value = cx.unpack(any)?;
    limit(cx, &value).map(HttpFilterKind::Buffer)
}

fn limit(cx: &mut Cx<'_>, value: &proto::Buffer) -> Option<u32> {
    let proto::Buffer { max_request_bytes } = value;
    cx.required("max_request_bytes", *max_request_bytes, |_, value| Some(value.value))
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::buffer_per_route::Override;
    let proto::BufferPerRoute { r#override } = cx.unpack(any)?;
    match r#override {
        Some(Override::Buffer(buffer)) => {
            cx.within("buffer", |cx| limit(cx, &buffer)).map(|limit| PerFilterConfig::Buffer(Some(limit)))
        }
        Some(Override::Disabled(_)) => Some(PerFilterConfig::Buffer(None)),
        None => {
            cx.error("override", "it must be set");
            None
        }
    }
}
