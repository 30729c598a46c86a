//! Certificates, keys and validation contexts, from PEM or DER.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::{Certificate, Opaque, Secret, ValidationContext};
use crate::convert::{Cx, hash, matchers, type_name, values};
use crate::pb;
use crate::tls::{SanKind, SanMatcher};

/// `Secret`
pub(crate) fn secret(cx: &mut Cx<'_>, value: pb::tls::Secret) -> Option<Secret> {
    use pb::tls::secret::Type;
    match value.r#type {
        Some(Type::TlsCertificate(value)) => {
            let certificate = cx.within("tls_certificate", |cx| certificate(cx, value))?;
            Some(Secret::Certificate(Arc::new(certificate)))
        }
        Some(Type::ValidationContext(value)) => {
            let context = cx.within("validation_context", |cx| validation(cx, value))?;
            Some(Secret::Validation(Arc::new(context)))
        }
        Some(Type::SessionTicketKeys(value)) => {
            let keys = cx.each("session_ticket_keys.keys", value.keys, values::data);
            Some(Secret::SessionTicketKeys(keys.into_iter().map(|(bytes, _)| Opaque(bytes)).collect()))
        }
        Some(Type::GenericSecret(value)) => {
            let pb::tls::GenericSecret { secret, secrets } = value;
            cx.refuse("generic_secret.secrets", &secrets);
            let (bytes, _) = cx.required("generic_secret.secret", secret, values::data)?;
            Some(Secret::Generic(Arc::new(Opaque(bytes))))
        }
        None => {
            cx.error("type", "it must be set");
            None
        }
    }
}

/// `TlsCertificate`
pub(crate) fn certificate(cx: &mut Cx<'_>, value: pb::tls::TlsCertificate) -> Option<Certificate> {
    let pb::tls::TlsCertificate {
        certificate_chain,
        private_key,
        pkcs12,
        watched_directory,
        private_key_provider,
        password,
        ocsp_staple,
        signed_certificate_timestamp,
        tls_params,
    } = value;
    cx.refuse("pkcs12", &pkcs12);
    cx.ignore("watched_directory", &watched_directory, "the files themselves are watched");
    cx.refuse("private_key_provider", &private_key_provider);
    cx.refuse("password", &password);
    cx.refuse("signed_certificate_timestamp", &signed_certificate_timestamp);
    cx.refuse("tls_params", &tls_params);
    let chain = cx.required("certificate_chain", certificate_chain, values::data);
    let key = cx.required("private_key", private_key, values::data);
    let ocsp = cx.option("ocsp_staple", ocsp_staple, values::data);
    let ((chain_bytes, chain_file), (key_bytes, key_file)) = (chain?, key?);
    let chain = certificates(cx, "certificate_chain", &chain_bytes)?;
    if chain.is_empty() {
        cx.error("certificate_chain", "it holds no certificate");
        return None;
    }
    // The parser's error may quote its input, which must not reach a log.
    let key = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|_| "it holds no private key in PEM");
    let key = cx.ok("private_key", key)?;
    let mut all = chain_bytes;
    all.extend_from_slice(&key_bytes);
    Some(Certificate {
        chain,
        key,
        ocsp_staple: ocsp.map(|(bytes, _)| bytes),
        files: [chain_file, key_file].into_iter().flatten().map(PathBuf::from).collect(),
        version: hash(&all),
    })
}

fn certificates(cx: &mut Cx<'_>, field: &str, bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    cx.ok(field, parsed)
}

/// `CertificateValidationContext`
pub(crate) fn validation(
    cx: &mut Cx<'_>,
    value: pb::tls::CertificateValidationContext,
) -> Option<ValidationContext> {
    use pb::tls::certificate_validation_context::TrustChainVerification;
    let version = hash(&prost::Message::encode_to_vec(&value));
    let pb::tls::CertificateValidationContext {
        trusted_ca,
        ca_certificate_provider_instance,
        system_root_certs,
        watched_directory,
        verify_certificate_spki,
        verify_certificate_hash,
        match_typed_subject_alt_names,
        match_subject_alt_names,
        require_signed_certificate_timestamp,
        crl,
        allow_expired_certificate,
        trust_chain_verification,
        custom_validator_config,
        only_verify_leaf_cert_crl,
        max_verify_depth,
        suppress_client_ca_list: _,
    } = value;
    cx.refuse("ca_certificate_provider_instance", &ca_certificate_provider_instance);
    cx.ignore("watched_directory", &watched_directory, "the files themselves are watched");
    cx.refuse("require_signed_certificate_timestamp", &require_signed_certificate_timestamp);
    cx.refuse("max_verify_depth", &max_verify_depth);
    cx.unserved("allow_expired_certificate", &allow_expired_certificate);
    cx.unserved("trust_chain_verification", &trust_chain_verification);
    let mut files = Vec::new();
    let mut version = version;
    let trusted_ca = match trusted_ca {
        Some(value) => {
            let (bytes, file) = cx.within("trusted_ca", |cx| values::data(cx, value))?;
            files.extend(file.map(PathBuf::from));
            version ^= hash(&bytes);
            let roots = certificates(cx, "trusted_ca", &bytes)?;
            if roots.is_empty() {
                cx.error("trusted_ca", "it holds no certificate");
            }
            roots
        }
        None => Vec::new(),
    };
    let crl = match crl {
        Some(value) => {
            let (bytes, file) = cx.within("crl", |cx| values::data(cx, value))?;
            files.extend(file.map(PathBuf::from));
            version ^= hash(&bytes).rotate_left(1);
            let lists: Result<Vec<_>, pem::Error> =
                CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
            cx.ok("crl", lists)?
        }
        None => Vec::new(),
    };
    let spki = cx.each("verify_certificate_spki", verify_certificate_spki, |cx, text| {
        cx.ok("", base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| "it is not base64"))
    });
    let hashes = cx.each("verify_certificate_hash", verify_certificate_hash, |cx, text| {
        cx.ok("", hex::decode(text.replace(':', "")).map_err(|_| "it is not hexadecimal"))
    });
    let mut sans = cx.each("match_typed_subject_alt_names", match_typed_subject_alt_names, typed_san);
    sans.extend(cx.each("match_subject_alt_names", match_subject_alt_names, |cx, value| {
        Some(SanMatcher { kind: SanKind::Any, matcher: matchers::string(cx, value)? })
    }));
    Some(ValidationContext {
        trusted_ca,
        system_roots: system_root_certs.is_some(),
        verify_certificate_spki: spki,
        verify_certificate_hash: hashes,
        match_subject_alt_names: sans,
        crl,
        only_verify_leaf_cert_crl,
        allow_expired_certificate,
        accept_untrusted: trust_chain_verification == TrustChainVerification::AcceptUntrusted as i32,
        spiffe: match custom_validator_config {
            Some(config) => Some(cx.within("custom_validator_config", |cx| spiffe(cx, config))?),
            None => None,
        },
        files,
        version,
    })
}

fn typed_san(cx: &mut Cx<'_>, value: pb::tls::SubjectAltNameMatcher) -> Option<SanMatcher> {
    use pb::tls::subject_alt_name_matcher::SanType;
    let pb::tls::SubjectAltNameMatcher { san_type, matcher, oid } = value;
    let kind = match SanType::try_from(san_type) {
        Ok(SanType::Email) => SanKind::Email,
        Ok(SanType::Dns) => SanKind::Dns,
        Ok(SanType::Uri) => SanKind::Uri,
        Ok(SanType::IpAddress) => SanKind::Ip,
        Ok(SanType::OtherName) => {
            cx.refuse("oid", &oid);
            cx.error("san_type", "names of other kinds are not looked at");
            return None;
        }
        Ok(SanType::Unspecified) | Err(_) => {
            cx.error("san_type", "it must be set");
            return None;
        }
    };
    Some(SanMatcher { kind, matcher: cx.required("matcher", matcher, matchers::string)? })
}

type TrustDomains = Vec<(Box<str>, Vec<CertificateDer<'static>>)>;

fn spiffe(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<TrustDomains> {
    let any = value.typed_config.unwrap_or_default();
    if type_name(&any) != "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig" {
        cx.error("typed_config", format_args!("there is no certificate validator {:?}", type_name(&any)));
        return None;
    }
    let pb::tls::SpiffeCertValidatorConfig { trust_domains, trust_bundles } = cx.unpack(&any)?;
    cx.refuse("trust_bundles", &trust_bundles);
    Some(cx.each("trust_domains", trust_domains, |cx, value| {
        let (bytes, _) = cx.required("trust_bundle", value.trust_bundle, values::data)?;
        Some((value.name.into(), certificates(cx, "trust_bundle", &bytes)?))
    }))
}
