//! `tls_inspector` and `http_inspector`: what the client speaks, by its first bytes.

use super::{Intake, Refused};
use crate::inspect::{self, Finding};

/// Finds TLS, its SNI and ALPN.
pub(super) async fn tls(
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
pub(super) async fn http(intake: &mut Intake) -> Result<(), Refused> {
    if intake.hello.is_some() {
        return Ok(());
    }
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
