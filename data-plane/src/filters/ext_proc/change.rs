//! What the service is shown of a head, and how its changes are carried out.

use http::HeaderMap;
use sail_proxy_config::http_filter::ext_proc::ExtProc;
use sail_proxy_decide::headers::AppendAction;
use sail_proxy_decide::mutation_rules::Check;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::ext_proc::v3::body_mutation::Mutation;
use xds_api::envoy::service::ext_proc::v3::{BodyMutation, HeaderMutation};

use super::session::{Session, Stop};
use crate::filters::edit::Invalid;
use crate::stats::sets::http_ext_proc as stats;

/// Headers as the service sees them.
pub(super) fn shown<'a>(
    config: &ExtProc,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> core::HeaderMap {
    let seen = |name: &str| {
        let named = |list: &[sail_proxy_decide::matcher::StringMatcher]| {
            list.iter().any(|matcher| matcher.is_match(name.as_bytes()))
        };
        config.allowed_headers.as_deref().is_none_or(named) && !named(&config.disallowed_headers)
    };
    let headers = headers.filter(|(name, _)| seen(name)).map(|(name, value)| core::HeaderValue {
        key: name.to_owned(),
        raw_value: value.to_vec(),
        ..Default::default()
    });
    core::HeaderMap { headers: headers.collect() }
}

/// Names and values of a map.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

/// Changes that the service wants.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) mutation: Option<HeaderMutation>,
    /// Whether `content-length` is the service's to set.
    pub(super) length: bool,
}

/// Carries changes out, through a writer and a remover. `Err` if one is not allowed and that is an error.
pub(super) fn apply(
    session: &Session,
    changes: Changes,
    mut set: impl FnMut(&str, &[u8], AppendAction) -> Result<(), Invalid>,
    mut remove: impl FnMut(&str),
) -> Result<(), Invalid> {
    let HeaderMutation { set_headers, remove_headers } = changes.mutation.unwrap_or_default();
    for name in remove_headers {
        let name = name.to_ascii_lowercase();
        match session.config.mutation_rules.may_remove(&name) {
            Check::Allowed => remove(&name),
            Check::Ignored => session.stats.inc(stats::rejected_header_mutations),
            Check::Failed => return Err(Invalid),
        }
    }
    for option in set_headers {
        let Some((name, value, action)) = crate::filters::ext_authz::option(option) else { continue };
        let name = name.to_ascii_lowercase();
        // The body's length is what it is.
        if (name == "content-length" && !changes.length) || name == "transfer-encoding" {
            continue;
        }
        // A response's status is no routing header.
        match if name == ":status" { Check::Allowed } else { session.config.mutation_rules.may_set(&name) } {
            Check::Allowed => set(&name, &value, action)?,
            Check::Ignored => session.stats.inc(stats::rejected_header_mutations),
            Check::Failed => return Err(Invalid),
        }
    }
    Ok(())
}

/// A change that is not allowed fails the request.
pub(super) fn rejected(session: &Session) -> Stop {
    session.stats.inc(stats::rejected_header_mutations);
    session.over.set(true);
    Stop::Failed("rejected_mutation".to_owned())
}

/// The bytes that take a body's place, if others do.
pub(super) fn replaced(mutation: Option<BodyMutation>) -> Option<Vec<u8>> {
    match mutation?.mutation? {
        Mutation::Body(body) => Some(body),
        Mutation::ClearBody(true) => Some(Vec::new()),
        Mutation::ClearBody(false) | Mutation::StreamedResponse(_) => None,
    }
}
