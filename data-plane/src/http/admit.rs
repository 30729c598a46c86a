//! What is refused before anything else looks at a request, and the one form of its path.

use std::borrow::Cow;

use http::{Extensions, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use sail_proxy_config::hcm::Underscores;

use super::exchange::Exchange;
use super::head::Head;
use super::local_reply::LocalReply;
use super::path;
use crate::http1::request::{Fragment, LengthBesideChunks};
use crate::stats::sets::{http as stats, http1, http2};
use crate::stream_info::{ResponseFlag, details};

const LOCAL_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-local-overloaded");

/// Refuses what the codec has read in one of two ways: nothing else is known of the request.
pub(super) fn framing(exchange: &Exchange, head: &Head, told: &Extensions) -> Option<LocalReply> {
    let connection = &exchange.connection;
    let both = told.get::<LengthBesideChunks>().is_some();
    if !both || connection.manager.config.http1.allow_chunked_length || head.is_connect() {
        return None;
    }
    connection.manager.stats.inc(stats::downstream_cx_protocol_error);
    connection.close_after_this();
    let details = details::HTTP1_LENGTH_AND_CHUNKED;
    let reply = LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details);
    Some(reply.flag(ResponseFlag::DownstreamProtocolError))
}

/// Checks a request's head, and puts its path into one form.
pub(super) fn check(exchange: &Exchange, head: &mut Head, told: &Extensions) -> Result<(), LocalReply> {
    if exchange.connection.worker.shared.options.overload.stops_requests() {
        exchange.connection.manager.stats.inc(stats::downstream_rq_overload_close);
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "envoy overloaded", details::OVERLOAD);
        let reply = reply.flag(ResponseFlag::OverloadManagerTerminated);
        return Err(match exchange.connection.manager.config.append_local_overload {
            true => reply.header(LOCAL_OVERLOADED, HeaderValue::from_static("true")),
            false => reply,
        });
    }
    check_version(exchange, head)?;
    let manager = &exchange.connection.manager;
    if head.path == "*" && head.method != Method::OPTIONS {
        exchange.connection.close_after_this();
        let reply = LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details::HTTP1_INVALID_URL);
        return Err(reply.flag(ResponseFlag::DownstreamProtocolError));
    }
    if head.method != Method::CONNECT && !head.path.as_str().starts_with('/') {
        manager.stats.inc(stats::downstream_rq_non_relative_path);
        return Err(LocalReply::new(StatusCode::NOT_FOUND, "", details::ABSOLUTE_PATH));
    }
    if head.headers.len() > manager.max_headers() {
        manager.stats.inc(stats::downstream_rq_too_large);
        return Err(LocalReply::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "",
            details::REQUEST_HEADERS_TOO_LARGE,
        ));
    }
    underscores(exchange, head)?;
    normalize(exchange, head, told.get())
}

fn check_version(exchange: &Exchange, head: &mut Head) -> Result<(), LocalReply> {
    let manager = &exchange.connection.manager;
    if head.version < Version::HTTP_11 && !manager.accepts_http10() {
        exchange.connection.close_after_this();
        let reply = LocalReply::new(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", details::LOW_VERSION);
        return Err(reply.flag(ResponseFlag::DownstreamProtocolError));
    }
    if head.authority.is_empty() && head.version < Version::HTTP_11 {
        match manager.default_host() {
            Some(host) => head.authority = host,
            None => {
                exchange.connection.close_after_this();
                return Err(LocalReply::new(StatusCode::BAD_REQUEST, "", details::MISSING_HOST_HEADER));
            }
        }
    }
    Ok(())
}

/// Names with underscores look like others to servers that turn hyphens into them.
fn underscores(exchange: &Exchange, head: &mut Head) -> Result<(), LocalReply> {
    let manager = &exchange.connection.manager;
    let action = manager.config.underscores;
    if action == Underscores::Allow {
        return Ok(());
    }
    let found: Vec<HeaderName> =
        head.headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    if found.is_empty() {
        return Ok(());
    }
    if action == Underscores::RejectRequest {
        if exchange.connection.http2 {
            manager.http2.inc(http2::requests_rejected_with_underscores_in_headers);
        } else {
            manager.http1.inc(http1::requests_rejected_with_underscores_in_headers);
        }
        exchange.connection.close_after_this();
        let reply = LocalReply::new(StatusCode::BAD_REQUEST, "Bad Request", details::UNEXPECTED_UNDERSCORE);
        return Err(reply.flag(ResponseFlag::DownstreamProtocolError));
    }
    for name in found {
        if exchange.connection.http2 {
            manager.http2.inc(http2::dropped_headers_with_underscores);
        } else {
            manager.http1.inc(http1::dropped_headers_with_underscores);
        }
        head.headers.remove(name);
    }
    Ok(())
}

fn normalize(exchange: &Exchange, head: &mut Head, fragment: Option<&Fragment>) -> Result<(), LocalReply> {
    let manager = &exchange.connection.manager;
    if let Some(Fragment(fragment)) = fragment {
        let whole = [head.path.as_str().as_bytes(), fragment].concat();
        exchange.info.borrow_mut().request.path = Some(whole.into());
        return Err(bad_path(exchange));
    }
    match path::normalize(head.path.as_str(), manager.path_rules()) {
        path::Outcome::Path(Cow::Borrowed(_)) => {}
        path::Outcome::Path(Cow::Owned(path)) => match path.try_into() {
            Ok(path) => head.path = path,
            Err(_) => return Err(bad_path(exchange)),
        },
        path::Outcome::Reject => return Err(bad_path(exchange)),
        path::Outcome::Redirect(path) => {
            manager.stats.inc(stats::downstream_rq_redirected_with_normalized_path);
            let location = HeaderValue::try_from(path).map_err(|_| bad_path(exchange))?;
            return Err(LocalReply::new(
                StatusCode::TEMPORARY_REDIRECT,
                "",
                details::PATH_NORMALIZATION_FAILED,
            )
            .header(header::LOCATION, location));
        }
    }
    Ok(())
}

fn bad_path(exchange: &Exchange) -> LocalReply {
    let connection = &exchange.connection;
    if !connection.http2 {
        connection.close_after_this();
    }
    let manager = &connection.manager;
    manager.stats.inc(stats::downstream_rq_failed_path_normalization);
    LocalReply::new(StatusCode::BAD_REQUEST, "", details::PATH_NORMALIZATION_FAILED)
}
