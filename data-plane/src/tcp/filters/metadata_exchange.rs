//! `istio.metadata_exchange`: the client says who it is, and is told who we are.

use std::sync::Arc;

use xds_api::istio::metadata_exchange::MetadataExchange;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::tcp::exchange_metadata;

impl NetworkFilter for Arc<MetadataExchange> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let alpn = cx.accepted.tls.as_ref().and_then(|peer| peer.info.alpn.as_deref());
        if alpn != Some(self.protocol.as_str()) {
            return Step::Now(Verdict::Pass);
        }
        Step::Later(Box::pin(async {
            match exchange_metadata::with_client(cx.stream, cx.worker, self).await {
                Ok(peer) => {
                    cx.judged.downstream_peer = peer.map(Arc::new);
                    Verdict::Pass
                }
                Err(_) => Verdict::Close(None),
            }
        }))
    }
}
