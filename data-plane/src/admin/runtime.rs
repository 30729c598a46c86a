//! `/runtime` and `/runtime_modify`.

use http::StatusCode;
use serde_json::json;

use super::{Page, Params, text};
use crate::server::Main;

pub(super) fn page(main: &Main) -> Page {
    let runtime = main.runtime.borrow();
    let entries: serde_json::Map<String, serde_json::Value> = runtime
        .keys()
        .into_iter()
        .map(|key| {
            let values: Vec<&str> = runtime.layers(&key).collect();
            let last = values.iter().rev().find(|value| !value.is_empty()).copied().unwrap_or_default();
            let entry = json!({ "final_value": last, "layer_values": values });
            (key, entry)
        })
        .collect();
    super::json(&json!({ "layers": runtime.names(), "entries": entries }))
}

pub(super) fn modify(main: &Main, params: &Params) -> Page {
    let mut runtime = main.runtime.borrow_mut();
    for (key, value) in params.iter() {
        if !runtime.set(key, value) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "No admin layer specified\n".to_owned());
        }
    }
    text(StatusCode::OK, "OK\n".to_owned())
}
