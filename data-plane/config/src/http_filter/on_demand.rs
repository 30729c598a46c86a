//! `on_demand`: whatever a request may need is there before requests are served, so there is nothing to fetch for one.

use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::Cx;
use crate::pb::filters::http::on_demand::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    convert: |cx, any| {
        let proto::OnDemand { odcds } = cx.unpack(any)?;
        refuse(cx, odcds.as_ref());
        Some(HttpFilterKind::OnDemand)
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig",
        convert: |cx, any| {
            let proto::PerRouteConfig { odcds } = cx.unpack(any)?;
            refuse(cx, odcds.as_ref());
            Some(PerFilterConfig::typed(()))
        },
    }),
};

fn refuse(cx: &mut Cx<'_>, odcds: Option<&proto::OnDemandCds>) {
    if odcds.is_some() {
        cx.error("odcds", "clusters are not discovered on demand");
    }
}
