//! `envoy.filters.http.composite`, and filters with a matcher around them: what the request is like decides which filters
//! see it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use sail_proxy_config::http_filter::composite::Composite;
use sail_proxy_decide::matcher::tree::MatchTree;
use sail_proxy_decide::rbac;

use super::custom_response::Answered;
use super::rbac::Subject;
use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::Head;
use crate::stats::Store;

/// Matchers of routes are kept up to this many; then those that no route has go.
const KEPT: usize = 64;

/// See the module's documentation.
pub(crate) struct Filter {
    own: Rc<Built>,
    /// Matchers of routes.
    routes: RefCell<Vec<Rc<Built>>>,
    inner: Option<Rc<dyn HttpFilter>>,
    store: Arc<Store>,
    prefix: Box<str>,
}

/// A configuration with its filters.
struct Built {
    config: Arc<Composite>,
    /// The matcher waits for the response.
    waits: bool,
    actions: Box<[Rc<[One]>]>,
}

/// A filter, and its name where it is one of several.
struct One {
    name: Option<Arc<str>>,
    filter: Rc<dyn HttpFilter>,
}

/// The filters that saw a request.
struct Seen {
    filters: Rc<[One]>,
    count: usize,
}

impl Built {
    fn new(config: &Arc<Composite>, build: &Build<'_>) -> Rc<Self> {
        let actions = config.actions.iter().map(|action| {
            let several = action.filters.len() > 1;
            let filters = action.filters.iter().filter_map(|(name, kind)| {
                let filter = Rc::from(super::filter(kind, build)?);
                Some(One { name: several.then(|| name.clone()), filter })
            });
            filters.collect()
        });
        let waits = config.matcher.as_ref().is_some_and(MatchTree::reads_response);
        Rc::new(Self { config: config.clone(), waits, actions: actions.collect() })
    }

    /// The filters for a request; `None` where the matcher says nothing.
    fn choose(&self, exchange: &Exchange, head: &Head) -> Option<Rc<[One]>> {
        if self.waits {
            return None;
        }
        let info = exchange.info.borrow();
        let subject = Subject::new(exchange, head, &info);
        let at = *self.config.matcher.as_ref()?.find(&rbac::data(&subject))?;
        let worker = &exchange.connection.worker;
        let share = self.config.actions.get(at)?.share.as_ref();
        if !share.is_none_or(|share| share.hit(worker.random(), worker.runtime())) {
            return Some(Rc::new([]));
        }
        self.actions.get(at).cloned()
    }

    /// Whether filters that saw a request do not see this response.
    fn skips(&self, exchange: &Exchange, reply: &Reply) -> bool {
        if !self.waits {
            return false;
        }
        let head = exchange.noted_head();
        let info = exchange.info.borrow();
        let subject = Subject::new(exchange, &head, &info);
        let (status, headers) = (reply.response.status(), reply.response.headers());
        let is_local = !info.is_upstreams();
        let answered = Answered { request: &rbac::data(&subject), is_local, status, headers };
        let found = self.config.matcher.as_ref().and_then(|matcher| matcher.find(&answered));
        found.and_then(|&at| self.actions.get(at)).is_some_and(|filters| filters.is_empty())
    }
}

impl Filter {
    pub(super) fn new(config: &Arc<Composite>, build: &Build<'_>) -> Self {
        let inner = config.inner.as_ref().and_then(|kind| super::filter(kind, build));
        Self {
            own: Built::new(config, build),
            routes: RefCell::default(),
            inner: inner.map(Rc::from),
            store: build.store.clone(),
            prefix: build.prefix.into(),
        }
    }

    fn built(&self, exchange: &Exchange, name: &str) -> Rc<Built> {
        let Some(config) = exchange.per_filter(name).and_then(|config| config.get::<Composite>()) else {
            return self.own.clone();
        };
        let mut routes = self.routes.borrow_mut();
        if let Some(found) = routes.iter().find(|built| Arc::ptr_eq(&built.config, &config)) {
            return found.clone();
        }
        if routes.len() >= KEPT {
            routes.retain(|built| Arc::strong_count(&built.config) > 1);
        }
        let built = Built::new(&config, &Build { store: &self.store, prefix: &self.prefix });
        routes.push(built.clone());
        built
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, body } = request;
        let chosen = self.built(exchange, name).choose(exchange, head);
        let filters = match (chosen, &self.inner) {
            (Some(filters), _) => filters,
            (None, Some(inner)) => Rc::new([One { name: None, filter: inner.clone() }]),
            (None, None) => return Flow::Continue,
        };
        if filters.is_empty() {
            return Flow::Continue;
        }
        Flow::Wait(Box::pin(async move {
            for (at, one) in filters.iter().enumerate() {
                let request = Request { name: one.name.as_deref().unwrap_or(name), exchange, head, body };
                let reply = match one.filter.on_request(request) {
                    Flow::Wait(work) => match work.await {
                        Flow::Reply(reply) => Some(reply),
                        _ => None,
                    },
                    Flow::Reply(reply) => Some(reply),
                    Flow::Continue => None,
                };
                if let Some(reply) = reply {
                    exchange.state().put(name, Seen { filters: filters.clone(), count: at + 1 });
                    return Flow::Reply(reply);
                }
            }
            let count = filters.len();
            exchange.state().put(name, Seen { filters, count });
            Flow::Continue
        }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let Seen { filters, count } = exchange.state().take(name)?;
        if self.built(exchange, name).skips(exchange, reply) {
            return None;
        }
        Some(Box::pin(async move {
            for one in filters[..count].iter().rev() {
                let name = one.name.as_deref().unwrap_or(name);
                if let Some(work) = one.filter.on_response(Response { name, exchange, reply }) {
                    work.await;
                }
            }
        }))
    }
}
