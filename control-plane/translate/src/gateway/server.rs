//! TLS settings of a server.

use mesh_api::gateway::{ServerTls, ServerTlsMode};

use crate::listener::{SecretRef, ServerTlsInputs, Tls};

/// How TLS is terminated; nothing where it is not.
pub(crate) fn server_tls(tls: &ServerTls, http: bool, trust_domains: &[String]) -> Option<Tls> {
    let mutual = match tls.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
        ServerTlsMode::Simple => false,
        ServerTlsMode::Mutual | ServerTlsMode::IstioMutual | ServerTlsMode::OptionalMutual => true,
    };
    let istio = tls.mode == ServerTlsMode::IstioMutual;
    let roots = mutual.then(|| if istio { SecretRef::Agent("ROOTCA".to_owned()) } else { roots(tls) });
    Some(Tls::Server(Box::new(ServerTlsInputs {
        certificates: if istio { vec![SecretRef::Agent("default".to_owned())] } else { certificates(tls) },
        roots,
        require_client_certificate: mutual && tls.mode != ServerTlsMode::OptionalMutual,
        subject_alt_names: tls.subject_alt_names.clone(),
        trust_domains: if istio && tls.subject_alt_names.is_empty() {
            trust_domains.to_vec()
        } else {
            Vec::new()
        },
        spki: tls.verify_certificate_spki.clone(),
        hashes: tls.verify_certificate_hash.clone(),
        alpn: if http { vec!["h2".to_owned(), "http/1.1".to_owned()] } else { Vec::new() },
        minimum: tls.min_protocol_version,
        maximum: tls.max_protocol_version,
        ciphers: tls.cipher_suites.clone(),
        curves: tls.ecdh_curves.clone(),
    })))
}

fn certificates(tls: &ServerTls) -> Vec<SecretRef> {
    let file = |certificate: &str, key: &str| SecretRef::Agent(format!("file-cert:{certificate}~{key}"));
    if !tls.credential_name.is_empty() {
        return vec![SecretRef::ControlPlane(credential(&tls.credential_name))];
    }
    if !tls.credential_names.is_empty() {
        return tls.credential_names.iter().map(|name| SecretRef::ControlPlane(credential(name))).collect();
    }
    if !tls.tls_certificates.is_empty() {
        return tls.tls_certificates.iter().map(|c| file(&c.server_certificate, &c.private_key)).collect();
    }
    vec![file(&tls.server_certificate, &tls.private_key)]
}

fn roots(tls: &ServerTls) -> SecretRef {
    if !tls.ca_cert_credential_name.is_empty() {
        return SecretRef::ControlPlane(format!("{}-cacert", credential(&tls.ca_cert_credential_name)));
    }
    let name = tls.credential_names.first().unwrap_or(&tls.credential_name);
    if !name.is_empty() {
        return SecretRef::ControlPlane(format!("{}-cacert", credential(name)));
    }
    SecretRef::Agent(format!("file-root:{}", tls.ca_certificates))
}

/// A bare name is a Secret of the gateway's namespace.
fn credential(name: &str) -> String {
    if name.contains("://") { name.to_owned() } else { format!("kubernetes://{name}") }
}
