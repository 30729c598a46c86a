//! `envoy.filters.network.sni_dynamic_forward_proxy`: connections wait until the name that they ask for is resolved; the
//! cluster then finds it in the cache that both name.

use std::sync::Arc;

use sail_proxy_config::network_filter::SniForward;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::dns::cache::Error;

/// Where TLS is spoken.
const HTTPS: u16 = 443;

impl NetworkFilter for Arc<SniForward> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let Some(name) = cx.accepted.downstream.server_name.clone().filter(|name| !name.is_empty()) else {
            return Step::Now(Verdict::Pass);
        };
        let port = self.port.unwrap_or(HTTPS);
        cx.judged.authority = Some(format!("{name}:{port}").into());
        let caches = &cx.worker.shared.dns_caches;
        if caches.found(&self.cache.name, &name, port).is_some() {
            return Step::Now(Verdict::Pass);
        }
        Step::Later(Box::pin(async move {
            match cx.worker.shared.dns_caches.resolve(&self.cache, &name, port).await {
                Ok(_) => Verdict::Pass,
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
