//! `proxy_protocol`: the addresses of the client, as a load balancer before us tells them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf;
use sail_proxy_config::listener::{ProxyProtocol, TlvEncoding, TlvLocation};
use sail_proxy_config::tls::ProxyProtocolVersion;

use super::{Intake, Refused, canonical};
use crate::net::proxy_protocol::{Found, Header, Version, parse};
use crate::stats::sets::proxy_protocol as stats;
use crate::stream_info::TLV_STATE;
use crate::worker::state::Worker;

pub(super) async fn run(config: &ProxyProtocol, worker: &Worker, intake: &mut Intake) -> Result<(), Refused> {
    let scope: stats::Scope = worker.shared.store.pinned(&config.stat_prefix);
    let found = loop {
        match parse(&intake.seen) {
            Found::NeedMore => {}
            found => break found,
        }
        if intake.read().await? == 0 {
            return Err(Refused::Gone);
        }
    };
    let disallowed = |version: Version| {
        config.disallowed.iter().any(|disallowed| match disallowed {
            ProxyProtocolVersion::V1 => version == Version::V1,
            ProxyProtocolVersion::V2 => version == Version::V2,
        })
    };
    let version = match &found {
        Found::Header(header) => header.version,
        Found::Broken(version) => *version,
        Found::NeedMore | Found::Not => {
            return without(config, &scope);
        }
    };
    if disallowed(version) {
        scope.inc(match version {
            Version::V1 => stats::v1_disallowed,
            Version::V2 => stats::v2_disallowed,
        });
        // Where headers are optional, this one is the client's own data.
        return if config.allow_without { Ok(()) } else { Err(Refused::Broken) };
    }
    let Found::Header(header) = found else {
        scope.inc(match version {
            Version::V1 => stats::v1_error,
            Version::V2 => stats::v2_error,
        });
        return Err(Refused::Broken);
    };
    scope.inc(match version {
        Version::V1 => stats::v1_found,
        Version::V2 => stats::v2_found,
    });
    take(config, header, intake);
    Ok(())
}

fn without(config: &ProxyProtocol, scope: &stats::Scope) -> Result<(), Refused> {
    if config.allow_without {
        scope.inc(stats::not_found_allowed);
        return Ok(());
    }
    scope.inc(stats::not_found_disallowed);
    Err(Refused::Broken)
}

fn take(config: &ProxyProtocol, header: Header, intake: &mut Intake) {
    intake.seen.advance(header.length);
    if let Some((source, destination)) = header.addresses {
        intake.remote = canonical(source);
        intake.local = canonical(destination);
        intake.original = Some(intake.local);
    }
    intake.proxied = true;
    let mut object = serde_json::Map::new();
    for (kind, value) in &header.tlvs {
        for rule in config.rules.iter().filter(|rule| rule.tlv_type == *kind) {
            let text = match rule.encoding {
                TlvEncoding::SanitizedUtf8 => sanitized(value),
                TlvEncoding::Base64 => STANDARD.encode(value),
            };
            match config.location {
                TlvLocation::DynamicMetadata => intake.metadata.set(&rule.namespace, &rule.key, text.into()),
                TlvLocation::FilterState => {
                    object.insert(rule.key.to_string(), text.into());
                }
            }
        }
    }
    if !object.is_empty() {
        let object = serde_json::Value::Object(object).to_string();
        intake.filter_state.push((TLV_STATE.into(), object.into()));
    }
    intake.tlvs = header.tlvs.into_iter().filter(|(kind, _)| config.pass.passes(*kind)).collect();
}

/// What is not UTF-8 becomes `!`.
fn sanitized(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}
