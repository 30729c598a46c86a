//! `typed_per_filter_config`

use std::collections::HashMap;

use sail_proxy_decide::route::{PerFilter, PerFilterConfig};

use crate::convert::{Cx, arc, type_name};
use crate::{http_filter, pb};

/// All entries, sorted by filter name.
pub(super) fn all(cx: &mut Cx<'_>, entries: HashMap<String, pb::Any>) -> PerFilter {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    let converted = entries.into_iter().filter_map(|(name, any)| {
        let config = cx.within(format_args!("typed_per_filter_config[{name}]"), |cx| one(cx, &any))?;
        Some((arc(name), config))
    });
    PerFilter::new(converted.collect())
}

fn one(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    match type_name(any) {
        "envoy.config.route.v3.FilterConfig" => wrapped(cx, any),
        _ => http_filter::read_per_route(cx, any),
    }
}

fn wrapped(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    let pb::route::FilterConfig { config, is_optional, disabled } = cx.unpack(any)?;
    if disabled {
        return Some(PerFilterConfig::Disabled);
    }
    let config = cx.required("config", config, |_, config| Some(config))?;
    // Given, but empty, it says that a filter is there which is disabled otherwise.
    if config.type_url.is_empty() {
        return Some(PerFilterConfig::Enabled);
    }
    if is_optional && !http_filter::has_per_route(&config) {
        cx.warn(
            "config",
            format_args!("the optional {:?} is not supported and left out", type_name(&config)),
        );
        return None;
    }
    cx.within("config", |cx| one(cx, &config))
}
