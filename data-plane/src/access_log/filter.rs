//! Which streams a log is for.

use std::borrow::Cow;

use rand::Rng;
use sail_proxy_config::access_log::AccessLogFilter;
use sail_proxy_decide::fraction::Runtime;

use super::attributes::View;

/// Whether the filter lets the entry pass.
pub(crate) fn passes(filter: &AccessLogFilter, view: &View<'_>, runtime: &dyn Runtime) -> bool {
    let info = view.info;
    match filter {
        AccessLogFilter::StatusCode(comparison) => {
            comparison.holds(info.response_code.unwrap_or(0).into(), runtime)
        }
        AccessLogFilter::Duration(comparison) => {
            comparison.holds(info.duration().as_millis() as u64, runtime)
        }
        AccessLogFilter::NotHealthCheck => !info.health_check,
        AccessLogFilter::Traceable => info.span.as_ref().is_some_and(|span| span.sampled),
        AccessLogFilter::Runtime(fraction) => {
            let id = info.request_id.as_ref().and_then(|id| std::str::from_utf8(id).ok());
            let random = id.and_then(crate::trace::request_id::sample);
            fraction.hit(random.unwrap_or_else(|| rand::rng().random()), runtime)
        }
        AccessLogFilter::And(all) => all.iter().all(|filter| passes(filter, view, runtime)),
        AccessLogFilter::Or(all) => all.iter().any(|filter| passes(filter, view, runtime)),
        AccessLogFilter::Header(matcher) => {
            let bytes = |text: &str| (!text.is_empty()).then(|| Cow::Owned(text.as_bytes().to_vec()));
            matcher.is_match_value(view.request_header(&matcher.name).as_deref().and_then(bytes))
        }
        AccessLogFilter::ResponseFlag(flags) if flags.is_empty() => !info.flags.is_empty(),
        AccessLogFilter::ResponseFlag(flags) => {
            info.flags.iter().any(|flag| flags.iter().any(|wanted| **wanted == *flag.as_str()))
        }
        AccessLogFilter::GrpcStatus { statuses, exclude } => {
            let status = info.grpc_status.unwrap_or_else(|| grpc_status(info.response_code.unwrap_or(0)));
            statuses.contains(&status) != *exclude
        }
        AccessLogFilter::Metadata { matcher, match_if_key_not_found } => {
            let Some(matcher) = matcher else { return true };
            match view.info.dynamic_metadata.lookup(&matcher.filter, &matcher.path) {
                Some(_) => matcher.is_match(view.info.dynamic_metadata.get(&matcher.filter)),
                None => *match_if_key_not_found,
            }
        }
        AccessLogFilter::Cel(program) => program.holds(view),
        AccessLogFilter::LogType { types, exclude } => types.contains(&view.kind.number()) != *exclude,
    }
}

/// The gRPC status that an HTTP status stands for.
fn grpc_status(http: u16) -> u32 {
    match http {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}
