//! `cors`: routes and virtual hosts hold its policies.

use std::sync::Arc;

use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::Cx;
use crate::{pb, route};

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.cors.v3.Cors",
    convert: |_, _| Some(HttpFilterKind::Cors),
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        convert: read_per_route,
    }),
};

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    let value = cx.unpack(any)?;
    route::cors::filter_policy(cx, value).map(|policy| PerFilterConfig::Cors(Arc::new(policy)))
}
