//! Certificates, keys and validation contexts, from PEM or DER.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::{Certificate, FileSource, Opaque, Secret, Source, TicketKeys, ValidationContext, ocsp};
use crate::convert::{Cx, hash, matchers, type_name, values};
use crate::pb;
use crate::tls::{SanKind, SanMatcher};

/// `Secret`
pub(crate) fn secret(cx: &mut Cx<'_>, value: pb::tls::Secret) -> Option<Secret> {
    use pb::tls::secret::Type;
    match value.r#type {
        Some(Type::TlsCertificate(value)) => {
            let certificate = cx.within("tls_certificate", |cx| certificate(cx, value))?;
            Some(Secret::Certificate(certificate))
        }
        Some(Type::ValidationContext(value)) => {
            let context = cx.within("validation_context", |cx| validation(cx, value))?;
            Some(Secret::Validation(context))
        }
        Some(Type::SessionTicketKeys(value)) => {
            let keys = cx.within("session_ticket_keys", |cx| ticket_keys(cx, value))?;
            Some(Secret::SessionTicketKeys(keys))
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

/// A name, a key of HMAC-SHA256, a key of AES-256.
const TICKET_KEY: usize = 16 + 32 + 32;

/// `TlsSessionTicketKeys`
pub(crate) fn ticket_keys(cx: &mut Cx<'_>, value: pb::tls::TlsSessionTicketKeys) -> Option<Arc<TicketKeys>> {
    if value.keys.is_empty() {
        cx.error("keys", "it must not be empty");
    }
    let keys = cx.each("keys", value.keys, |cx, key| {
        let (bytes, _) = values::data(cx, key)?;
        if bytes.len() != TICKET_KEY {
            cx.error("", format_args!("it has {} bytes, and must have {TICKET_KEY}", bytes.len()));
            return None;
        }
        Some(Opaque(bytes))
    });
    let version = keys.iter().fold(0, |version: u64, key| version.rotate_left(7) ^ hash(&key.0));
    Some(Arc::new(TicketKeys { keys: keys.into(), version }))
}

/// `TlsCertificate`
pub(crate) fn certificate(cx: &mut Cx<'_>, value: pb::tls::TlsCertificate) -> Option<Arc<Certificate>> {
    let again = value.clone();
    let id = hash(&prost::Message::encode_to_vec(&value));
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
    cx.refuse("private_key_provider", &private_key_provider);
    cx.refuse("password", &password);
    cx.refuse("signed_certificate_timestamp", &signed_certificate_timestamp);
    cx.refuse("tls_params", &tls_params);
    let mut bytes = Bytes::new(id, watched_directory);
    let chain = cx.required("certificate_chain", certificate_chain, |cx, value| bytes.read(cx, value));
    let key = cx.required("private_key", private_key, |cx, value| bytes.read(cx, value));
    let ocsp = cx.option("ocsp_staple", ocsp_staple, |cx, value| bytes.read(cx, value));
    let (chain, key) = (chain?, key?);
    let chain = certificates(cx, "certificate_chain", &chain)?;
    if chain.is_empty() {
        cx.error("certificate_chain", "it holds no certificate");
        return None;
    }
    // The parser's error may quote its input, which must not reach a log.
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| "it holds no private key in PEM");
    let key = cx.ok("private_key", key)?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut certified = match CertifiedKey::from_der(chain, key, &provider) {
        Ok(certified) => certified,
        Err(rustls::Error::InconsistentKeys(_)) => {
            cx.error("private_key", "it is not the key of the certificate");
            return None;
        }
        Err(error) => {
            cx.error("certificate_chain", format_args!("it cannot be used with the key: {error}"));
            return None;
        }
    };
    let staple = match (&ocsp, certified.cert.first()) {
        (Some(response), Some(leaf)) => Some(cx.ok("ocsp_staple", ocsp::staple(response, leaf))?),
        _ => None,
    };
    let must_staple = certified.cert.first().is_some_and(|leaf| ocsp::must_staple(leaf));
    certified.ocsp = ocsp;
    let (files, version) = bytes.finish();
    let certificate =
        Arc::new(Certificate { certified: Arc::new(certified), staple, must_staple, files, version });
    if let Some(files) = &certificate.files {
        cx.rereads.push(Source::certificate(files, again, &certificate));
    }
    Some(certificate)
}

/// Bytes that a message is made of: a hash of all of them, and the files that some were read from.
struct Bytes {
    id: u64,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    version: u64,
}

impl Bytes {
    fn new(id: u64, watched: Option<pb::core::WatchedDirectory>) -> Self {
        let directories = watched.into_iter().map(|watched| PathBuf::from(watched.path)).collect();
        Self { id, files: Vec::new(), directories, version: 0 }
    }

    fn read(&mut self, cx: &mut Cx<'_>, value: pb::core::DataSource) -> Option<Vec<u8>> {
        self.directories.extend(value.watched_directory.iter().map(|watched| PathBuf::from(&watched.path)));
        let (bytes, file) = values::data(cx, value)?;
        self.files.extend(file.map(PathBuf::from));
        // The order counts: a key and a certificate that change places are others.
        self.version = self.version.rotate_left(7) ^ hash(&bytes);
        Some(bytes)
    }

    fn finish(self) -> (Option<FileSource>, u64) {
        (FileSource::new(self.id, self.files, self.directories), self.version)
    }
}

fn certificates(cx: &mut Cx<'_>, field: &str, bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(bytes).collect();
    cx.ok(field, parsed)
}

/// `CertificateValidationContext`
pub(crate) fn validation(
    cx: &mut Cx<'_>,
    value: pb::tls::CertificateValidationContext,
) -> Option<Arc<ValidationContext>> {
    use pb::tls::certificate_validation_context::TrustChainVerification;
    let id = hash(&prost::Message::encode_to_vec(&value));
    let again = value.clone();
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
        suppress_client_ca_list,
    } = value;
    cx.refuse("ca_certificate_provider_instance", &ca_certificate_provider_instance);
    cx.refuse("require_signed_certificate_timestamp", &require_signed_certificate_timestamp);
    cx.ignore("suppress_client_ca_list", &suppress_client_ca_list, "clients are told whom the server trusts");
    if max_verify_depth.is_some_and(|depth| depth.value > 100) {
        cx.error("max_verify_depth", "it is above 100");
    }
    let mut bytes = Bytes::new(id, watched_directory);
    let trusted_ca = match trusted_ca {
        Some(value) => {
            let bytes = cx.within("trusted_ca", |cx| bytes.read(cx, value))?;
            let roots = certificates(cx, "trusted_ca", &bytes)?;
            if roots.is_empty() {
                cx.error("trusted_ca", "it holds no certificate");
            }
            for root in &roots {
                cx.ok("trusted_ca", rustls::RootCertStore::empty().add(root.clone()));
            }
            roots
        }
        None => Vec::new(),
    };
    let crl = match crl {
        Some(value) => {
            let bytes = cx.within("crl", |cx| bytes.read(cx, value))?;
            let lists: Result<Vec<_>, pem::Error> =
                CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
            let lists = cx.ok("crl", lists)?;
            if lists.is_empty() {
                cx.error("crl", "it holds no revocation list");
            }
            for list in &lists {
                if let Err(error) = webpki::BorrowedCertRevocationList::from_der(list) {
                    let text = format!("a list cannot be used (it must be of version 2): {error:?}");
                    cx.error("crl", text);
                }
            }
            lists
        }
        None => Vec::new(),
    };
    let spiffe = match custom_validator_config {
        Some(config) => Some(cx.within("custom_validator_config", |cx| spiffe(cx, config, &mut bytes))?),
        None => None,
    };
    let spki = cx.each("verify_certificate_spki", verify_certificate_spki, |cx, text| {
        cx.ok(
            "",
            digest(base64::engine::general_purpose::STANDARD.decode(text).ok())
                .ok_or("it is not SHA-256 in base64"),
        )
    });
    let hashes = cx.each("verify_certificate_hash", verify_certificate_hash, |cx, text| {
        cx.ok("", digest(hex::decode(text.replace(':', "")).ok()).ok_or("it is not SHA-256 in hexadecimal"))
    });
    let mut sans = cx.each("match_typed_subject_alt_names", match_typed_subject_alt_names, typed_san);
    sans.extend(cx.each("match_subject_alt_names", match_subject_alt_names, |cx, value| {
        Some(SanMatcher { kind: SanKind::Any, matcher: matchers::string(cx, value)? })
    }));
    let (files, version) = bytes.finish();
    let context = Arc::new(ValidationContext {
        trusted_ca,
        system_roots: system_root_certs.is_some(),
        verify_certificate_spki: spki,
        verify_certificate_hash: hashes,
        match_subject_alt_names: sans,
        crl,
        only_verify_leaf_cert_crl,
        allow_expired_certificate,
        max_verify_depth: max_verify_depth.map(|depth| depth.value),
        accept_untrusted: trust_chain_verification == TrustChainVerification::AcceptUntrusted as i32,
        spiffe,
        version: id ^ version,
        files,
    });
    if let Some(files) = &context.files {
        cx.rereads.push(Source::validation(files, again, &context));
    }
    Some(context)
}

/// SHA-256 has 32 bytes.
fn digest(bytes: Option<Vec<u8>>) -> Option<Vec<u8>> {
    bytes.filter(|bytes| bytes.len() == 32)
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

fn spiffe(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig, all: &mut Bytes) -> Option<TrustDomains> {
    let any = value.typed_config.unwrap_or_default();
    if type_name(&any) != "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig" {
        cx.error("typed_config", format_args!("there is no certificate validator {:?}", type_name(&any)));
        return None;
    }
    let pb::tls::SpiffeCertValidatorConfig { trust_domains, trust_bundles } = cx.unpack(&any)?;
    cx.refuse("trust_bundles", &trust_bundles);
    Some(cx.each("trust_domains", trust_domains, |cx, value| {
        let bytes = cx.required("trust_bundle", value.trust_bundle, |cx, value| all.read(cx, value))?;
        let roots = certificates(cx, "trust_bundle", &bytes)?;
        if roots.is_empty() {
            cx.error("trust_bundle", "it holds no certificate");
        }
        Some((value.name.into(), roots))
    }))
}
