//! `basic_auth`

use std::sync::Arc;

use http::HeaderName;
use sail_proxy_decide::credentials::Users;
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, values};
use crate::pb;
use crate::pb::filters::http::basic_auth::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
    convert: |cx, any| Some(HttpFilterKind::BasicAuth(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.basic_auth.v3.BasicAuthPerRoute",
        convert: |cx, any| {
            let proto::BasicAuthPerRoute { users } = cx.unpack(any)?;
            cx.required("users", users, self::users).map(PerFilterConfig::typed)
        },
    }),
};

/// `BasicAuth`
#[derive(Debug)]
pub struct BasicAuth {
    /// Who may pass.
    pub users: Users,
    /// The header that tells the upstream who it is.
    pub forward_username_header: Option<HeaderName>,
    /// Where credentials stand.
    pub header: HeaderKey,
    /// Whether requests without credentials pass.
    pub allow_missing: bool,
    /// Whether the name goes into dynamic metadata.
    pub emit_dynamic_metadata: bool,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<BasicAuth> {
    let proto::BasicAuth {
        users,
        forward_username_header,
        authentication_header,
        allow_missing,
        emit_dynamic_metadata,
    } = cx.unpack(any)?;
    let forward = match forward_username_header.as_str() {
        "" => None,
        name => Some(cx.ok("forward_username_header", HeaderName::try_from(name))?),
    };
    let header = match authentication_header.as_str() {
        "" => HeaderKey::Name(http::header::AUTHORIZATION),
        name => cx.ok("authentication_header", HeaderKey::parse(name))?,
    };
    Some(BasicAuth {
        users: cx.required("users", users, self::users)?,
        forward_username_header: forward,
        header,
        allow_missing,
        emit_dynamic_metadata,
    })
}

fn users(cx: &mut Cx<'_>, value: pb::core::DataSource) -> Option<Users> {
    let text = values::text(cx, value)?;
    cx.ok("", Users::parse(&text))
}
