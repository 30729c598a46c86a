//! Network filters before the one that ends the chain: they judge a connection, or learn about it. One file a filter,
//! one table from configuration to code.

mod connection_limit;
mod discovered;
mod ext_authz;
mod local_rate_limit;
mod metadata_exchange;
mod rate_limit;
mod rbac;
mod set_filter_state;
mod sni_forward;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sail_proxy_config::network_filter::{FilterStateValue, NetworkFilter as Config};

use crate::listener::connection::Accepted;
use crate::net::Stream;
use crate::stream_info::{DownstreamInfo, PeerMetadata, StreamInfo};
use crate::worker::state::Worker;

/// What network filters found out.
#[derive(Default)]
pub(crate) struct Judged {
    pub(crate) downstream_peer: Option<Arc<PeerMetadata>>,
    /// The SNI names the cluster.
    pub(crate) sni_cluster: bool,
    /// The host that the SNI names, with its port.
    pub(crate) authority: Option<Box<str>>,
    /// Values of filter state to set once bytes arrive.
    on_data: Cell<Option<Box<OnData>>>,
    /// The connection's places under connection limits.
    places: Vec<connection_limit::Place>,
}

/// Values to set once bytes arrive, a filter's at a time; rare, so that a connection has but a place for it.
type OnData = Vec<Arc<[FilterStateValue]>>;

impl Judged {
    /// Sets what is to be set when the first bytes, so many, arrive: once.
    pub(crate) fn set_on_data(&self, downstream: &Rc<DownstreamInfo>, received: u64) {
        for values in self.on_data.take().into_iter().flat_map(|all| *all) {
            set_filter_state::set(&values, downstream, || {
                let mut info = StreamInfo::new(downstream.clone());
                info.bytes.received = received;
                info
            });
        }
    }
}

/// What a filter sees and changes.
struct Cx<'a> {
    worker: &'a Rc<Worker>,
    accepted: &'a Accepted,
    stream: &'a mut Stream,
    /// Why the connection is closed, as logs have it.
    denied: Denied,
    judged: &'a mut Judged,
}

/// Why a connection was closed, where a filter says so.
#[derive(Debug, Default)]
pub(crate) struct Denied(pub(crate) Option<Box<str>>);

/// What becomes of a connection.
enum Verdict {
    /// It goes on.
    Pass,
    /// It is closed, after this time.
    Close(Option<Duration>),
}

/// A verdict, now or later.
enum Step<'a> {
    Now(Verdict),
    Later(Pin<Box<dyn Future<Output = Verdict> + 'a>>),
}

/// A filter, implemented for its configuration.
trait NetworkFilter {
    /// Looks at a new connection, after its TLS handshake.
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a>;
}

/// Runs the filters. `Err` closes the connection.
pub(crate) async fn judge(
    filters: &[Config],
    worker: &Rc<Worker>,
    accepted: &Accepted,
    stream: &mut Stream,
) -> Result<Judged, Denied> {
    let mut judged = Judged::default();
    let mut cx = Cx { worker, accepted, stream, denied: Denied::default(), judged: &mut judged };
    for filter in filters {
        let verdict = match step(filter, &mut cx) {
            Step::Now(verdict) => verdict,
            Step::Later(verdict) => verdict.await,
        };
        if let Verdict::Close(delay) = verdict {
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            return Err(cx.denied);
        }
    }
    Ok(judged)
}

/// From configuration to code.
fn step<'a>(filter: &'a Config, cx: &'a mut Cx<'_>) -> Step<'a> {
    match filter {
        Config::Rbac(config) => config.on_connection(cx),
        Config::ExtAuthz(config) => config.on_connection(cx),
        Config::MetadataExchange(config) => config.on_connection(cx),
        Config::SetFilterState(config) => config.on_connection(cx),
        Config::Discovered(config) => config.on_connection(cx),
        Config::SniForward(config) => config.on_connection(cx),
        Config::RateLimit(config) => config.on_connection(cx),
        Config::ConnectionLimit(config) => config.on_connection(cx),
        Config::LocalRateLimit(config) => config.on_connection(cx),
        Config::SniCluster => {
            cx.judged.sni_cluster = true;
            Step::Now(Verdict::Pass)
        }
        // Counted where the connection ends, or the chain's end itself.
        Config::IstioStats(_)
        | Config::MongoProxy
        | Config::HttpConnectionManager(_)
        | Config::TcpProxy(_)
        | Config::DirectResponse(_)
        | Config::Echo => Step::Now(Verdict::Pass),
    }
}
