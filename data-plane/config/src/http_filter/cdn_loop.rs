//! `cdn_loop`

use std::sync::Arc;

use http::HeaderValue;

use super::{Entry, HttpFilterKind};
use crate::convert::Cx;
use crate::pb;
use crate::pb::filters::http::cdn_loop::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.cdn_loop.v3.CdnLoopConfig",
    convert: |cx, any| Some(HttpFilterKind::CdnLoop(Arc::new(read(cx, any)?))),
    per_route: None,
};

/// `CdnLoopConfig`
#[derive(Debug)]
pub struct CdnLoop {
    /// Our name among CDNs.
    pub id: Box<str>,
    /// The same, as it is written into the header.
    pub value: HeaderValue,
    /// How often a request may have been here.
    pub max: usize,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<CdnLoop> {
    let proto::CdnLoopConfig { cdn_id, max_allowed_occurrences } = cx.unpack(any)?;
    let known = sail_proxy_decide::cdn_loop::count(&cdn_id, &cdn_id) == Ok(1);
    let value = HeaderValue::from_str(&cdn_id).ok().filter(|_| known);
    let value = cx.ok("cdn_id", value.ok_or(format!("{cdn_id:?} is not a CDN's id")))?;
    let max = usize::try_from(max_allowed_occurrences).unwrap_or(usize::MAX);
    Some(CdnLoop { id: cdn_id.into(), value, max })
}
