//! `envoy.filters.network.set_filter_state`: values for all streams of the connection.

use sail_proxy_config::network_filter::FilterStateValue;

use super::{Cx, Step, Verdict};
use crate::access_log;
use crate::stream_info::StreamInfo;

/// The filter's values.
pub(super) struct Filter<'a>(pub(super) &'a [FilterStateValue]);

impl Filter<'_> {
    pub(super) fn step<'a>(&self, cx: &Cx<'_>) -> Step<'a> {
        let downstream = &cx.accepted.downstream;
        // Values may read what was set before them.
        for value in self.0 {
            let text = match value.value.as_literal() {
                Some(text) => text.to_owned(),
                None => access_log::text(&value.value, &StreamInfo::new(downstream.clone())),
            };
            if !(text.is_empty() && value.skip_if_empty) {
                let mut state = downstream.state.filter_state.borrow_mut();
                state.push(((&*value.key).into(), text.into()));
            }
        }
        Step::Now(Verdict::Pass)
    }
}
