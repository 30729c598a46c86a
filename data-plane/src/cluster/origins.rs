//! A cluster's responses by where their requests came from. Most clusters have requests of one kind, if any: what is not
//! counted takes no memory.

use std::cell::OnceCell;
use std::sync::{Arc, Weak};

use crate::http::exchange::Exchange;
use crate::stats::sets::{cluster_external, cluster_internal, cluster_retry};
use crate::stats::{Scope, Store};

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client outside.
    External,
    /// The mesh, or the proxy itself.
    Internal,
    /// Its response does not reach the client: it is tried again.
    Retry,
}

impl Origin {
    pub(super) fn of(exchange: &Exchange) -> Self {
        if exchange.from_outside.get() { Self::External } else { Self::Internal }
    }
}

/// See the module's documentation.
pub(super) struct Origins {
    store: Weak<Store>,
    external: OnceCell<Scope<cluster_external::Set>>,
    internal: OnceCell<Scope<cluster_internal::Set>>,
    retry: OnceCell<Scope<cluster_retry::Set>>,
}

macro_rules! count {
    ($self:ident, $cluster:ident, $status:ident, $field:ident, $set:ident) => {{
        let Some(scope) = $self.$field.get().or_else(|| {
            let scope = $self.store.upgrade()?.scope($cluster);
            Some($self.$field.get_or_init(|| scope))
        }) else {
            return;
        };
        scope.inc($set::upstream_rq_completed);
        scope.inc(match $status / 100 {
            1 => $set::upstream_rq_1xx,
            2 => $set::upstream_rq_2xx,
            3 => $set::upstream_rq_3xx,
            4 => $set::upstream_rq_4xx,
            _ => $set::upstream_rq_5xx,
        });
        scope.code($status);
    }};
}

impl Origins {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        Self {
            store: Arc::downgrade(store),
            external: OnceCell::new(),
            internal: OnceCell::new(),
            retry: OnceCell::new(),
        }
    }

    /// Keeps what others count in.
    pub(super) fn hold(&self, others: &Self) {
        // What is held already is the same.
        let _ = others.external.get().map(|scope| self.external.set(scope.clone()));
        let _ = others.internal.get().map(|scope| self.internal.set(scope.clone()));
        let _ = others.retry.get().map(|scope| self.retry.set(scope.clone()));
    }

    /// Counts a response of the cluster of this name.
    pub(super) fn count(&self, cluster: &str, origin: Origin, status: u16) {
        match origin {
            Origin::External => count!(self, cluster, status, external, cluster_external),
            Origin::Internal => count!(self, cluster, status, internal, cluster_internal),
            Origin::Retry => count!(self, cluster, status, retry, cluster_retry),
        }
    }
}
