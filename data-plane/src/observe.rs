//! What happens when a stream ends: access logs, Istio's metrics, its span. One observer a filter chain, built when
//! the configuration is activated; the I/O calls it on the stream's worker.

use std::sync::Arc;

use crate::stream_info::{Capture, StreamInfo};

/// Observes the requests of one HTTP connection manager.
#[derive(Debug, Default)]
pub struct HttpObserver {
    capture: Arc<Capture>,
}

impl HttpObserver {
    /// The headers to keep: set as the plan of a request's [`StreamInfo::captured`] when it begins.
    pub fn capture(&self) -> &Arc<Capture> {
        &self.capture
    }

    /// Called once per request, when its last byte was sent or it was given up.
    pub fn on_request_end(&self, _info: &mut StreamInfo) {}
}

/// Observes the connections of one TCP proxy.
#[derive(Debug, Default)]
pub struct TcpObserver {}

impl TcpObserver {
    /// The upstream is chosen and connected, and the peer's metadata, if any, has arrived.
    pub fn on_open(&self, _info: &mut StreamInfo) {}

    /// Called every five seconds or so while bytes flow; byte counts are totals.
    pub fn on_interval(&self, _info: &mut StreamInfo) {}

    /// Called once, at the end, also if [`TcpObserver::on_open`] never was.
    pub fn on_close(&self, _info: &mut StreamInfo) {}
}
