//! Istio's peer metadata (`istio.metadata_exchange`).

use std::sync::Arc;

use super::{Entry, HttpFilterKind};

pub(super) const ENTRY: Entry = Entry {
    name: "io.istio.http.peer_metadata.Config",
    convert: |cx, any| Some(HttpFilterKind::PeerMetadata(Arc::new(cx.unpack(any)?))),
    per_route: None,
};
