//! `api_key_auth`

use std::sync::Arc;

use http::HeaderName;
use sail_proxy_decide::credentials::{ApiKeys, Credentials, Forwarding, KeySource};
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc};
use crate::pb::filters::http::api_key_auth::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
    convert: |cx, any| {
        let proto::ApiKeyAuth { credentials, key_sources, forwarding } = cx.unpack(any)?;
        Some(HttpFilterKind::ApiKeyAuth(Arc::new(read(cx, credentials, key_sources, forwarding))))
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute",
        convert: |cx, any| {
            let proto::ApiKeyAuthPerRoute { credentials, key_sources, allowed_clients, forwarding } =
                cx.unpack(any)?;
            let keys = read(cx, credentials, key_sources, forwarding);
            let allowed_clients = allowed_clients.into_iter().map(arc).collect();
            Some(PerFilterConfig::typed(ApiKeys { allowed_clients, ..keys }))
        },
    }),
};

fn read(
    cx: &mut Cx<'_>,
    credentials: Vec<proto::Credential>,
    sources: Vec<proto::KeySource>,
    forwarding: Option<proto::Forwarding>,
) -> ApiKeys {
    let mut known = Credentials::default();
    cx.each("credentials", credentials, |cx, value| {
        let proto::Credential { key, client } = value;
        if known.0.insert(key.into(), arc(client)).is_some() {
            cx.error("key", "it stands there twice");
        }
        Some(())
    });
    let sources = cx.each("key_sources", sources, source);
    ApiKeys {
        credentials: (!known.0.is_empty()).then_some(known),
        sources: (!sources.is_empty()).then(|| sources.into()),
        allowed_clients: Box::default(),
        forwarding: cx.option("forwarding", forwarding, |cx, value| {
            let proto::Forwarding { header, hide_credentials } = value;
            let header = match header.as_str() {
                "" => None,
                name => Some(cx.ok("header", HeaderName::try_from(name))?),
            };
            Some(Forwarding { header, hide_credentials })
        }),
    }
}

/// Of several places the header is meant, then the parameter, then the cookie.
fn source(cx: &mut Cx<'_>, value: proto::KeySource) -> Option<KeySource> {
    let proto::KeySource { header, query, cookie } = value;
    match (header.as_str(), query.as_str(), cookie.as_str()) {
        ("", "", "") => {
            cx.error("", "one of header, query, cookie must be set");
            None
        }
        ("", "", cookie) => Some(KeySource::Cookie(cookie.into())),
        ("", query, _) => Some(KeySource::Query(query.into())),
        (header, ..) => Some(KeySource::Header(cx.ok("header", HeaderKey::parse(header))?)),
    }
}
