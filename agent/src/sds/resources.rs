//! Secrets by resource name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_contract::sds;
use identity::{Svid, TrustBundle};
use xds_api::any;
use xds_api::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds_api::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};
use xds_api::google::protobuf::Any;

use crate::secrets::{SecretsWatch, read};

/// What one stream can ask for.
pub(super) struct Resources {
    secrets: SecretsWatch,
    /// The last good content of each file resource: a half-written file must do no harm.
    files: HashMap<String, Arc<Any>>,
}

impl Resources {
    pub(super) fn new(secrets: SecretsWatch) -> Self {
        Self { secrets, files: HashMap::new() }
    }

    /// Resolves when the workload's secrets change.
    pub(super) async fn changed(&mut self) -> Result<(), tokio::sync::watch::error::RecvError> {
        self.secrets.changed().await
    }

    /// `None` while it is not there yet.
    pub(super) fn get(&mut self, name: &str) -> Option<Arc<Any>> {
        match name {
            sds::WORKLOAD => {
                let svid = self.secrets.borrow().workload.clone()?;
                Some(pack(name, certificate(&svid)))
            }
            sds::ROOT => {
                let bundle = self.secrets.borrow().bundle.clone()?;
                Some(pack(name, validation(&bundle)))
            }
            name => self.file(name),
        }
    }

    fn file(&mut self, name: &str) -> Option<Arc<Any>> {
        match load(name) {
            Ok(content) => {
                let secret = pack(name, content?);
                self.files.insert(name.to_owned(), Arc::clone(&secret));
                Some(secret)
            }
            Err(error) => {
                tracing::warn!(resource = name, error = format!("{error:#}"), "this secret cannot be read");
                self.files.get(name).cloned()
            }
        }
    }
}

/// The files that a resource is made from.
pub(super) fn files(name: &str) -> Vec<PathBuf> {
    if let Some(pair) = name.strip_prefix(sds::FILE_CERT_PREFIX) {
        return pair.split(sds::FILE_SEPARATOR).map(PathBuf::from).collect();
    }
    match name.strip_prefix(sds::FILE_ROOT_PREFIX) {
        Some(path) if name != sds::FILE_ROOT_SYSTEM => vec![PathBuf::from(path)],
        _ => Vec::new(),
    }
}

/// `None` for names that are served elsewhere.
fn load(name: &str) -> anyhow::Result<Option<Type>> {
    let paths = files(name);
    match paths.as_slice() {
        [chain, key] => Ok(Some(certificate(&Svid::from_pem(&read(chain)?, &read(key)?)?))),
        [root] if name.starts_with(sds::FILE_ROOT_PREFIX) => {
            Ok(Some(validation(&TrustBundle::from_pem(&read(root)?)?)))
        }
        [_, ..] => anyhow::bail!("{name:?} is not of the form file-cert:CHAIN~KEY"),
        [] if name == sds::FILE_ROOT_SYSTEM => {
            let path = Path::new("/etc/ssl/certs/ca-certificates.crt");
            Ok(Some(validation(&TrustBundle::from_pem(&read(path)?)?)))
        }
        [] => anyhow::bail!("no such secret here: {name:?}"),
    }
}

fn inline(text: String) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(text.into_bytes())), ..Default::default() })
}

fn certificate(svid: &Svid) -> Type {
    Type::TlsCertificate(TlsCertificate {
        certificate_chain: inline(svid.chain().to_pem()),
        private_key: inline(svid.key().to_pem()),
        ..Default::default()
    })
}

fn validation(bundle: &TrustBundle) -> Type {
    Type::ValidationContext(CertificateValidationContext {
        trusted_ca: inline(bundle.to_pem()),
        ..Default::default()
    })
}

fn pack(name: &str, content: Type) -> Arc<Any> {
    Arc::new(any::pack(&Secret { name: name.to_owned(), r#type: Some(content) }))
}
