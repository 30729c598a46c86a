//! TLS contexts made ready: certificates and roots looked up in the snapshot, and rustls' configuration built from
//! them. Built once for all workers, and again when a secret changes; connections that stand keep what they began with.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use identity::tls::Verifier;
use identity::{SanKind, SanMatcher, StringPattern};
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::ClientHello;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use sail_proxy_config::Snapshot;
use sail_proxy_config::secret::{Certificate, Secret, ValidationContext};
use sail_proxy_config::tls::{
    CertificateSource, CommonTls, DownstreamTls, SanKind as ConfigKind, Tickets, TlsVersion, UpstreamTls,
    Validation,
};
use sail_proxy_decide::matcher::{StringMatch, StringMatcher};
use sha2::{Digest as _, Sha256};
use webpki::OwnedCertRevocationList;

use super::resolve::{ClientCertificate, ServerCertificates};
use super::resumption::{self, Keys};
use super::verify::{Checks, Judging, Trust};
use super::{LocalIdentity, algorithms};

/// Why a context cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContextError {
    /// A secret has not arrived.
    #[error("secret {0} has not arrived yet")]
    Waiting(Arc<str>),
    /// What was given cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// A server's configuration and who it says we are.
#[derive(Clone)]
pub(crate) struct Server {
    config: Arc<ServerConfig>,
    /// For clients none of whose protocols we speak: nothing is agreed on with them, as in Envoy.
    without_alpn: Option<Arc<ServerConfig>>,
    certificates: Arc<ServerCertificates>,
    /// Who we are with each of the certificates.
    locals: Arc<[LocalIdentity]>,
    /// What clients are judged by afterwards, where whoever fails is let in.
    pub(crate) untrusted: Option<Arc<Checks>>,
}

impl Server {
    /// The configuration for a client, and who it takes us for.
    pub(super) fn for_client(&self, hello: &ClientHello<'_>) -> (Arc<ServerConfig>, LocalIdentity) {
        let place = self.certificates.choose(hello).unwrap_or_default();
        let local = self.locals.get(place).cloned().unwrap_or_default();
        let ours = &self.config.alpn_protocols;
        let in_common = hello.alpn().is_none_or(|mut theirs| {
            theirs.any(|protocol| ours.iter().any(|own| own.as_slice() == protocol))
        });
        let config = self.without_alpn.as_ref().filter(|_| !in_common).unwrap_or(&self.config);
        (config.clone(), local)
    }
}

/// A client's configuration and who it says we are.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) local: LocalIdentity,
}

/// What a built configuration depends on: the context, and the versions of its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    context: usize,
    certificates: u64,
    validations: u64,
    tickets: u64,
    /// A name that the server must bear.
    name: Option<Arc<str>>,
}

/// Built configurations. Asked when a connection is made, by which time they are nearly always there.
#[derive(Default)]
pub(crate) struct Contexts {
    servers: Mutex<HashMap<Key, (Arc<DownstreamTls>, Server)>>,
    clients: Mutex<HashMap<Key, (Arc<UpstreamTls>, Client)>>,
}

/// Beyond so many, those of old secrets are swept.
const KEPT: usize = 4096;

impl Contexts {
    /// The server's side of a context.
    pub(crate) fn server(
        &self,
        tls: &Arc<DownstreamTls>,
        snapshot: &Snapshot,
    ) -> Result<Server, ContextError> {
        let parts = Resolved::new(&tls.common, snapshot)?;
        let keys = match &tls.tickets {
            Tickets::Own => Keys::Own,
            Tickets::Disabled => Keys::None,
            Tickets::Keys(keys) => Keys::Shared(keys.clone()),
            Tickets::Sds(wanted) => match snapshot.secrets.get(&wanted.name) {
                Some(Secret::SessionTicketKeys(keys)) => Keys::Shared(keys.clone()),
                Some(_) => {
                    return Err(ContextError::Unusable(format!(
                        "secret {} holds no ticket keys",
                        wanted.name
                    )));
                }
                None => return Err(ContextError::Waiting(wanted.name.clone())),
            },
        };
        let mut key = parts.key(Arc::as_ptr(tls) as usize, None);
        if let Keys::Shared(keys) = &keys {
            key.tickets = keys.version;
        }
        if let Some((_, server)) = self.servers.lock().get(&key) {
            return Ok(server.clone());
        }
        let server = parts.server(tls, keys)?;
        let mut servers = self.servers.lock();
        sweep(&mut servers);
        servers.insert(key, (tls.clone(), server.clone()));
        Ok(server)
    }

    /// The client's side of a context. `name` is one that the server must bear, where the request names it.
    pub(crate) fn client(
        &self,
        tls: &Arc<UpstreamTls>,
        snapshot: &Snapshot,
        name: Option<&Arc<str>>,
    ) -> Result<Client, ContextError> {
        let parts = Resolved::new(&tls.common, snapshot)?;
        let key = parts.key(Arc::as_ptr(tls) as usize, name.cloned());
        if let Some((_, client)) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let client = parts.client(tls, name)?;
        let mut clients = self.clients.lock();
        sweep(&mut clients);
        clients.insert(key, (tls.clone(), client.clone()));
        Ok(client)
    }
}

/// Contexts that nobody else holds are of the past.
fn sweep<T, C>(map: &mut HashMap<Key, (Arc<T>, C)>) {
    if map.len() == map.capacity() || map.len() > KEPT {
        map.retain(|_, (context, _)| Arc::strong_count(context) > 1);
    }
    if map.len() > KEPT {
        map.clear();
    }
}

/// A context with its secrets.
struct Resolved<'a> {
    certificates: Vec<Arc<Certificate>>,
    /// What checks the peer: a secret's context, and the default one beside it.
    validations: Vec<Arc<ValidationContext>>,
    common: &'a CommonTls,
}

impl<'a> Resolved<'a> {
    fn new(common: &'a CommonTls, snapshot: &Snapshot) -> Result<Self, ContextError> {
        let certificates: Result<_, _> =
            common.certificates.iter().map(|source| certificate(source, snapshot)).collect();
        let Validation { context, sds } = &common.validation;
        let mut validations = Vec::new();
        if let Some(wanted) = sds {
            match snapshot.secrets.get(&wanted.name) {
                Some(Secret::Validation(found)) => {
                    validations.push(snapshot.files.validation(found).clone());
                }
                Some(_) => {
                    return Err(ContextError::Unusable(format!("secret {} holds no roots", wanted.name)));
                }
                None => return Err(ContextError::Waiting(wanted.name.clone())),
            }
        }
        validations.extend(context.iter().map(|context| snapshot.files.validation(context).clone()));
        Ok(Self { certificates: certificates?, validations, common })
    }

    fn key(&self, context: usize, name: Option<Arc<str>>) -> Key {
        let versions =
            |all: &mut dyn Iterator<Item = u64>| all.fold(0, |sum: u64, one| sum.rotate_left(5) ^ one);
        Key {
            context,
            certificates: versions(&mut self.certificates.iter().map(|certificate| certificate.version)),
            validations: versions(&mut self.validations.iter().map(|validation| validation.version)),
            tickets: 0,
            name,
        }
    }

    /// Checks of the peer; a secret's values hold over the default's, lists are added up.
    fn checks(&self, provider: &Arc<CryptoProvider>) -> Result<Checks, ContextError> {
        let mut sans = Vec::new();
        for san in self.validations.iter().flat_map(|context| &context.match_subject_alt_names) {
            sans.push(san_matcher(san.kind, &san.matcher)?);
        }
        let revoked = self.validations.iter().find(|context| !context.crl.is_empty());
        let lists = revoked.iter().flat_map(|context| &context.crl).map(|der| {
            OwnedCertRevocationList::from_der(der)
                .map(Into::into)
                .map_err(|error| ContextError::Unusable(format!("crl: {error}")))
        });
        let all = |field: fn(&ValidationContext) -> &Vec<Vec<u8>>| {
            self.validations.iter().flat_map(|context| field(context).iter().cloned()).collect()
        };
        Ok(Checks {
            provider: provider.clone(),
            trust: self.trust()?,
            accept_untrusted: self.validations.iter().any(|context| context.accept_untrusted),
            max_depth: self.validations.iter().find_map(|context| context.max_verify_depth),
            revoked: lists.collect::<Result<_, _>>()?,
            only_leaf_revocation: self.validations.iter().any(|context| context.only_verify_leaf_cert_crl),
            allow_expired: self.validations.iter().any(|context| context.allow_expired_certificate),
            keys: all(|context| &context.verify_certificate_spki),
            hashes: all(|context| &context.verify_certificate_hash),
            sans,
        })
    }

    fn trust(&self) -> Result<Trust, ContextError> {
        if let Some(domains) = self.validations.iter().find_map(|context| context.spiffe.as_ref()) {
            let domains = domains.iter().map(|(name, roots)| Ok((name.clone(), store(roots)?)));
            return Ok(Trust::Domains(domains.collect::<Result<_, _>>()?));
        }
        let given = self.validations.iter().find(|context| !context.trusted_ca.is_empty());
        let mut roots = given.map_or_else(Vec::new, |context| context.trusted_ca.clone());
        if self.validations.iter().any(|context| context.system_roots) {
            roots.extend(rustls_native_certs::load_native_certs().certs);
        }
        Ok(if roots.is_empty() { Trust::Anyone } else { Trust::Roots(store(&roots)?) })
    }

    fn alpn(&self) -> Vec<Vec<u8>> {
        self.common.alpn_protocols.iter().map(|alpn| alpn.as_bytes().to_vec()).collect()
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let within = |version| self.common.min_version <= version && version <= self.common.max_version;
        let mut versions = Vec::new();
        if within(TlsVersion::V1_3) {
            versions.push(&rustls::version::TLS13);
        }
        if within(TlsVersion::V1_2) {
            versions.push(&rustls::version::TLS12);
        }
        versions
    }

    fn locals(&self) -> impl Iterator<Item = LocalIdentity> {
        self.certificates.iter().map(|certificate| local(certificate))
    }

    fn server(&self, tls: &DownstreamTls, keys: Keys) -> Result<Server, ContextError> {
        if self.certificates.is_empty() {
            return Err(ContextError::Unusable("a server needs a certificate".to_owned()));
        }
        let provider = algorithms::provider(self.common);
        let checks = Arc::new(self.checks(&provider)?);
        let unusable = |error: rustls::Error| ContextError::Unusable(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions())
            .map_err(unusable)?;
        let asks = checks.checks_anything() || checks.accept_untrusted;
        let builder = match (asks, tls.require_client_certificate) {
            (true, true) => {
                builder.with_client_cert_verifier(Verifier::required(Judging(checks.clone()), &provider))
            }
            (true, false) => {
                builder.with_client_cert_verifier(Verifier::optional(Judging(checks.clone()), &provider))
            }
            (false, false) => builder.with_no_client_auth(),
            // Deny closed: a certificate that nobody checks proves nothing.
            (false, true) => {
                return Err(ContextError::Unusable(
                    "require_client_certificate needs a validation context with trusted_ca or pins"
                        .to_owned(),
                ));
            }
        };
        let certificates = Arc::new(ServerCertificates::new(&self.certificates, tls));
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.alpn_protocols = self.alpn();
        config.ignore_client_order = !tls.prefer_client_ciphers && !self.common.cipher_suites.is_empty();
        resumption::set(&mut config, tls, keys, self.session_context(tls));
        let untrusted = checks.accept_untrusted.then_some(checks);
        let mut without_alpn = config.clone();
        without_alpn.alpn_protocols.clear();
        let without_alpn = (!config.alpn_protocols.is_empty()).then(|| Arc::new(without_alpn));
        let locals = self.locals().collect();
        Ok(Server { config: Arc::new(config), without_alpn, certificates, locals, untrusted })
    }

    /// Who the server is and whom it lets in, the same in every process that is configured so: a session is resumed
    /// only where it could have begun.
    fn session_context(&self, tls: &DownstreamTls) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([u8::from(tls.require_client_certificate)]);
        for certificate in &self.certificates {
            let leaf = certificate.certified.cert.first();
            // A renewed certificate has the same names.
            if let Some(leaf) = leaf.and_then(|leaf| identity::CertInfo::from_der(leaf).ok()) {
                hash.update(leaf.subject.as_bytes());
                leaf.sans.iter().for_each(|san| hash.update(san.to_string().as_bytes()));
            }
            hash.update([0]);
        }
        for validation in &self.validations {
            hash.update(validation.version.to_be_bytes());
        }
        hash.finalize().into()
    }

    fn client(&self, tls: &UpstreamTls, name: Option<&Arc<str>>) -> Result<Client, ContextError> {
        let provider = algorithms::provider(self.common);
        let mut checks = self.checks(&provider)?;
        if let Some(name) = name {
            checks.sans.push(SanMatcher::dns(&**name));
        }
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions())
            .map_err(|error| ContextError::Unusable(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Verifier::optional(checks, &provider));
        let mut config = match self.certificates.first() {
            Some(certificate) => {
                builder.with_client_cert_resolver(Arc::new(ClientCertificate(certificate.certified.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn();
        config.enable_sni = true;
        config.resumption = match tls.max_session_keys {
            0 => Resumption::disabled(),
            keys => Resumption::in_memory_sessions((keys as usize).max(32)),
        };
        let local = self.locals().next().unwrap_or_default();
        Ok(Client { config: Arc::new(config), local })
    }
}

fn local(certificate: &Certificate) -> LocalIdentity {
    let leaf = certificate.certified.cert.first();
    let identity = leaf.and_then(|leaf| identity::CertInfo::from_der(leaf).ok()).map(|info| LocalIdentity {
        uri_sans: info.uris().map(Into::into).collect(),
        subject: Some(info.subject.as_str().into()),
        certificate: leaf.cloned().map(Arc::new),
    });
    identity.unwrap_or_default()
}

fn store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, ContextError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| ContextError::Unusable(format!("trusted_ca: {error}")))?;
    }
    Ok(store)
}

fn certificate(source: &CertificateSource, snapshot: &Snapshot) -> Result<Arc<Certificate>, ContextError> {
    match source {
        CertificateSource::Inline(certificate) => Ok(snapshot.files.certificate(certificate).clone()),
        CertificateSource::Sds(wanted) => match snapshot.secrets.get(&wanted.name) {
            Some(Secret::Certificate(found)) => Ok(snapshot.files.certificate(found).clone()),
            Some(_) => Err(ContextError::Unusable(format!("secret {} holds no certificate", wanted.name))),
            None => Err(ContextError::Waiting(wanted.name.clone())),
        },
    }
}

fn san_matcher(kind: ConfigKind, matcher: &StringMatcher) -> Result<SanMatcher, ContextError> {
    let text = |text: &str| if matcher.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
    let pattern = match &matcher.pattern {
        StringMatch::Exact(exact) => StringPattern::Exact(text(exact)),
        StringMatch::Prefix(prefix) => StringPattern::Prefix(text(prefix)),
        StringMatch::Suffix(suffix) => StringPattern::Suffix(text(suffix)),
        StringMatch::Contains(part) => StringPattern::Contains(text(part)),
        StringMatch::Regex(regex) => {
            StringPattern::regex(regex.as_str()).map_err(|error| ContextError::Unusable(error.to_string()))?
        }
    };
    let pattern = if matcher.ignore_case { StringPattern::IgnoreCase(Box::new(pattern)) } else { pattern };
    let kind = match kind {
        ConfigKind::Email => Some(SanKind::Email),
        ConfigKind::Dns => Some(SanKind::Dns),
        ConfigKind::Uri => Some(SanKind::Uri),
        ConfigKind::Ip => Some(SanKind::Ip),
        ConfigKind::Any => None,
    };
    Ok(SanMatcher { kind, pattern })
}

/// The name to ask for: an address asks for none.
pub(crate) fn server_name(sni: &str, host: Option<IpAddr>) -> rustls::pki_types::ServerName<'static> {
    let fallback = host.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    rustls::pki_types::ServerName::try_from(sni.to_owned())
        .unwrap_or_else(|_| rustls::pki_types::ServerName::IpAddress(fallback.into()))
}
