//! What a resource must be beyond what its own message says: called as it was asked for, of the kind that is wanted, with
//! clusters that are known, at an address that nobody has.

use std::sync::Arc;

use prost::Message;
use sail_proxy_config::listener::Listener as RunListener;
use sail_proxy_decide::address::Address;
use xds_api::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
use xds_api::type_url;
use xds_stream::kind::own_name;

use super::needs::Need;

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SecretKind {
    Certificate,
    Validation,
    SessionTicketKeys,
    Generic,
}

impl SecretKind {
    /// The field that a secret of this kind has set.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Certificate => "tls_certificate",
            Self::Validation => "validation_context",
            Self::SessionTicketKeys => "session_ticket_keys",
            Self::Generic => "generic_secret",
        }
    }
}

/// Refuses a resource whose own name is not that by which it was asked for: it would take another's place.
pub(super) fn is_called(type_url: &str, name: &str, body: &[u8]) -> Result<(), String> {
    let by_name = [type_url::ENDPOINT, type_url::ROUTE, type_url::SECRET, type_url::EXTENSION_CONFIG];
    if !by_name.contains(&type_url) {
        return Ok(());
    }
    match own_name(body).map_err(|error| error.to_string())? {
        own if own == name => Ok(()),
        own => Err(format!("its name is {own:?} where {name:?} was expected")),
    }
}

/// Refuses a secret that is of no use to those who ask for it, so that they keep the one that they have.
pub(super) fn is_wanted_kind<'a>(
    name: &str,
    body: &[u8],
    mut needs: impl Iterator<Item = &'a Need>,
) -> Result<(), String> {
    let secret = Secret::decode(body).map_err(|error| error.to_string())?;
    let found = match &secret.r#type {
        Some(Type::TlsCertificate(_)) => SecretKind::Certificate,
        Some(Type::ValidationContext(_)) => SecretKind::Validation,
        Some(Type::SessionTicketKeys(_)) => SecretKind::SessionTicketKeys,
        Some(Type::GenericSecret(_)) => SecretKind::Generic,
        None => return Err("type: required".to_owned()),
    };
    let expected = |need: &Need| need.secret.filter(|kind| need.name == name && *kind != found);
    match needs.find_map(expected) {
        None => Ok(()),
        Some(kind) => Err(format!("it is a {} where a {} was expected", found.field(), kind.field())),
    }
}

/// Refuses a listener at an address that another has: connections would come to either of them.
pub(super) fn has_own_addresses<'a>(
    listener: &RunListener,
    mut others: impl Iterator<Item = &'a Arc<RunListener>>,
) -> Result<(), String> {
    let same = |other: &RunListener| {
        let theirs = other.addresses.iter().filter(|address| match address {
            // The kernel finds a port for each.
            Address::Ip(address) => address.port() != 0 || !other.bind_to_port,
            _ => true,
        });
        theirs.into_iter().find(|address| listener.addresses.contains(address)).cloned()
    };
    let found = others.find_map(|other| {
        let address = same(other).filter(|_| other.name != listener.name)?;
        Some((&other.name, address))
    });
    match found {
        None => Ok(()),
        Some((other, address)) => Err(format!("listener {other} has its address {address} already")),
    }
}
