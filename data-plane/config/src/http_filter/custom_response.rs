//! `custom_response`: other answers in place of some.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use sail_proxy_decide::headers::HeaderOps;
use sail_proxy_decide::matcher::tree::MatchTree;
use sail_proxy_decide::route::{PerFilterConfig, Redirect, RedirectPath};
use xds_api::envoy::extensions::http::custom_response::{local_response_policy, redirect_policy};

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, headers, tree, type_name, values};
use crate::hcm::BodyFormat;
use crate::pb;
use crate::pb::filters::http::custom_response::v3 as proto;
use crate::{hcm, route};

const NAME: &str = "envoy.extensions.filters.http.custom_response.v3.CustomResponse";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::CustomResponse(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute { name: NAME, convert: |cx, any| Some(PerFilterConfig::typed(read(cx, any)?)) }),
};

/// `CustomResponse`
#[derive(Debug)]
pub struct CustomResponse {
    /// Which policy a response falls under.
    pub policies: Option<MatchTree<Arc<Policy>>>,
}

/// What becomes of a response.
#[derive(Debug)]
pub enum Policy {
    /// Text of the configuration.
    Local(LocalPolicy),
    /// What another upstream says.
    Redirect(RedirectPolicy),
}

/// `LocalResponsePolicy`
#[derive(Debug)]
pub struct LocalPolicy {
    /// The body.
    pub body: Option<Bytes>,
    /// Its format.
    pub format: Option<BodyFormat>,
    /// The status, if it is another.
    pub status: Option<StatusCode>,
    /// Headers to add.
    pub headers: HeaderOps,
    /// What is told of where the response comes from.
    pub details: Details,
}

/// `response_code_details_action`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Details {
    /// Nothing.
    Clear,
    /// What was told before.
    Keep,
    /// This.
    Set(Box<str>),
}

/// `RedirectPolicy`
#[derive(Debug)]
pub struct RedirectPolicy {
    /// Where the other answer is.
    pub target: Target,
    /// The status, if it is another.
    pub status: Option<StatusCode>,
    /// What is done to the answer.
    pub response: HeaderOps,
    /// What is done to the request.
    pub request: HeaderOps,
}

/// `redirect_action_specifier`
#[derive(Debug)]
pub enum Target {
    /// A URI as a whole.
    Uri {
        /// Whether it is `https`.
        https: bool,
        /// The host.
        authority: HeaderValue,
        /// The path.
        path: PathAndQuery,
    },
    /// Parts of one, in place of the request's.
    Action(Box<Redirect>),
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<CustomResponse> {
    let proto::CustomResponse { custom_response_matcher } = cx.unpack(any)?;
    let policies = cx.option("custom_response_matcher", custom_response_matcher, |cx, value| {
        tree::tree(cx, value, &policy)
    });
    Some(CustomResponse { policies })
}

fn policy(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Arc<Policy>> {
    match type_name(any) {
        "envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy" => {
            local(cx, any).map(|policy| Arc::new(Policy::Local(policy)))
        }
        "envoy.extensions.http.custom_response.redirect_policy.v3.RedirectPolicy" => {
            redirect(cx, any).map(|policy| Arc::new(Policy::Redirect(policy)))
        }
        other => {
            cx.error("", format_args!("there is no custom response {other:?}"));
            None
        }
    }
}

fn status(cx: &mut Cx<'_>, value: Option<pb::UInt32Value>) -> Option<Option<StatusCode>> {
    let Some(value) = value else { return Some(None) };
    let status = u16::try_from(value.value).ok().filter(|code| *code >= 200);
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    cx.ok("status_code", status.ok_or("it is no status of a response")).map(Some)
}

fn added(cx: &mut Cx<'_>, field: &str, options: Vec<pb::core::HeaderValueOption>) -> HeaderOps {
    HeaderOps { add: cx.each(field, options, headers::add).into(), remove: Box::default() }
}

fn local(cx: &mut Cx<'_>, any: &pb::Any) -> Option<LocalPolicy> {
    use local_response_policy::v3::local_response_policy::ResponseCodeDetailsAction;
    let local_response_policy::v3::LocalResponsePolicy {
        body,
        body_format,
        status_code,
        response_headers_to_add,
        response_code_details_action,
    } = cx.unpack(any)?;
    let details = match response_code_details_action {
        None => Details::Clear,
        Some(ResponseCodeDetailsAction::PreserveResponseCodeDetails(_)) => Details::Keep,
        Some(ResponseCodeDetailsAction::ResponseCodeDetails(text)) => Details::Set(text.into()),
    };
    Some(LocalPolicy {
        body: cx.option("body", body, values::data).map(|(bytes, _)| bytes.into()),
        format: cx.option("body_format", body_format, hcm::convert::body_format),
        status: status(cx, status_code)?,
        headers: added(cx, "response_headers_to_add", response_headers_to_add),
        details,
    })
}

fn redirect(cx: &mut Cx<'_>, any: &pb::Any) -> Option<RedirectPolicy> {
    use redirect_policy::v3::redirect_policy::RedirectActionSpecifier;
    let redirect_policy::v3::RedirectPolicy {
        status_code,
        response_headers_to_add,
        request_headers_to_add,
        modify_request_headers_action,
        redirect_action_specifier,
    } = cx.unpack(any)?;
    cx.refuse("modify_request_headers_action", &modify_request_headers_action);
    let target = match redirect_action_specifier {
        Some(RedirectActionSpecifier::Uri(uri)) => cx.within("uri", |cx| target(cx, &uri))?,
        Some(RedirectActionSpecifier::RedirectAction(value)) => {
            let action = cx.within("redirect_action", |cx| route::action::redirect(cx, value))?;
            if !matches!(action.path, None | Some(RedirectPath::Full(_) | RedirectPath::Format(_))) {
                cx.error("redirect_action", "paths are not rewritten here");
            }
            Target::Action(Box::new(action))
        }
        None => {
            cx.error("uri", "uri or redirect_action must be set");
            return None;
        }
    };
    Some(RedirectPolicy {
        target,
        status: status(cx, status_code)?,
        response: added(cx, "response_headers_to_add", response_headers_to_add),
        request: added(cx, "request_headers_to_add", request_headers_to_add),
    })
}

fn target(cx: &mut Cx<'_>, text: &str) -> Option<Target> {
    let uri = cx.ok("", text.parse::<Uri>())?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        cx.error("", format_args!("{text:?} is no absolute URI"));
        return None;
    };
    Some(Target::Uri {
        https: scheme == "https",
        authority: cx.ok("", HeaderValue::from_str(authority.as_str()))?,
        path: uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
    })
}
