//! `envoy.filters.http.fault`: delays, aborts, slow responses.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use http::StatusCode;
use sail_proxy_decide::bandwidth::Bucket;
use sail_proxy_decide::fault::{self, AbortWith, Circumstances, FaultConfig, FaultRandom, Faults};
use sail_proxy_decide::route::PerFilterConfig;

use super::paced::{Budget, Paced};
use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::{http_fault as stats, single_counter};
use crate::stats::{Held, Scope, Store};
use crate::stream_info::{ResponseFlag, details};

/// Clients name their clusters themselves: more of them than this are not counted one by one.
const CLIENTS: usize = 256;

/// How often a slow response's budget is looked at; Envoy's is filled as often.
const INTERVAL: Duration = Duration::from_millis(62);

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<FaultConfig>,
    store: Arc<Store>,
    prefix: Arc<str>,
    stats: stats::Scope,
    clients: RefCell<HashMap<Box<str>, Client>>,
}

/// What was done to the requests of a client's cluster.
struct Client {
    delays: Scope<single_counter::Set>,
    aborts: Scope<single_counter::Set>,
}

/// A fault is under way until its request is over.
type Active = Held<stats::Set>;

/// How fast the response may go.
struct Slow {
    kbps: u64,
}

impl Filter {
    pub(super) fn new(config: &Arc<FaultConfig>, build: &super::Build<'_>) -> Self {
        Self {
            config: config.clone(),
            store: build.store.clone(),
            prefix: build.prefix.into(),
            stats: build.store.scope(build.prefix),
            clients: RefCell::default(),
        }
    }

    /// Counts a fault as under way, unless too many are.
    fn begin(&self, config: &FaultConfig, exchange: &Exchange) -> Option<Active> {
        let most = config.max_active(exchange.connection.worker.runtime());
        let active = u64::try_from(self.stats.gauge(stats::active_faults)).unwrap_or(0);
        if most.is_some_and(|most| active >= most) {
            self.stats.inc(stats::faults_overflow);
            return None;
        }
        Some(self.stats.hold(stats::active_faults))
    }

    fn note_client(&self, client: Option<&str>, counter: fn(&Client) -> &Scope<single_counter::Set>) {
        let Some(client) = client else { return };
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= CLIENTS && !clients.contains_key(client) {
            return;
        }
        let known = clients.entry_ref(client).or_insert_with(|| {
            let counter = |what| self.store.counter(&format!("http.{}.fault.{client}.{what}", self.prefix));
            Client { delays: counter("delays_injected"), aborts: counter("aborts_injected") }
        });
        counter(known).inc(single_counter::value);
    }

    fn faults(&self, config: &FaultConfig, request: &Request<'_>) -> Faults {
        let exchange = request.exchange;
        let found = exchange.routed.get();
        let worker = &exchange.connection.worker;
        let circumstances = Circumstances {
            cluster: found.as_ref().and_then(|found| found.cluster.as_deref()).unwrap_or_default(),
            runtime: worker.runtime(),
            random: FaultRandom { delay: worker.random(), abort: worker.random(), rate: worker.random() },
        };
        config.decide(&request.head.view(), circumstances)
    }

    fn abort(&self, config: &FaultConfig, with: AbortWith, client: Option<&str>) -> Flow<'static> {
        self.stats.inc(stats::aborts_injected);
        self.note_client(client, |client| &client.aborts);
        let (status, grpc) = match with {
            AbortWith::Http(status) => {
                (StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), None)
            }
            AbortWith::Grpc(status) => (StatusCode::OK, Some(status)),
            AbortWith::Header => return Flow::Continue,
        };
        let body = config.abort.as_ref().map_or_else(String::new, |abort| String::from(&*abort.body));
        let mut reply =
            LocalReply::new(status, "", details::FAULT_FILTER_ABORT).flag(ResponseFlag::FaultInjected);
        reply.body = body.into();
        reply.grpc_status = grpc;
        Flow::Reply(Box::new(reply))
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let per_route = match request.exchange.per_filter(request.name) {
            Some(PerFilterConfig::Fault(config)) => Some(config),
            _ => None,
        };
        let config = per_route.as_ref().unwrap_or(&self.config);
        let faults = self.faults(config, &request);
        if faults == Faults::default() {
            return Flow::Continue;
        }
        let Request { name, exchange, head, .. } = request;
        let Some(active) = self.begin(config, exchange) else { return Flow::Continue };
        let mut state = exchange.state();
        state.put(name, active);
        if let Some(kbps) = faults.response_kbps {
            self.stats.inc(stats::response_rl_injected);
            state.put(name, Slow { kbps });
        }
        drop(state);
        let client = fault::client(&head.view()).filter(|_| config.downstream_cluster_stats);
        let Some(delay) = faults.delay else {
            return faults.abort.map_or(Flow::Continue, |with| self.abort(config, with, client));
        };
        self.stats.inc(stats::delays_injected);
        self.note_client(client, |client| &client.delays);
        exchange.flag(ResponseFlag::DelayInjected);
        let (config, client) = (config.clone(), client.map(Box::<str>::from));
        Flow::Wait(Box::pin(async move {
            tokio::time::sleep(delay).await;
            faults.abort.map_or(Flow::Continue, |with| self.abort(&config, with, client.as_deref()))
        }))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let Slow { kbps } = exchange.state().take(name)?;
        let rate = kbps.saturating_mul(1024);
        let started = Instant::now();
        let budget = Own { bucket: Bucket::new(rate, Duration::ZERO), started };
        Paced::wrap(reply.response.body_mut(), budget, INTERVAL);
        None
    }
}

/// A bucket of the response's own.
struct Own {
    bucket: Bucket,
    started: Instant,
}

impl Budget for Own {
    fn take(&mut self, wanted: u64) -> u64 {
        self.bucket.take(wanted, self.started.elapsed())
    }
}
