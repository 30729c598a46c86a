//! `set_filter_state`: values that later filters, logs and upstream connections read.

use std::rc::Rc;

use sail_proxy_config::network_filter::FilterStateValue;

use super::Intake;
use crate::access_log;
use crate::listener::Listener;
use crate::listener::connection::preview;
use crate::stream_info::StreamInfo;

pub(super) fn run(values: &[FilterStateValue], listener: &Listener, intake: &mut Intake) {
    // Values may read what was set before them.
    for value in values {
        let text = match value.value.as_literal() {
            Some(text) => text.to_owned(),
            None => {
                let info = StreamInfo::new(Rc::new(preview(listener, intake)));
                access_log::text(&value.value, &info)
            }
        };
        if !(text.is_empty() && value.skip_if_empty) {
            intake.filter_state.push(((&*value.key).into(), text.into()));
        }
    }
}
