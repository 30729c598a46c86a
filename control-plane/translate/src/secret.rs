//! Certificates of gateways, from Secrets of their own namespace.

use std::sync::Arc;

use prost::Message;
use saild_model::{Mesh, ProxyView, Secret};
use xds_api::any::pack;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::extensions::transport_sockets::tls::v3 as tls;

use crate::cache::version_of;
use crate::resource::{Generated, NamedResource, Names};
use crate::warning::Warning;

/// The suffix of names that mean the roots in a Secret.
const ROOTS: &str = "-cacert";

/// The secrets of those names: those that a proxy may have.
pub(crate) fn secrets(mesh: &Mesh, proxy: &ProxyView, names: &Names) -> Generated {
    let mut out = Generated::default();
    let Names::Set(names) = names else { return out };
    for name in names {
        match secret(mesh, proxy, name) {
            Ok(secret) => {
                let version = version_of(&secret.encode_to_vec());
                let resource = NamedResource { name: name.as_str().into(), version, any: pack(&secret) };
                out.resources.push(Arc::new(resource));
            }
            Err(reason) => {
                out.removed.push(name.clone());
                out.warnings.push(Warning {
                    kind: "Secret".to_owned(),
                    namespace: proxy.namespace.clone(),
                    name: name.clone(),
                    message: reason,
                });
            }
        }
    }
    out
}

/// A name as `kubernetes://name`, `kubernetes://namespace/name`, `kubernetes-gateway://namespace/name` or
/// `configmap://namespace/name`.
fn secret(mesh: &Mesh, proxy: &ProxyView, name: &str) -> Result<tls::Secret, String> {
    let (scheme, path) = name.split_once("://").unwrap_or(("kubernetes", name));
    let (path, roots) = match path.strip_suffix(ROOTS) {
        Some(path) => (path, true),
        None => (path, false),
    };
    let (namespace, object) = path.split_once('/').unwrap_or((&proxy.namespace, path));
    // A key must not leave its namespace: whoever may run a pod there may read it anyway.
    if namespace != proxy.namespace && scheme != "configmap" {
        return Err(format!("proxies of namespace {} may not read Secrets of {namespace}", proxy.namespace));
    }
    let lookup = |object: &str| match scheme {
        "kubernetes" | "kubernetes-gateway" => Ok(mesh.secret(namespace, object)),
        "configmap" => Ok(mesh.config_map(namespace, object)),
        other => Err(format!("credentials of scheme {other:?} are not known")),
    };
    let missing = || format!("there is no Secret {object} in namespace {namespace}");
    let r#type = if roots || scheme == "configmap" {
        // Roots may stand in a Secret of their own, which is named with the suffix.
        let own = lookup(&format!("{object}{ROOTS}"))?.filter(|_| roots);
        let source = own.or(lookup(object)?).ok_or_else(missing)?;
        tls::secret::Type::ValidationContext(roots_of(source)?)
    } else {
        tls::secret::Type::TlsCertificate(certificate_of(lookup(object)?.ok_or_else(missing)?)?)
    };
    Ok(tls::Secret { name: name.to_owned(), r#type: Some(r#type) })
}

fn certificate_of(secret: &Secret) -> Result<tls::TlsCertificate, String> {
    let chain = first(secret, &["tls.crt", "cert"])?;
    let key = first(secret, &["tls.key", "key"])?;
    Ok(tls::TlsCertificate {
        certificate_chain: bytes(chain),
        private_key: bytes(key),
        ocsp_staple: secret.data.get("tls.ocsp-staple").and_then(|staple| bytes(staple)),
        ..Default::default()
    })
}

fn roots_of(secret: &Secret) -> Result<tls::CertificateValidationContext, String> {
    let roots = first(secret, &["ca.crt", "cacert"])?;
    let crl = ["ca.crl", "crl"].iter().find_map(|key| secret.data.get(*key));
    Ok(tls::CertificateValidationContext {
        trusted_ca: bytes(roots),
        crl: crl.and_then(|crl| bytes(crl)),
        ..Default::default()
    })
}

fn first<'a>(secret: &'a Secret, keys: &[&str]) -> Result<&'a [u8], String> {
    let found = keys.iter().find_map(|key| secret.data.get(*key)).filter(|data| !data.is_empty());
    found.map(Vec::as_slice).ok_or_else(|| {
        format!(
            "Secret {} in namespace {} has none of the keys {}",
            secret.name,
            secret.namespace,
            keys.join(", ")
        )
    })
}

fn bytes(data: &[u8]) -> Option<core::DataSource> {
    let specifier = core::data_source::Specifier::InlineBytes(data.to_vec());
    Some(core::DataSource { specifier: Some(specifier), ..Default::default() })
}
