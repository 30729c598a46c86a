//! `/stats`, `/stats/prometheus`, `/reset_counters`.

use http::StatusCode;
use regex::Regex;

use super::{Page, Params, json, respond, text};
use crate::server::Main;
use crate::stats::{self, Kind, Query};

pub(super) fn page(main: &Main, params: &Params) -> Page {
    match params.get("format") {
        Some("prometheus") => prometheus(main, params),
        Some("json") => with(main, params, |query| json(&stats::json(&main.stats, &main.rules, query))),
        None | Some("text" | "html" | "") => {
            with(main, params, |query| text(StatusCode::OK, stats::text(&main.stats, &main.rules, query)))
        }
        Some(other) => {
            let said = format!("usage: /stats?format=(html|json|prometheus|text), not {other}\n");
            text(StatusCode::BAD_REQUEST, said)
        }
    }
}

pub(super) fn prometheus(main: &Main, params: &Params) -> Page {
    with(main, params, |query| {
        let body = stats::prometheus(&main.stats, &main.rules, query);
        respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
    })
}

pub(super) fn reset(main: &Main) -> Page {
    main.stats.reset_counters();
    text(StatusCode::OK, "OK\n".to_owned())
}

fn with(main: &Main, params: &Params, page: impl FnOnce(&Query) -> Page) -> Page {
    main.refresh_stats();
    match query(params) {
        Ok(query) => page(&query),
        Err(said) => text(StatusCode::BAD_REQUEST, said),
    }
}

fn query(params: &Params) -> Result<Query, String> {
    let filter = params.get("filter").filter(|filter| !filter.is_empty()).map(Regex::new).transpose();
    let filter = filter.map_err(|error| format!("Invalid re2 regex: {error}\n"))?;
    let kind = match params.get("type") {
        None | Some("All" | "") => None,
        Some("Counters") => Some(Kind::Counter),
        Some("Gauges") => Some(Kind::Gauge),
        Some("Histograms") => Some(Kind::Histogram),
        Some("TextReadouts") => Some(Kind::Text),
        Some(other) => return Err(format!("invalid &type= param {other}\n")),
    };
    let known = ["", "cumulative", "disjoint", "detailed", "summary", "prometheusnative"];
    if params.get("histogram_buckets").is_some_and(|shape| !known.contains(&shape)) {
        return Err(format!("usage: /stats?histogram_buckets=({})\n", known[1..].join("|")));
    }
    let has = |name| params.has(name);
    let (used_only, inverted, texts) = (has("usedonly"), has("invert_filter"), has("text_readouts"));
    Ok(Query { used_only, filter, inverted, kind, texts })
}
