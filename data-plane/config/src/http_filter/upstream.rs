//! Filters between the router and an upstream's connection: of clusters (`HttpProtocolOptions.http_filters`) and of routers
//! (`Router.upstream_http_filters`). They see each try, and `upstream_codec` ends them.

use std::sync::Arc;

use super::{Entry, HttpFilter, HttpFilterKind};
use crate::convert::Cx;
use crate::pb;
use crate::pb::filters::http::upstream_codec::v3::UpstreamCodec;

pub(super) const CODEC: Entry = Entry {
    name: "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
    convert: |cx, any| {
        let UpstreamCodec {} = cx.unpack(any)?;
        Some(HttpFilterKind::UpstreamCodec)
    },
    per_route: None,
};

/// The filters before the codec; none where nothing is said.
pub(crate) fn all(cx: &mut Cx<'_>, field: &str, values: Vec<pb::hcm::HttpFilter>) -> Arc<[HttpFilter]> {
    if values.is_empty() {
        return Arc::default();
    }
    let mut filters = cx.each(field, values, |cx, value| {
        let found = super::filter(cx, value)?;
        if let Err(why) = suits(&found.kind) {
            cx.error("", format_args!("{:?} {why}", &*found.name));
        }
        Some(found)
    });
    let is_codec = |filter: &HttpFilter| matches!(filter.kind, HttpFilterKind::UpstreamCodec);
    let last = filters.pop_if(|filter| is_codec(filter));
    if last.is_none() || filters.iter().any(is_codec) {
        cx.error(field, "the upstream codec must be there, once, as the last filter");
    }
    filters.into()
}

/// Whether a filter can stand before an upstream, and why not.
fn suits(kind: &HttpFilterKind) -> Result<(), &'static str> {
    match kind {
        HttpFilterKind::AdmissionControl(_)
        | HttpFilterKind::Buffer(_)
        | HttpFilterKind::CredentialInjector(_)
        | HttpFilterKind::ExtProc(_)
        | HttpFilterKind::HeaderMutation(_)
        | HttpFilterKind::Lua(_)
        | HttpFilterKind::UpstreamCodec
        | HttpFilterKind::Wasm(_) => Ok(()),
        HttpFilterKind::Composite(composite) => {
            let actions =
                composite.actions.iter().flat_map(|action| action.filters.iter().map(|(_, kind)| kind));
            actions.chain(composite.inner.as_deref()).try_for_each(suits)
        }
        HttpFilterKind::Discovered(_) => Err("is found by discovery, which filters of upstreams do not do"),
        _ => Err("is no filter for upstreams"),
    }
}
