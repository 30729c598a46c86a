//! Network filters before the one that ends the chain: they judge a connection, or learn about it.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use sail_proxy_config::network_filter::{ConnectionLimit, NetworkFilter, NetworkLocalRateLimit, NetworkRbac};
use sail_proxy_decide::head::RequestHead;
use sail_proxy_decide::rate_limit::TokenBucket;
use sail_proxy_decide::rbac::{Input, Peer};

use super::exchange_metadata;
use crate::listener::connection::Accepted;
use crate::net::Stream;
use crate::pool::limits::{Limit, Permit};
use crate::stats::sets::network_rbac as stats;
use crate::stream_info::PeerMetadata;
use crate::worker::state::Worker;

/// What network filters found out.
#[derive(Default)]
pub(crate) struct Judged {
    pub(crate) downstream_peer: Option<Arc<PeerMetadata>>,
    pub(crate) filter_state: Vec<(Box<str>, Box<str>)>,
    /// The SNI names the cluster.
    pub(crate) sni_cluster: bool,
    /// The connection's places under connection limits.
    permits: Vec<Permit>,
}

/// Runs the filters. `None` closes the connection.
pub(crate) async fn judge(
    filters: &[NetworkFilter],
    worker: &Rc<Worker>,
    accepted: &Accepted,
    stream: &mut Stream,
) -> Option<Judged> {
    let mut judged = Judged::default();
    for filter in filters {
        match filter {
            NetworkFilter::Rbac(rbac) => {
                if !allows(rbac, worker, accepted) {
                    return None;
                }
            }
            NetworkFilter::MetadataExchange(config) => {
                let alpn = accepted.tls.as_ref().and_then(|peer| peer.info.alpn.as_deref());
                if alpn == Some(config.protocol.as_str()) {
                    judged.downstream_peer =
                        exchange_metadata::with_client(stream, worker).await.ok()?.map(Arc::new);
                }
            }
            NetworkFilter::SniCluster => judged.sni_cluster = true,
            NetworkFilter::SetFilterState(values) => {
                for value in values.iter() {
                    if let Some(text) = value.value.as_literal() {
                        judged.filter_state.push(((&*value.key).into(), text.into()));
                    }
                }
            }
            // Counted where the connection ends, or the chain's end itself.
            NetworkFilter::IstioStats(_)
            | NetworkFilter::HttpConnectionManager(_)
            | NetworkFilter::TcpProxy(_)
            | NetworkFilter::DirectResponse(_)
            | NetworkFilter::Echo => {}
            NetworkFilter::ConnectionLimit(limit) => {
                if limit.enabled {
                    judged.permits.push(connection_permit(limit, worker)?);
                }
            }
            NetworkFilter::LocalRateLimit(limit) => {
                if limit.enabled && !take_token(limit, worker) {
                    return None;
                }
            }
        }
    }
    Some(judged)
}

fn allows(rbac: &NetworkRbac, worker: &Worker, accepted: &Accepted) -> bool {
    let scope: stats::Scope = worker.shared.store.scope(&rbac.stat_prefix);
    let input = Connection(accepted);
    if let Some(rules) = &rbac.config.shadow_rules {
        let allowed = rules.decide(&input).allowed;
        scope.inc(if allowed { stats::shadow_allowed } else { stats::shadow_denied });
    }
    let Some(rules) = &rbac.config.rules else { return true };
    let verdict = rules.decide(&input);
    scope.inc(if verdict.allowed { stats::allowed } else { stats::denied });
    if !verdict.allowed {
        let policy = verdict.policy.as_deref().unwrap_or("none");
        tracing::debug!(policy, remote = %accepted.downstream.remote_address, "RBAC refused a connection");
    }
    verdict.allowed
}

/// A connection as policies see it.
struct Connection<'a>(&'a Accepted);

impl Input for Connection<'_> {
    fn head(&self) -> Option<RequestHead<'_>> {
        None
    }

    fn destination(&self) -> Option<(IpAddr, u16)> {
        let local = self.0.downstream.local_address;
        Some((local.ip(), local.port()))
    }

    fn source_ip(&self) -> Option<IpAddr> {
        Some(self.0.downstream.remote_address.ip())
    }

    fn direct_remote_ip(&self) -> Option<IpAddr> {
        Some(self.0.downstream.direct_remote_address.ip())
    }

    fn remote_ip(&self) -> Option<IpAddr> {
        self.source_ip()
    }

    fn requested_server_name(&self) -> &str {
        self.0.downstream.server_name.as_deref().unwrap_or_default()
    }

    fn peer(&self) -> Option<Peer<'_>> {
        self.0.peer()
    }

    fn is_tls(&self) -> bool {
        self.0.tls.is_some()
    }
}

/// A place under a connection limit, which all workers share by its statistics' name.
fn connection_permit(config: &ConnectionLimit, worker: &Worker) -> Option<Permit> {
    let name: Arc<str> = format!("connection_limit.{}", config.stat_prefix).into();
    let counts = worker.shared.clusters.counts(&name);
    let max = u32::try_from(config.max_connections).unwrap_or(u32::MAX);
    Limit::new(counts[0].connections.clone(), max).acquire()
}

thread_local! {
    static BUCKETS: RefCell<HashMap<usize, (Arc<NetworkLocalRateLimit>, TokenBucket)>> = RefCell::default();
}

/// Whether another connection may begin now, as far as this worker's share of them goes.
fn take_token(config: &Arc<NetworkLocalRateLimit>, worker: &Worker) -> bool {
    BUCKETS.with_borrow_mut(|buckets| {
        // Configurations that nobody else holds are of the past.
        if buckets.len() == buckets.capacity() {
            buckets.retain(|_, (config, _)| Arc::strong_count(config) > 1);
        }
        let now = worker.started.elapsed();
        let entry = buckets.entry(Arc::as_ptr(config) as usize);
        entry.or_insert_with(|| (config.clone(), TokenBucket::new(config.bucket, now))).1.take(now)
    })
}
