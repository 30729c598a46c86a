//! `envoy.filters.http.fault`: delays and aborts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::StatusCode;
use sail_proxy_decide::fault::{AbortWith, FaultConfig, FaultRandom};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Flow, HttpFilter, Request};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_fault as stats;
use crate::stream_info::{ResponseFlag, details};

/// Faults under way in the process.
static ACTIVE: AtomicU32 = AtomicU32::new(0);

struct Active;

impl Active {
    fn new() -> Self {
        ACTIVE.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Relaxed);
    }
}

impl HttpFilter for FaultConfig {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let found = exchange.routed.get();
        let per_route: Option<Arc<FaultConfig>> = match exchange.per_filter(name) {
            Some(PerFilterConfig::Fault(config)) => Some(config),
            _ => None,
        };
        let config = per_route.as_deref().unwrap_or(self);
        let cluster = found.as_ref().and_then(|found| found.cluster.as_deref()).unwrap_or_default();
        let worker = &exchange.connection.worker;
        let random = FaultRandom { delay: worker.random(), abort: worker.random(), rate: worker.random() };
        let faults = config.decide(&head.view(), cluster, ACTIVE.load(Relaxed), random);
        let stats = exchange.connection.manager.fault_stats();
        if let Some(delay) = faults.delay {
            stats.inc(stats::delays_injected);
            exchange.flag(ResponseFlag::DelayInjected);
            let exchange = exchange.clone();
            let active = Active::new();
            return Flow::Wait(Box::pin(async move {
                tokio::time::sleep(delay).await;
                drop(active);
                faults.abort.map_or(Flow::Continue, |with| abort(&exchange, with))
            }));
        }
        faults.abort.map_or(Flow::Continue, |with| abort(exchange, with))
    }
}

fn abort(exchange: &Exchange, with: AbortWith) -> Flow<'static> {
    exchange.connection.manager.fault_stats().inc(stats::aborts_injected);
    let (status, grpc) = match with {
        AbortWith::Http(status) => {
            (StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), None)
        }
        AbortWith::Grpc(status) => (StatusCode::OK, Some(status)),
        AbortWith::Header => return Flow::Continue,
    };
    let mut reply = LocalReply::new(status, "fault filter abort", details::FAULT_FILTER_ABORT)
        .flag(ResponseFlag::FaultInjected);
    reply.grpc_status = grpc;
    Flow::Reply(Box::new(reply))
}
