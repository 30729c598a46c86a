//! Secrets in `/config_dump`, without what is secret of them.

use prost::Message;
use xds_api::any;
use xds_api::envoy::admin::v3::{SecretsConfigDump, secrets_config_dump};
use xds_api::envoy::config::bootstrap::v3::Bootstrap;
use xds_api::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds_api::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use xds_api::type_url;

use super::{Part, timestamp};
use crate::server::Main;
use crate::xds::Manager;

pub(super) fn part(main: &Main, manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Part {
    let mut dump = SecretsConfigDump::default();
    let bootstrap = Bootstrap::decode(main.bootstrap.clone()).unwrap_or_default();
    let fixed = bootstrap.static_resources.map(|fixed| fixed.secrets).unwrap_or_default();
    for mut secret in fixed.into_iter().filter(|secret| keep(&secret.name)) {
        redact(&mut secret);
        dump.static_secrets.push(secrets_config_dump::StaticSecret {
            name: secret.name.clone(),
            secret: Some(any::pack(&secret)),
            ..Default::default()
        });
    }
    manager.with_kind(type_url::SECRET, |kind| {
        for (name, held) in kind.into_iter().flat_map(|kind| &kind.held).filter(|(name, _)| keep(name)) {
            let mut secret = Secret::decode(held.body.clone()).unwrap_or_default();
            redact(&mut secret);
            dump.dynamic_active_secrets.push(secrets_config_dump::DynamicSecret {
                name: name.to_string(),
                version_info: held.version.to_string(),
                last_updated: timestamp(held.updated),
                secret: Some(any::pack(&secret)),
                ..Default::default()
            });
        }
    });
    for name in manager.missing_secrets().into_iter().filter(|name| keep(name)) {
        let secret = Secret { name: name.clone(), ..Secret::default() };
        dump.dynamic_warming_secrets.push(secrets_config_dump::DynamicSecret {
            name,
            version_info: "uninitialized".to_owned(),
            secret: Some(any::pack(&secret)),
            ..Default::default()
        });
    }
    let resource = "secrets static_secrets dynamic_active_secrets dynamic_warming_secrets";
    Part { resource, message: any::pack(&dump) }
}

/// Keys and the like become the word `[redacted]`.
pub(super) fn redact(secret: &mut Secret) {
    let hide = |source: &mut Option<DataSource>| {
        if let Some(source) = source {
            source.specifier = Some(match &source.specifier {
                // A name is no secret.
                Some(Specifier::Filename(name)) => Specifier::Filename(name.clone()),
                Some(Specifier::InlineString(_)) => Specifier::InlineString("[redacted]".to_owned()),
                _ => Specifier::InlineBytes(b"[redacted]".to_vec()),
            });
        }
    };
    match &mut secret.r#type {
        Some(secret::Type::TlsCertificate(certificate)) => {
            hide(&mut certificate.private_key);
            hide(&mut certificate.password);
            hide(&mut certificate.pkcs12);
        }
        Some(secret::Type::SessionTicketKeys(keys)) => {
            for key in &mut keys.keys {
                key.specifier = Some(Specifier::InlineBytes(b"[redacted]".to_vec()));
            }
        }
        Some(secret::Type::GenericSecret(generic)) => hide(&mut generic.secret),
        Some(secret::Type::ValidationContext(_)) | None => {}
    }
}
