//! A filter whose configuration comes by discovery (ECDS): built when a request first needs it, and again when another
//! configuration has arrived. A request sees the same one on both ways, for it holds the snapshot that it began with.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use sail_proxy_config::discovered::{Discovered, Extension};
use sail_proxy_config::http_filter::HttpFilterKind;

use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stats::Store;
use crate::stream_info::ResponseFlag;

/// What the filter is built of; `None`: the default.
type Source = Option<Arc<Extension>>;

/// A filter, or nothing to run.
type Built = Option<Rc<dyn HttpFilter>>;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<Discovered<HttpFilterKind>>,
    store: Arc<Store>,
    prefix: Box<str>,
    last: RefCell<Option<(Source, Built)>>,
}

impl Filter {
    pub(crate) fn new(config: &Arc<Discovered<HttpFilterKind>>, build: &Build<'_>) -> Self {
        Self {
            config: config.clone(),
            store: build.store.clone(),
            prefix: build.prefix.into(),
            last: RefCell::default(),
        }
    }

    /// The filter for a request.
    fn current(&self, exchange: &Exchange) -> Built {
        let found = exchange.active.snapshot.extensions.get(&self.config.resource.name);
        if let Some((source, built)) = &*self.last.borrow()
            && source.as_ref().map(Arc::as_ptr) == found.map(Arc::as_ptr)
        {
            return built.clone();
        }
        let build = Build { store: &self.store, prefix: &self.prefix };
        let built = self.config.kind(found).and_then(|kind| super::filter(kind, &build)).map(Rc::from);
        self.last.replace(Some((found.cloned(), built.clone())));
        built
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Some(filter) = self.current(request.exchange) else {
            // Nothing is let through by a filter that might have stopped it.
            let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "filter_config_not_found");
            return Flow::Reply(Box::new(reply.flag(ResponseFlag::NoFilterConfigFound)));
        };
        Flow::Wait(Box::pin(async move {
            match filter.on_request(request) {
                Flow::Continue => Flow::Continue,
                Flow::Reply(reply) => Flow::Reply(reply),
                Flow::Wait(work) => work.await,
            }
        }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let filter = self.current(response.exchange)?;
        Some(Box::pin(async move {
            if let Some(work) = filter.on_response(response) {
                work.await;
            }
        }))
    }
}
