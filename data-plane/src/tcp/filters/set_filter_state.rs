//! `envoy.filters.network.set_filter_state`: values for all streams of the connection.

use std::sync::Arc;

use sail_proxy_config::network_filter::{FilterStateValue, SetFilterState};

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::access_log;
use crate::stream_info::{DownstreamInfo, StreamInfo};

impl NetworkFilter for Arc<SetFilterState> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let downstream = &cx.accepted.downstream;
        set(&self.on_connection, downstream, || StreamInfo::new(downstream.clone()));
        if !self.on_data.is_empty() {
            // What ends the chain knows when bytes arrive.
            cx.judged.on_data.get_mut().get_or_insert_default().push(self.on_data.clone());
        }
        Step::Now(Verdict::Pass)
    }
}

/// Sets values of a connection's filter state.
pub(super) fn set(
    values: &[FilterStateValue],
    downstream: &DownstreamInfo,
    describe: impl Fn() -> StreamInfo,
) {
    // Values may read what was set before them.
    for value in values {
        let text = match value.value.as_literal() {
            Some(text) => text.to_owned(),
            None => access_log::text(&value.value, &describe()),
        };
        if !(text.is_empty() && value.skip_if_empty) {
            let mut state = downstream.state.filter_state.borrow_mut();
            state.push(((&*value.key).into(), text.into()));
        }
    }
}
