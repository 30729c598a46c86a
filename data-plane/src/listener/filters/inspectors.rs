//! `tls_inspector` and `http_inspector`: what the client speaks, by its first bytes.

use super::{Intake, Refused};
use crate::inspect::{self, Finding};
use crate::listener::Listener;
use crate::stats::sets::{http_inspector as http, tls_inspector as tls};

/// Finds TLS, its SNI and ALPN.
pub(super) async fn tls(
    asked: inspect::tls::Asked,
    close_on_parse_error: bool,
    listener: &Listener,
    intake: &mut Intake,
) -> Result<(), Refused> {
    let most = asked.max;
    let result = find_tls(asked, close_on_parse_error, intake).await;
    if let Some(stats) = &listener.inspected.tls {
        count_tls(stats, intake, most);
    }
    result
}

fn count_tls(stats: &tls::Scope, intake: &Intake, most: usize) {
    stats.record(tls::bytes_processed, intake.seen.len() as u64);
    let Some(hello) = &intake.hello else {
        stats.inc(tls::tls_not_found);
        return;
    };
    if hello.broken && intake.seen.len() > most {
        stats.inc(tls::client_hello_too_large);
        return;
    }
    stats.inc(tls::tls_found);
    stats.inc(if hello.alpn.is_empty() { tls::alpn_not_found } else { tls::alpn_found });
    stats.inc(if hello.server_name.is_none() { tls::sni_not_found } else { tls::sni_found });
}

async fn find_tls(
    asked: inspect::tls::Asked,
    close_on_parse_error: bool,
    intake: &mut Intake,
) -> Result<(), Refused> {
    loop {
        if !intake.seen.is_empty() {
            match inspect::tls::inspect(&intake.seen, asked) {
                Finding::Found(hello) if hello.broken && close_on_parse_error => return Err(Refused::Broken),
                Finding::Found(hello) => {
                    intake.hello = Some(hello);
                    return Ok(());
                }
                Finding::Not => return Ok(()),
                Finding::NeedMore => {}
            }
        }
        if !read_or_end(intake).await? {
            return Ok(());
        }
    }
}

/// Finds HTTP/1 and HTTP/2; what is TLS is not looked into.
pub(super) async fn http(listener: &Listener, intake: &mut Intake) -> Result<(), Refused> {
    if intake.hello.is_some() {
        return Ok(());
    }
    let result = find_http(intake).await;
    if let Some(stats) = &listener.inspected.http {
        stats.inc(match intake.http {
            _ if result.is_err() => http::read_error,
            Some(inspect::http::Version::Http10) => http::http10_found,
            Some(inspect::http::Version::Http11) => http::http11_found,
            Some(inspect::http::Version::Http2) => http::http2_found,
            None => http::http_not_found,
        });
    }
    result
}

async fn find_http(intake: &mut Intake) -> Result<(), Refused> {
    loop {
        if !intake.seen.is_empty() {
            match inspect::http::inspect(&intake.seen) {
                Finding::Found(version) => {
                    intake.http = Some(version);
                    return Ok(());
                }
                Finding::Not => return Ok(()),
                Finding::NeedMore => {}
            }
        }
        if !read_or_end(intake).await? {
            return Ok(());
        }
    }
}

/// A client that says nothing and goes is none; one that said something may be served what it is owed: false then.
async fn read_or_end(intake: &mut Intake) -> Result<bool, Refused> {
    match intake.read().await? {
        0 if intake.seen.is_empty() => Err(Refused::Gone),
        0 => Ok(false),
        _ => Ok(true),
    }
}
