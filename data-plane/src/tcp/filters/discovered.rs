//! A network filter whose configuration comes by discovery (ECDS). Without any, connections are closed: it might have
//! stopped them.

use std::sync::Arc;

use sail_proxy_config::discovered::Discovered;

use super::{Config, Cx, NetworkFilter, Step, Verdict, step};

impl NetworkFilter for Arc<Discovered<Config>> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let found = cx.worker.active().snapshot.extensions.get(&self.resource.name).cloned();
        Step::Later(Box::pin(async move {
            let Some(filter) = self.kind(found.as_ref()) else {
                tracing::debug!(name = %self.resource.name, "closed a connection: its filter is not there yet");
                return Verdict::Close(None);
            };
            match step(filter, cx) {
                Step::Now(verdict) => verdict,
                Step::Later(verdict) => verdict.await,
            }
        }))
    }
}
