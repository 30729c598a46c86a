//! `envoy.filters.http.set_filter_state`: writes values of the request into its filter state.

use std::sync::Arc;

use sail_proxy_config::network_filter::FilterStateValue;
use sail_proxy_decide::format::Missing;

use super::{Flow, HttpFilter, Request};

/// The filter's values.
pub(crate) struct Filter(pub(crate) Arc<[FilterStateValue]>);

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { exchange, head, .. } = request;
        for value in self.0.iter() {
            let mut text = String::new();
            exchange
                .with_attributes(head, |attributes| value.value.write(attributes, Missing::Empty, &mut text));
            if text.is_empty() && value.skip_if_empty {
                continue;
            }
            exchange.info.borrow_mut().filter_state.push(((&*value.key).into(), text.into()));
        }
        Flow::Continue
    }
}
