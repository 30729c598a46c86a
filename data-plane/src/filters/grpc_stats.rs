//! `envoy.filters.http.grpc_stats`: counts the messages of gRPC streams as they pass, and how the streams ended.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use sail_proxy_config::http_filter::grpc_stats::{GrpcMethods, GrpcStats};

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::http::seen;
use crate::stats::sets::{single_counter, single_histogram};
use crate::stats::{Scope, Store};

/// Which way a body goes.
#[derive(Clone, Copy)]
enum Direction {
    Request,
    Response,
}

/// More methods than this are not counted one by one: clients name them.
const METHODS: usize = 1000;

/// Counts the messages of gRPC requests each way, and what became of the requests.
pub(crate) struct Filter(Rc<Inner>);

struct Inner {
    config: Arc<GrpcStats>,
    store: Arc<Store>,
    /// By the beginning of the statistics' names.
    counters: RefCell<HashMap<Box<str>, Rc<Counters>>>,
}

struct Counters {
    success: Counter,
    failure: Counter,
    total: Counter,
    request_messages: Counter,
    response_messages: Counter,
    time: Scope<single_histogram::Set>,
    /// By status.
    statuses: RefCell<Vec<(u32, Counter)>>,
}

type Counter = Scope<single_counter::Set>;

impl Filter {
    pub(super) fn new(config: &Arc<GrpcStats>, build: &super::Build<'_>) -> Self {
        let (config, store) = (config.clone(), build.store.clone());
        Self(Rc::new(Inner { config, store, counters: RefCell::default() }))
    }
}

impl Inner {
    /// The service and method of a path that are counted by name.
    fn named<'a>(&self, path: &'a str) -> Option<(&'a str, &'a str)> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let is_counted = match &self.config.methods {
            GrpcMethods::None => false,
            GrpcMethods::All => !service.is_empty() && !method.is_empty() && !method.contains('/'),
            GrpcMethods::Listed(services) => services.iter().any(|(name, methods)| {
                **name == *service && (methods.is_empty() || methods.iter().any(|known| **known == *method))
            }),
        };
        is_counted.then_some((service, method))
    }

    fn counters(&self, cluster: &str, method: Option<(&str, &str)>) -> Rc<Counters> {
        let mut all = self.counters.borrow_mut();
        let plain = format!("cluster.{cluster}.grpc");
        let prefix = match method {
            Some((service, method)) => {
                let service = match self.config.replace_dots {
                    true => service.replace('.', "_"),
                    false => service.to_owned(),
                };
                format!("{plain}.{service}.{method}")
            }
            None => plain.clone(),
        };
        let prefix = if all.len() >= METHODS && !all.contains_key(&*prefix) { plain } else { prefix };
        let fresh = || {
            let counter = |name| self.store.counter(&format!("{prefix}.{name}"));
            Rc::new(Counters {
                success: counter("success"),
                failure: counter("failure"),
                total: counter("total"),
                request_messages: counter("request_message_count"),
                response_messages: counter("response_message_count"),
                time: self.store.histogram(&format!("{prefix}.upstream_rq_time")),
                statuses: RefCell::default(),
            })
        };
        all.entry_ref(&*prefix).or_insert_with(fresh).clone()
    }

    /// Counts a request that is over.
    fn end(&self, exchange: &Exchange) {
        let mut info = exchange.info.borrow_mut();
        let messages = info.grpc_messages;
        if self.config.emit_filter_state {
            let text = format!(
                r#"{{"request_message_count":"{}","response_message_count":"{}"}}"#,
                messages.request, messages.response
            );
            info.filter_state.push(("envoy.filters.http.grpc_stats".into(), text.into()));
        }
        let Some(cluster) = &info.cluster else { return };
        let path = info.request.path.as_ref().and_then(|path| std::str::from_utf8(path).ok());
        let counters = self.counters(&cluster.observability_name, path.and_then(|path| self.named(path)));
        counters.request_messages.add(single_counter::value, messages.request);
        counters.response_messages.add(single_counter::value, messages.response);
        if let Some(status) = info.grpc_status {
            counters.count(&self.store, status);
            if self.config.enable_upstream_stats {
                let millis = exchange.start.elapsed().as_millis();
                counters.time.record(single_histogram::value, u64::try_from(millis).unwrap_or(u64::MAX));
            }
        }
    }
}

impl Counters {
    fn count(&self, store: &Arc<Store>, status: u32) {
        self.total.inc(single_counter::value);
        if status == 0 { &self.success } else { &self.failure }.inc(single_counter::value);
        let mut statuses = self.statuses.borrow_mut();
        if let Some((_, counter)) = statuses.iter().find(|(known, _)| *known == status) {
            return counter.inc(single_counter::value);
        }
        // There are seventeen; what else an upstream may say is counted in the total alone.
        if status <= 16 {
            let name = self.total.name().trim_end_matches("total");
            let counter = store.counter(&format!("{name}{status}"));
            counter.inc(single_counter::value);
            statuses.push((status, counter));
        }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let exchange = request.exchange;
        if exchange.grpc.get() {
            let body = std::mem::replace(request.body, Body::Empty);
            *request.body = count(body, exchange, Direction::Request);
            let inner = self.0.clone();
            exchange.state().at_end(Box::new(move |exchange| inner.end(exchange)));
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        if response.exchange.grpc.get() {
            let body = std::mem::replace(response.reply.response.body_mut(), Body::Empty);
            *response.reply.response.body_mut() = count(body, response.exchange, Direction::Response);
        }
        None
    }
}

/// Wraps a body so that its messages are counted in the exchange's record.
fn count(body: Body, exchange: &Rc<Exchange>, direction: Direction) -> Body {
    let (exchange, frames) = (exchange.clone(), Frames::default());
    seen::by(body, move |frame| {
        let Some(data) = frame.data_ref() else { return };
        let begun = frames.feed(data);
        let mut info = exchange.info.borrow_mut();
        match direction {
            Direction::Request => info.grpc_messages.request += begun,
            Direction::Response => info.grpc_messages.response += begun,
        }
    })
}

/// Finds the beginnings of messages: a flag byte and four bytes of length.
#[derive(Default)]
struct Frames {
    header: Cell<[u8; 5]>,
    seen: Cell<usize>,
    left: Cell<usize>,
}

impl Frames {
    /// How many messages begin in these bytes.
    fn feed(&self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            let skipped = self.left.get().min(data.len());
            self.left.set(self.left.get() - skipped);
            data = &data[skipped..];
            let mut header = self.header.get();
            while self.left.get() == 0 && self.seen.get() < 5 {
                let Some((byte, rest)) = data.split_first() else { break };
                header[self.seen.get()] = *byte;
                self.seen.set(self.seen.get() + 1);
                data = rest;
            }
            self.header.set(header);
            if self.seen.get() == 5 {
                self.seen.set(0);
                begun += 1;
                self.left.set(u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize);
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut wire = Vec::new();
        for message in [&b"abc"[..], b"", b"longer message"] {
            wire.push(0);
            wire.extend_from_slice(&(message.len() as u32).to_be_bytes());
            wire.extend_from_slice(message);
        }
        for size in 1..wire.len() {
            let frames = Frames::default();
            let counted: u64 = wire.chunks(size).map(|chunk| frames.feed(chunk)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }
}
