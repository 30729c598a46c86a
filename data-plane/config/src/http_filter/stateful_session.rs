//! `stateful_session`: clients name the host that served them before, in a cookie or a header.

use std::sync::Arc;

use http::{HeaderName, StatusCode};
use sail_proxy_decide::route::PerFilterConfig;
use sail_proxy_decide::route::hash::CookieHash;
use xds_api::envoy::extensions::http::stateful_session as state;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, type_name, values};
use crate::pb;
use crate::pb::filters::http::stateful_session::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        session(cx, value).map(|config| HttpFilterKind::StatefulSession(Arc::new(config)))
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
        convert: read_per_route,
    }),
};

/// `StatefulSession`
#[derive(Debug)]
pub struct StatefulSession {
    /// How a session is told; `None`: there are no sessions.
    pub state: Option<SessionState>,
    /// Whether no other host will do.
    pub strict: bool,
    /// Under which name statistics are kept, if at all.
    pub stat_prefix: Option<Arc<str>>,
    /// The answer where a session's host is gone, and no other will do.
    pub status_on_not_found: StatusCode,
}

/// `StatefulSessionPerRoute`
#[derive(Debug)]
pub enum StatefulSessionPerRoute {
    /// No sessions.
    Disabled,
    /// These, in place of the filter's.
    Session(StatefulSession),
}

/// How a session is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// By a cookie.
    Cookie(CookieHash),
    /// By a header.
    Header(HeaderName),
    /// By a header of the upstream's, which the host's address is put before.
    Envelope(HeaderName),
}

fn session(cx: &mut Cx<'_>, value: proto::StatefulSession) -> Option<StatefulSession> {
    let proto::StatefulSession { session_state, strict, stat_prefix, status_on_strict_destination_not_found } =
        value;
    let state = match session_state {
        None => None,
        Some(value) => Some(cx.within("session_state", |cx| state(cx, value))?),
    };
    let status_on_not_found = match status_on_strict_destination_not_found {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        code => {
            let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            cx.ok("status_on_strict_destination_not_found", code.ok_or("it is no status"))?
        }
    };
    let stat_prefix = (!stat_prefix.is_empty()).then(|| arc(stat_prefix));
    Some(StatefulSession { state, strict, stat_prefix, status_on_not_found })
}

fn state(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<SessionState> {
    cx.required("typed_config", value.typed_config, |cx, any| match type_name(&any) {
        "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState" => {
            let state::cookie::v3::CookieBasedSessionState { cookie } = cx.unpack(&any)?;
            cx.required("cookie", cookie, self::cookie).map(SessionState::Cookie)
        }
        "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState" => {
            let state::header::v3::HeaderBasedSessionState { name } = cx.unpack(&any)?;
            cx.ok("name", HeaderName::try_from(name)).map(SessionState::Header)
        }
        "envoy.extensions.http.stateful_session.envelope.v3.EnvelopeSessionState" => {
            let state::envelope::v3::EnvelopeSessionState { header } = cx.unpack(&any)?;
            let name =
                cx.required("header", header, |cx, header| cx.ok("name", HeaderName::try_from(header.name)));
            name.map(SessionState::Envelope)
        }
        other => {
            cx.error("", format_args!("there is no session state {other:?}"));
            None
        }
    })
}

fn cookie(cx: &mut Cx<'_>, value: xds_api::envoy::r#type::http::v3::Cookie) -> Option<CookieHash> {
    let xds_api::envoy::r#type::http::v3::Cookie { name, ttl, path, attributes } = value;
    if name.is_empty() {
        cx.error("name", "it must not be empty");
        return None;
    }
    let attribute = |attribute: xds_api::envoy::r#type::http::v3::CookieAttribute| {
        let xds_api::envoy::r#type::http::v3::CookieAttribute { name, value } = attribute;
        if value.is_empty() { name.into() } else { format!("{name}={value}").into() }
    };
    Some(CookieHash {
        name: name.into(),
        ttl: values::duration(cx, "ttl", ttl),
        path: path.into(),
        attributes: attributes.into_iter().map(attribute).collect(),
    })
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::stateful_session_per_route::Override;
    let proto::StatefulSessionPerRoute { r#override } = cx.unpack(any)?;
    let config = match r#override {
        Some(Override::Disabled(_)) => StatefulSessionPerRoute::Disabled,
        Some(Override::StatefulSession(value)) => {
            let session = cx.within("stateful_session", |cx| session(cx, value))?;
            StatefulSessionPerRoute::Session(session)
        }
        None => {
            cx.error("override", "it must be set");
            return None;
        }
    };
    Some(PerFilterConfig::typed(config))
}
