//! `envoy.filters.network.set_filter_state`: values that later filters, logs and upstream connections read.

use std::sync::Arc;

use sail_proxy_decide::format::Format;

use crate::access_log;
use crate::convert::{Cx, arc};
use crate::pb;

/// `FilterStateValue`
#[derive(Clone, Debug)]
pub struct FilterStateValue {
    /// The object's key.
    pub key: Arc<str>,
    /// The factory that makes it of a string.
    pub factory: Arc<str>,
    /// The string.
    pub value: Format,
    /// Whether it cannot be replaced.
    pub read_only: bool,
    /// Whether upstream connections see it.
    pub shared_with_upstream: Shared,
    /// Whether an empty string makes no object.
    pub skip_if_empty: bool,
}

/// `SharedWithUpstream`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// No.
    None,
    /// With the next connection.
    Once,
    /// With all that follow.
    Transitive,
}

/// `FilterStateValue`s, in their order.
pub(crate) fn filter_states(
    cx: &mut Cx<'_>,
    field: &str,
    values: Vec<pb::filters::common::set_filter_state::v3::FilterStateValue>,
) -> Arc<[FilterStateValue]> {
    cx.each(field, values, filter_state).into()
}

/// The network filter `set_filter_state`.
#[derive(Clone, Debug)]
pub struct SetFilterState {
    /// Set when a connection begins, and its handshake is done.
    pub on_connection: Arc<[FilterStateValue]>,
    /// Set when its first bytes arrive.
    pub on_data: Arc<[FilterStateValue]>,
}

pub(super) fn set_filter_state(
    cx: &mut Cx<'_>,
    value: pb::filters::network::set_filter_state::v3::Config,
) -> SetFilterState {
    let pb::filters::network::set_filter_state::v3::Config {
        on_new_connection,
        on_downstream_tls_handshake,
        on_downstream_data,
    } = value;
    let on_data = cx.each("on_downstream_data", on_downstream_data, filter_state);
    let mut values = cx.each("on_new_connection", on_new_connection, filter_state);
    // Network filters run after the handshake, so that both moments are one.
    values.extend(cx.each("on_downstream_tls_handshake", on_downstream_tls_handshake, filter_state));
    SetFilterState { on_connection: values.into(), on_data: on_data.into() }
}

/// `FilterStateValue`
pub(crate) fn filter_state(
    cx: &mut Cx<'_>,
    value: pb::filters::common::set_filter_state::v3::FilterStateValue,
) -> Option<FilterStateValue> {
    use pb::filters::common::set_filter_state::v3::filter_state_value::{Key, SharedWithUpstream, Value};
    let pb::filters::common::set_filter_state::v3::FilterStateValue {
        factory_key,
        read_only,
        shared_with_upstream,
        skip_if_empty,
        key,
        value,
    } = value;
    let Some(Key::ObjectKey(key)) = key else {
        cx.error("object_key", "it must be set");
        return None;
    };
    let format = match value {
        Some(Value::FormatString(value)) => {
            cx.within("format_string", |cx| access_log::text_format(cx, value))?
        }
        None => {
            cx.error("value", "it must be set");
            return None;
        }
    };
    let shared_with_upstream = match SharedWithUpstream::try_from(shared_with_upstream) {
        Ok(SharedWithUpstream::Once) => Shared::Once,
        Ok(SharedWithUpstream::Transitive) => Shared::Transitive,
        _ => Shared::None,
    };
    Some(FilterStateValue {
        factory: if factory_key.is_empty() { arc(key.clone()) } else { arc(factory_key) },
        key: arc(key),
        value: format,
        read_only,
        shared_with_upstream,
        skip_if_empty,
    })
}
