//! `rbac`: its rules are shared with the network filter of that name.

use std::sync::Arc;

use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::Cx;
use crate::pb::filters::http::rbac::v3 as proto;
use crate::{pb, rbac};

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.rbac.v3.RBAC",
    convert: read,
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        convert: read_per_route,
    }),
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let value = cx.unpack(any)?;
    Some(HttpFilterKind::Rbac(Arc::new(rbac::http(cx, value)?)))
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    let proto::RbacPerRoute { rbac } = cx.unpack(any)?;
    match rbac {
        None => Some(PerFilterConfig::Rbac(None)),
        Some(value) => cx
            .within("rbac", |cx| rbac::http(cx, value))
            .map(|config| PerFilterConfig::Rbac(Some(Arc::new(config)))),
    }
}
