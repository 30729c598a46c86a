//! `original_dst`: where a redirected connection was going. `original_src`: from where its upstream connections come.

use std::net::SocketAddr;

use super::{Intake, canonical};
use crate::listener::Listener;
use crate::net::original_dst;
use crate::stream_info::UpstreamSource;

/// Restores the destination.
pub(super) fn destination(listener: &Listener, intake: &mut Intake) {
    if intake.original.is_some() {
        return;
    }
    // A transparent socket's connections have the destination as their local address.
    let found = if listener.config.transparent {
        Some(intake.bound)
    } else {
        original_dst::original_dst(&intake.raw, intake.bound)
            .filter(|found| canonical(*found) != intake.local)
    };
    if let Some(found) = found.map(canonical) {
        intake.local = found;
        intake.original = Some(found);
    }
}

/// Notes that upstream connections come from the client's address.
pub(super) fn source(bind_port: bool, mark: u32, intake: &mut Intake) {
    let client = intake.remote;
    if client.ip().is_unspecified() {
        return;
    }
    let port = if bind_port { client.port() } else { 0 };
    let address = SocketAddr::new(client.ip(), port);
    intake.upstream_source = Some(UpstreamSource { address, mark });
}
