//! Istio's metrics (`istio.stats`).

use std::sync::Arc;

use super::{Entry, HttpFilterKind};

pub(super) const ENTRY: Entry = Entry {
    name: "stats.PluginConfig",
    convert: |cx, any| Some(HttpFilterKind::IstioStats(Arc::new(cx.unpack(any)?))),
    per_route: None,
};
