//! `envoy.filters.http.custom_response`: other answers in place of some, from the configuration or from elsewhere.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Uri};
use sail_proxy_config::http_filter::custom_response::{
    CustomResponse, Details, LocalPolicy, Policy, RedirectPolicy, Target,
};
use sail_proxy_decide::cel::Program;
use sail_proxy_decide::head::{HeaderKey, joined};
use sail_proxy_decide::matcher::tree::{Data, Input};
use sail_proxy_decide::rbac;
use serde_json::Value;

use super::rbac::Subject;
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::access_log::{self, LogType, View};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::http::local_reply::{self, LocalReply};
use crate::router;
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

    /// Has the request answered elsewhere.
    async fn redirect(
        &self,
        exchange: &Rc<Exchange>,
        policy: &RedirectPolicy,
        mut head: Head,
        reply: &mut Reply,
    ) {
        if retarget(&mut head, &policy.target).is_none() {
            self.stats.inc(stats::custom_response_invalid_uri);
            return;
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            head.method = Method::GET;
        }
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(TRANSFER_ENCODING);
        let mut headers = std::mem::take(&mut head.headers);
        exchange.with_attributes(&head, |attributes| policy.request.apply(&mut headers, attributes));
        head.headers = headers;
        let before = exchange.routed.clone();
        exchange.find_route(&head);
        if exchange.routed.get().as_ref().is_none_or(|found| found.route.is_none()) {
            self.stats.inc(stats::custom_response_redirect_no_route);
            exchange.routed.restore(&before);
            return;
        }
        // The connection is given up with the response: its body is of no use to anybody.
        drop(std::mem::replace(reply, Reply::local(http::Response::new(Body::Empty))));
        // Boxed, since it is rare and keeps much.
        let routed = Box::pin(router::route(exchange, &mut head, http::Extensions::new(), Body::Empty)).await;
        *reply = routed.unwrap_or_else(|local| Reply::local(local_reply::respond(exchange, *local)));
        if let Some(status) = policy.status {
            *reply.response.status_mut() = status;
        }
        apply(exchange, &policy.response, reply);
    }
}

/// A request, and the response to it.
struct Answered<'a> {
    request: &'a dyn Data,
    status: StatusCode,
    headers: &'a HeaderMap,
}

impl Data for Answered<'_> {
    fn text(&self, input: &Input) -> Option<Cow<'_, str>> {
        match input {
            Input::ResponseStatus => Some(self.status.as_str().to_owned().into()),
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
fn retarget(head: &mut Head, target: &Target) -> Option<()> {
    match target {
        Target::Uri { https, authority, path } => {
            head.scheme = if *https { "https" } else { "http" };
            head.authority = authority.clone();
            head.path = path.clone();
        }
        Target::Action(action) => {
            let whole = sail_proxy_decide::route::PathMatch::Prefix("/".into());
            let uri: Uri = action.location(&head.view(), &whole).parse().ok()?;
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
    *reply = Reply::local(local_reply::respond(exchange, local));
    apply(exchange, &policy.headers, reply);
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        // Matchers look at what the client asked for.
        request.exchange.state().put(request.name, request.head.clone());
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let head: Head = exchange.state().take(name)?;
        let levels = self.levels(exchange, name);
        let policy = {
            let info = exchange.info.borrow();
            let subject = Subject::new(exchange, &head, &info);
            let request = rbac::data(&subject);
            let (status, headers) = (reply.response.status(), reply.response.headers());
            let answered = Answered { request: &request, status, headers };
            let mut found =
                levels.iter().filter_map(|level| level.policies.as_ref()?.find(&answered).cloned());
            found.next()?
        };
        if let Policy::Local(policy) = &*policy {
            local(exchange, policy, reply);
            return None;
        }
        Some(Box::pin(async move {
            if let Policy::Redirect(policy) = &*policy {
                self.redirect(exchange, policy, head, reply).await;
            }
        }))
    }
}
