//! `jwt_authn`

use std::sync::Arc;

use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc};
use crate::pb;
use crate::pb::filters::http::jwt_authn::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    convert: |cx, any| Some(HttpFilterKind::JwtAuthn(Arc::new(JwtAuthn { config: cx.unpack(any)? }))),
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
        convert: read_per_route,
    }),
};

/// `jwt_authn`'s configuration, as the verifier takes it.
#[derive(Debug)]
pub struct JwtAuthn {
    /// The message itself.
    pub config: xds_api::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication,
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::per_route_config::RequirementSpecifier;
    let proto::PerRouteConfig { requirement_specifier } = cx.unpack(any)?;
    match requirement_specifier {
        Some(RequirementSpecifier::RequirementName(name)) => {
            Some(PerFilterConfig::JwtRequirement(Some(arc(name))))
        }
        Some(RequirementSpecifier::Disabled(_)) | None => Some(PerFilterConfig::JwtRequirement(None)),
    }
}
