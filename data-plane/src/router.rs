//! The router: carries out what the request's route says.

pub(crate) mod attempt;
mod connect;
mod counters;
pub(crate) mod failure;
mod filtered;
pub(crate) mod internal_redirect;
pub(crate) mod mirror;
mod overload;
pub(crate) mod replay;
pub(crate) mod request;
mod tee;
pub(crate) mod upgrade;

use std::borrow::Cow;
use std::cell::{Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use sail_proxy_decide::route::{
    Action, BodyFormat, ControlHeader, DirectResponse, Draw, Redirect, Route, RouteTable, VirtualHost,
    WeightedCluster,
};

use crate::http::attributes::RequestAttributes;
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::handler::{self, Reply};
use crate::http::head::Head;
use crate::http::local_reply::{Content, LocalReply};
use crate::http::mutate;
use crate::stats::sets::http as stats;
use crate::stream_info::{ResponseFlag, details};

/// The route that was found for a request. Filters read their per-route configuration from it.
#[derive(Clone, Default)]
pub(crate) struct Routed(RefCell<Option<Rc<Found>>>);

/// See [`Routed`].
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) table: Arc<RouteTable>,
    pub(crate) virtual_host: Arc<VirtualHost>,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) weighted: Option<Arc<WeightedCluster>>,
    pub(crate) cluster: Option<Arc<str>>,
}

impl Routed {
    pub(crate) fn set(&self, found: Option<Found>) {
        self.0.replace(found.map(Rc::new));
    }

    /// Puts back what was found before.
    pub(crate) fn restore(&self, before: &Self) {
        self.0.replace(before.0.borrow().clone());
    }

    pub(crate) fn get(&self) -> Ref<'_, Option<Rc<Found>>> {
        self.0.borrow()
    }
}

impl Found {
    /// What each level of the route says of a filter, the least specific first.
    pub(crate) fn levels<T: std::any::Any + Send + Sync>(
        &self,
        filter: &str,
    ) -> impl Iterator<Item = Arc<T>> {
        let levels = [
            Some(&self.table.per_filter),
            Some(&self.virtual_host.per_filter),
            self.route.as_ref().map(|route| &route.per_filter),
            self.weighted.as_ref().map(|weighted| &weighted.per_filter),
        ];
        levels.into_iter().flatten().filter_map(move |level| level.get(filter)?.get::<T>())
    }

    /// The most specific configuration of a filter for this request.
    pub(crate) fn per_filter(&self, filter: &str) -> Option<&sail_proxy_decide::route::PerFilterConfig> {
        let route = self.route.as_ref()?;
        sail_proxy_decide::route::per_filter(
            filter,
            &self.table,
            &self.virtual_host,
            route,
            self.weighted.as_deref(),
        )
    }
}

/// Looks the request's route up, and chooses among weighted clusters.
pub(crate) fn find(exchange: &Exchange, head: &Head, table: &Arc<RouteTable>) -> Option<Found> {
    let view = head.view();
    let random = exchange.random();
    let tls = exchange.connection.accepted.tls.as_ref();
    let presented = tls.is_some_and(|peer| peer.info.peer_certificate_presented);
    let info = exchange.info.borrow();
    let context = sail_proxy_decide::route::RouteContext {
        random,
        peer_presented: presented,
        peer_validated: tls.is_some_and(|peer| peer.info.peer_certificate_validated),
        dynamic_metadata: (!info.dynamic_metadata.is_empty()).then(|| info.dynamic_metadata.all()),
        filter_state: &info.filter_state,
        runtime: exchange.connection.worker.runtime(),
    };
    let found = table.find(&view, &context)?;
    let in_tree = found.virtual_host.matcher.as_ref().and_then(|tree| {
        let subject = crate::filters::rbac::Subject::new(exchange, head, &info);
        table.find_in(tree.find(&sail_proxy_decide::rbac::Known(&subject))?, &view, &context)
    });
    let mut routed = Found {
        table: table.clone(),
        virtual_host: found.virtual_host.clone(),
        route: found.route.or(in_tree).cloned(),
        weighted: None,
        cluster: None,
    };
    if let Some(Action::Route(action)) = routed.route.as_ref().map(|route| &route.action)
        && let Some(choice) = action.cluster.choose(
            &view,
            &Draw {
                random,
                hash: if action.cluster.wants_hash() {
                    attempt::hash(exchange, action, head).hash
                } else {
                    None
                },
                runtime: exchange.connection.worker.runtime(),
            },
        )
    {
        routed.cluster = Some(choice.name.to_arc());
        routed.weighted = choice.weighted.cloned();
    }
    Some(routed)
}

/// Answers the request as its route says.
pub(crate) async fn route(
    exchange: &Rc<Exchange>,
    head: &mut Head,
    body: Body,
) -> Result<Reply, Box<LocalReply>> {
    exchange.connection.manager.stats.inc(stats::rq_total);
    if let Some(reply) = check_strictly(exchange, head) {
        return Err(Box::new(reply));
    }
    let found = exchange.routed.get().clone();
    let Some(found) = found else { return Err(Box::new(handler::no_route(exchange))) };
    let Some(route) = &found.route else { return Err(Box::new(handler::no_route(exchange))) };
    note_route(exchange, &found, route);
    exchange.note_server_names(head);
    let manager = &exchange.connection.manager;
    match &route.action {
        Action::Route(action) => {
            if !manager.accepts_upgrade(head, route) {
                let reply = LocalReply::new(StatusCode::FORBIDDEN, "", details::UPGRADE_FAILED);
                manager.stats.inc(stats::downstream_rq_ws_on_non_ws_route);
                exchange.connection.close_after_this();
                return Err(Box::new(reply));
            }
            if let Some(config) = connect::config(action, head) {
                let ended = connect::Terminated { exchange, found: &found, route, action, config };
                // Boxed, since it is rare.
                return Box::pin(ended.serve(head, body)).await;
            }
            request::forward(exchange, &found, route, head, body).await
        }
        Action::Redirect(redirect) => {
            manager.stats.inc(stats::rq_direct_response);
            let mut reply = Box::new(redirect_reply(exchange, redirect, route, head));
            if let Some(path) = redirect.rewritten(&head.view(), &route.matching.path) {
                mutate::update_path(exchange, head, path);
            }
            edit_reply(exchange, &found, route, &mut reply, head);
            Err(reply)
        }
        Action::DirectResponse(direct) => {
            manager.stats.inc(stats::rq_direct_response);
            Ok(Reply::local(direct_response(exchange, &found, route, direct, head)))
        }
        Action::NonForwarding => Err(Box::new(no_cluster(exchange, StatusCode::SERVICE_UNAVAILABLE))),
    }
}

/// Refuses what the router would not understand, where it is to be strict.
fn check_strictly(exchange: &Exchange, head: &Head) -> Option<LocalReply> {
    let strict = exchange.connection.manager.strict_check_headers();
    let wrong = |header: &ControlHeader| Some((header.name(), header.misunderstood(&head.headers)?));
    let (name, value) = strict.iter().find_map(wrong)?;
    let mut reply =
        LocalReply::new(StatusCode::BAD_REQUEST, "", details::REQUEST_HEADERS_FAILED_STRICT_CHECK);
    reply.body = format!("invalid header '{name}' with value '{value}'").into();
    Some(reply.flag(ResponseFlag::InvalidEnvoyRequestHeaders))
}

fn note_route(exchange: &Exchange, found: &Found, route: &Route) {
    let mut info = exchange.info.borrow_mut();
    if !route.name.is_empty() {
        info.route_name = Some(route.name.clone());
    }
    info.virtual_host = Some(found.virtual_host.name.clone());
    if info.captured.wants_metadata() {
        let metadata = info.config_metadata.get_or_insert_default();
        metadata.route.clone_from(&route.metadata);
        metadata.virtual_host.clone_from(&found.virtual_host.metadata);
    }
}

fn redirect_reply(exchange: &Exchange, redirect: &Redirect, route: &Route, head: &Head) -> LocalReply {
    let location = exchange.with_attributes(head, |attributes| {
        redirect.location(&head.view(), &route.matching.path, attributes)
    });
    let reply = LocalReply::new(redirect.status, "", details::DIRECT_RESPONSE);
    match HeaderValue::try_from(location) {
        Ok(location) => reply.header(http::header::LOCATION, location),
        Err(_) => LocalReply::new(StatusCode::BAD_REQUEST, "", details::PATH_NORMALIZATION_FAILED),
    }
}

fn direct_response(
    exchange: &Exchange,
    found: &Found,
    route: &Route,
    direct: &DirectResponse,
    head: &Head,
) -> http::Response<Body> {
    exchange.info.borrow_mut().code_details = Some(details::DIRECT_RESPONSE.into());
    let (body, kind) = match &direct.body_format {
        None => (direct.body.clone(), HeaderValue::from_static("text/plain")),
        Some(BodyFormat { format, content_type }) => {
            let mut text = String::new();
            exchange.with_attributes(head, |attributes| format.write(attributes, &mut text));
            (text.into(), content_type.clone())
        }
    };
    let mut headers = HeaderMap::new();
    // As Envoy: it says where the request came to.
    if (direct.status == StatusCode::CREATED || direct.status.is_redirection())
        && let Some(url) = head.whole_url()
        && let Ok(url) = HeaderValue::try_from(url.to_string())
    {
        headers.insert(http::header::LOCATION, url);
    }
    edit(exchange, found, route, (direct.status, &mut headers), head);
    crate::http::local_reply::direct(exchange, Content { status: direct.status, body, kind }, headers)
}

/// The header operations that route, virtual host and table have for responses.
pub(crate) fn response_headers(
    exchange: &Exchange,
    found: &Found,
    route: &Route,
    reply: &mut Reply,
    head: &Head,
) {
    edit(exchange, found, route, (reply.response.status(), reply.response.headers_mut()), head);
}

/// The same operations on a reply that a filter or the router gives to a request that was to be forwarded.
pub(crate) fn local_headers(exchange: &Exchange, reply: &mut LocalReply, head: &Head) {
    let found = exchange.routed.get();
    let Some(found) = &*found else { return };
    if let Some(route) = &found.route
        && matches!(route.action, Action::Route(_) | Action::NonForwarding)
        // What is malformed was refused by the codec, which knows of no route.
        && reply.details != details::HTTP1_PROTOCOL_ERROR
    {
        edit_reply(exchange, found, route, reply, head);
    }
}

fn edit_reply(exchange: &Exchange, found: &Found, route: &Route, reply: &mut LocalReply, head: &Head) {
    let weighted = found.weighted.as_deref();
    let wanted = found.table.response_header_ops(&found.virtual_host, route, weighted).next().is_some();
    if !wanted || reply.whole.is_some() {
        return;
    }
    {
        let mut info = exchange.info.borrow_mut();
        reply.flag.into_iter().for_each(|flag| info.flag(flag));
        info.code_details = Some(reply.details.clone());
    }
    let mut headers = HeaderMap::from_iter(std::mem::take(&mut reply.headers));
    edit(exchange, found, route, (reply.status, &mut headers), head);
    reply.headers = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
}

fn edit(
    exchange: &Exchange,
    found: &Found,
    route: &Route,
    (status, headers): (StatusCode, &mut HeaderMap),
    head: &Head,
) {
    for operation in found.table.response_header_ops(&found.virtual_host, route, found.weighted.as_deref()) {
        operation.remove(headers);
        let additions = {
            let info = exchange.info.borrow();
            let view = RequestAttributes::of_request(&info, head).with_response(headers).with_status(status);
            operation.additions(headers, &view)
        };
        additions.write(headers);
    }
}

/// The answer to a request whose cluster is not there.
pub(crate) fn no_cluster(exchange: &Exchange, status: StatusCode) -> LocalReply {
    exchange.connection.manager.stats.inc(stats::no_cluster);
    LocalReply {
        body: Cow::Borrowed(""),
        ..LocalReply::new(status, "", details::CLUSTER_NOT_FOUND).flag(ResponseFlag::NoClusterFound)
    }
}
