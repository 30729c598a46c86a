//! `envoy.filters.network.sni_dynamic_forward_proxy`: connections wait until the name that they ask for is resolved; the
//! cluster then finds it in the cache that both name.

use std::sync::Arc;

use sail_proxy_config::network_filter::SniForward;
use sail_proxy_decide::host::Host;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::dns::cache::Error;
use crate::filters::UPSTREAM_ADDRESS as ADDRESS;

/// Where TLS is spoken.
const HTTPS: u16 = 443;

/// Keys of filter state: the host and the port of the upstream, in place of the server name and the configured port.
const HOST: &str = "envoy.upstream.dynamic_host";
const PORT: &str = "envoy.upstream.dynamic_port";

impl NetworkFilter for Arc<SniForward> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let downstream = &cx.accepted.downstream;
        let state = |key: &str| downstream.state.get(key).filter(|value| !value.is_empty());
        let name = state(HOST).map(Arc::from).or_else(|| downstream.server_name.clone());
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Step::Now(Verdict::Pass) };
        let port = state(PORT).and_then(|port| port.trim().parse().ok()).or(self.port).unwrap_or(HTTPS);
        cx.judged.authority = Some(format!("{name}:{port}").into());
        let caches = &cx.worker.shared.dns_caches;
        if let Some(found) = caches.found(&self.cache.name, &name, port) {
            note(self, cx, &found);
            return Step::Now(Verdict::Pass);
        }
        Step::Later(Box::pin(async move {
            match cx.worker.shared.dns_caches.resolve(&self.cache, &name, port).await {
                Ok(found) => {
                    note(self, cx, &found);
                    Verdict::Pass
                }
                Err(Error::Pending | Error::Full) => Verdict::Close(None),
                Err(Error::Failed) => {
                    // The connection ends where it finds no host.
                    tracing::debug!(%name, "the server name does not resolve");
                    Verdict::Pass
                }
            }
        }))
    }
}

/// Keeps the address for those who judge or log it.
fn note(config: &SniForward, cx: &Cx<'_>, host: &Host) {
    if config.save_upstream_address {
        let mut state = cx.accepted.downstream.state.filter_state.borrow_mut();
        state.push((ADDRESS.into(), host.address.to_string().into()));
    }
}
