//! `set_filter_state`

use super::{Entry, HttpFilterKind};
use crate::convert::Cx;
use crate::pb::filters::http::set_filter_state::v3 as proto;
use crate::{network_filter, pb};

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.set_filter_state.v3.Config",
    convert: read,
    per_route: None,
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let proto::Config { on_request_headers, clear_route_cache } = cx.unpack(any)?;
    cx.refuse("clear_route_cache", &clear_route_cache);
    let values = cx.each("on_request_headers", on_request_headers, network_filter::filter_state);
    Some(HttpFilterKind::SetFilterState(values.into()))
}
