//! `envoy.filters.http.original_src`: the upstream connection comes from the client's address.

use std::net::SocketAddr;

use super::{Flow, HttpFilter, Request};
use crate::stream_info::UpstreamSource;

/// The filter, with the mark of its sockets.
pub(crate) struct Filter(pub(super) u32);

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let exchange = request.exchange;
        let client = exchange.info.borrow().downstream.remote_address;
        // Any port of the client's: its own may be taken.
        let address = SocketAddr::new(client.ip(), 0);
        exchange.set_upstream_source(UpstreamSource { address, mark: self.0 });
        Flow::Continue
    }
}
