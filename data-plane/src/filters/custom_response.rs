//! `envoy.filters.http.custom_response`: other answers in place of some, from the configuration or from elsewhere.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri};
use sail_proxy_config::http_filter::custom_response::{CustomResponse, Details, LocalPolicy, Policy, Target};
use sail_proxy_decide::cel::Program;
use sail_proxy_decide::head::{HeaderKey, joined};
use sail_proxy_decide::matcher::tree::{Data, Input};
use sail_proxy_decide::rbac;
use serde_json::Value;

use super::rbac::Subject;
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::access_log::{self, LogType, View};
use crate::http::again::Again;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::{self, LocalReply};
use crate::stats::sets::http_custom_response as stats;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<CustomResponse>,
    stats: stats::Scope,
}

impl Filter {
    pub(super) fn new(config: &Arc<CustomResponse>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), stats: build.store.scope(build.prefix) }
    }

    /// What every level of the route says, the most specific first, and what the filter says.
    fn levels(&self, exchange: &Exchange, name: &str) -> Vec<Arc<CustomResponse>> {
        let mut all = Vec::new();
        if let Some(found) = exchange.routed.get().as_ref() {
            let levels = [
                found.weighted.as_ref().map(|weighted| &weighted.per_filter),
                found.route.as_ref().map(|route| &route.per_filter),
                Some(&found.virtual_host.per_filter),
                Some(&found.table.per_filter),
            ];
            let configs = levels.into_iter().flatten().filter_map(|level| level.get(name)?.get());
            all.extend(configs);
        }
        all.push(self.config.clone());
        all
    }

    /// Has the request answered elsewhere; says whether it will be.
    fn redirect(
        &self,
        exchange: &Exchange,
        name: &str,
        policy: &Arc<Policy>,
        mut head: Head,
        status: StatusCode,
    ) -> bool {
        let Policy::Redirect(to) = &**policy else { return false };
        // What the client still sends cannot be sent anew.
        if !exchange.request_done.get() {
            return false;
        }
        if retarget(exchange, &mut head, &to.target).is_none() {
            self.stats.inc(stats::custom_response_invalid_uri);
            return false;
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            head.method = Method::GET;
        }
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(TRANSFER_ENCODING);
        let mut headers = std::mem::take(&mut head.headers);
        exchange.with_attributes(&head, |attributes| to.request.apply(&mut headers, attributes));
        head.headers = headers;
        let before = exchange.routed.clone();
        exchange.find_route(&head);
        let found = exchange.routed.get().as_ref().is_some_and(|found| found.route.is_some());
        exchange.routed.restore(&before);
        if !found {
            self.stats.inc(stats::custom_response_redirect_no_route);
            return false;
        }
        let kept: Box<dyn Any> = Box::new(Kept::Substitute(policy.clone(), status));
        exchange.begin_again(status, Again { head, body: Body::Empty, kept: Some((name.into(), kept)) });
        true
    }
}

/// What is kept until the response.
enum Kept {
    /// What the client asked for, which matchers look at.
    Asked(Box<Head>),
    /// The response is another's substitute, by this policy, in the place of a response of this status.
    Substitute(Arc<Policy>, StatusCode),
}

/// Makes the response that came from elsewhere the client's.
fn substitute(exchange: &Exchange, policy: &Policy, status: StatusCode, reply: &mut Reply) {
    let Policy::Redirect(policy) = policy else { return };
    apply(exchange, &policy.response, reply);
    *reply.response.status_mut() = policy.status.unwrap_or(status);
}

/// A request, and the response to it.
pub(super) struct Answered<'a> {
    pub(super) request: &'a dyn Data,
    /// Whether the response is the proxy's own.
    pub(super) is_local: bool,
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
}

impl Data for Answered<'_> {
    fn text(&self, input: &Input) -> Option<Cow<'_, str>> {
        match input {
            Input::ResponseStatus => Some(self.status.as_str().to_owned().into()),
            Input::ResponseIsLocal => Some(if self.is_local { "true" } else { "false" }.into()),
            Input::ResponseStatusClass => Some(format!("{}xx", self.status.as_u16() / 100).into()),
            Input::ResponseHeader(HeaderKey::Name(name)) => {
                let value = joined(self.headers, name)?;
                Some(String::from_utf8_lossy(&value).into_owned().into())
            }
            input => self.request.text(input),
        }
    }

    fn value(&self, input: &Input) -> Option<Cow<'_, Value>> {
        self.request.value(input)
    }

    fn holds(&self, program: &Program) -> bool {
        self.request.holds(program)
    }
}

/// Points the request at the other answer.
fn retarget(exchange: &Exchange, head: &mut Head, target: &Target) -> Option<()> {
    match target {
        Target::Uri { https, authority, path } => {
            head.scheme = if *https { "https" } else { "http" };
            head.authority = authority.clone();
            head.path = path.clone();
        }
        Target::Action(action) => {
            let whole = sail_proxy_decide::route::PathMatch::Prefix("/".into());
            let location = exchange
                .with_attributes(head, |attributes| action.location(&head.view(), &whole, attributes));
            let uri: Uri = location.parse().ok()?;
            let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
            let authority = HeaderValue::from_str(authority.as_str()).ok()?;
            head.scheme = if scheme == "https" { "https" } else { "http" };
            head.authority = authority;
            head.path = uri.path_and_query()?.clone();
        }
    }
    Some(())
}

/// Carries header operations out on a response.
fn apply(exchange: &Exchange, ops: &sail_proxy_decide::headers::HeaderOps, reply: &mut Reply) {
    let before = reply.response.headers().clone();
    let info = exchange.info.borrow();
    let view = View::new(&info, LogType::NotAccepted).with_response(&before);
    ops.apply(reply.response.headers_mut(), &view);
}

/// Answers with what the configuration says.
fn local(exchange: &Exchange, policy: &LocalPolicy, reply: &mut Reply) {
    let status = policy.status.unwrap_or(reply.response.status());
    let before = exchange.info.borrow().code_details.clone();
    let details: Cow<'static, str> = match &policy.details {
        Details::Clear => "".into(),
        Details::Keep => before.unwrap_or_default(),
        Details::Set(text) => text.to_string().into(),
    };
    let said = match &policy.body {
        Some(body) => String::from_utf8_lossy(body).into_owned(),
        None => exchange.info.borrow().local_reply_body.as_deref().unwrap_or_default().to_owned(),
    };
    let mut local = LocalReply::new(status, "", details);
    match &policy.format {
        Some(format) => {
            // It tells of the response that was, and its text is plain whatever it looks like.
            exchange.info.borrow_mut().response_code = Some(reply.response.status().as_u16());
            let info = exchange.info.borrow();
            let view = View::new(&info, LogType::NotAccepted).with_response(reply.response.headers());
            local.body = access_log::formatted(&format.format, &view.with_body(&said)).into();
        }
        None if policy.body.is_some() => local.body = said.into(),
        None => {}
    }
    let bodiless = local.body.is_empty();
    *reply = Reply::local(local_reply::respond(exchange, local));
    if bodiless {
        reply.response.headers_mut().remove(CONTENT_LENGTH);
    }
    apply(exchange, &policy.headers, reply);
    exchange.skip_filters();
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let mut state = exchange.state();
        let kept = state.take(name).unwrap_or_else(|| Kept::Asked(Box::new(head.clone())));
        state.put(name, kept);
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let kept: Kept = exchange.state().take(name)?;
        let head = match kept {
            Kept::Asked(head) => head,
            Kept::Substitute(policy, status) => {
                substitute(exchange, &policy, status, reply);
                return None;
            }
        };
        let levels = self.levels(exchange, name);
        let policy = {
            let info = exchange.info.borrow();
            let subject = Subject::new(exchange, &head, &info);
            let request = rbac::data(&subject);
            let (status, headers) = (reply.response.status(), reply.response.headers());
            let is_local = !info.is_upstreams();
            let answered = Answered { request: &request, is_local, status, headers };
            let mut found =
                levels.iter().filter_map(|level| level.policies.as_ref()?.find(&answered).cloned());
            found.next()?
        };
        if let Policy::Local(policy) = &*policy {
            local(exchange, policy, reply);
        } else if self.redirect(exchange, name, &policy, *head, reply.response.status()) {
            // The connection is given up with the response: its body is of no use to anybody.
            drop(std::mem::replace(reply, Reply::local(http::Response::new(Body::Empty))));
        }
        None
    }
}
