//! TLS contexts made ready: certificates and roots looked up in the snapshot, and rustls' configuration built from
//! them. Built once for all workers, and again when a secret changes; connections that stand keep what they began with.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use identity::tls::{ClientAuth, ClientSide, PeerPolicy, ServerSide, Watched};
use identity::{CertificateChain, KeyPair, SanKind, SanMatcher, StringPattern, Svid, TrustBundle};
use parking_lot::Mutex;
use rustls::client::Resumption;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use sail_proxy_config::Snapshot;
use sail_proxy_config::secret::{Certificate, Secret, ValidationContext};
use sail_proxy_config::tls::{
    CertificateSource, CommonTls, DownstreamTls, SanKind as ConfigKind, TlsVersion, UpstreamTls, Validation,
};
use sail_proxy_decide::matcher::{StringMatch, StringMatcher};

use super::LocalIdentity;

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
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) local: LocalIdentity,
}

/// A client's configuration and who it says we are.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) local: LocalIdentity,
}

/// What a built configuration depends on: the context, and the versions of its secrets.
type Key = (usize, Option<u64>, Option<u64>, Option<Arc<str>>);

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
        let key = (Arc::as_ptr(tls) as usize, parts.certificate_version(), parts.validation_version(), None);
        if let Some((_, server)) = self.servers.lock().get(&key) {
            return Ok(server.clone());
        }
        let server = parts.server(tls)?;
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
        let key = (
            Arc::as_ptr(tls) as usize,
            parts.certificate_version(),
            parts.validation_version(),
            name.cloned(),
        );
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
    certificate: Option<Arc<Certificate>>,
    validation: Option<Arc<ValidationContext>>,
    /// With a secret's validation besides, these matchers hold.
    combined: Option<&'a Arc<ValidationContext>>,
    common: &'a CommonTls,
}

impl<'a> Resolved<'a> {
    fn new(common: &'a CommonTls, snapshot: &Snapshot) -> Result<Self, ContextError> {
        let certificate =
            common.certificates.first().map(|source| certificate(source, snapshot)).transpose()?;
        let Validation { context, sds } = &common.validation;
        let (validation, combined) = match sds {
            None => (context.clone(), None),
            Some(wanted) => match snapshot.secrets.get(&wanted.name) {
                Some(Secret::Validation(found)) => (Some(found.clone()), context.as_ref()),
                Some(_) => {
                    return Err(ContextError::Unusable(format!("secret {} holds no roots", wanted.name)));
                }
                None => return Err(ContextError::Waiting(wanted.name.clone())),
            },
        };
        Ok(Self { certificate, validation, combined, common })
    }

    fn certificate_version(&self) -> Option<u64> {
        self.certificate.as_ref().map(|certificate| certificate.version)
    }

    fn validation_version(&self) -> Option<u64> {
        self.validation.as_ref().map(|validation| validation.version)
    }

    fn svid(&self) -> Result<Option<Svid>, ContextError> {
        let Some(certificate) = &self.certificate else { return Ok(None) };
        let unusable = |error: identity::Error| ContextError::Unusable(format!("certificate: {error}"));
        let chain = CertificateChain::new(certificate.chain.clone()).map_err(unusable)?;
        let key = KeyPair::from_der(&certificate.key).map_err(unusable)?;
        Svid::new(chain, Arc::new(key)).map(Some).map_err(unusable)
    }

    fn bundle(&self) -> Result<Option<TrustBundle>, ContextError> {
        let Some(validation) = &self.validation else { return Ok(None) };
        let refused = [
            (!validation.crl.is_empty(), "crl"),
            (!validation.verify_certificate_spki.is_empty(), "verify_certificate_spki"),
            (!validation.verify_certificate_hash.is_empty(), "verify_certificate_hash"),
        ];
        if let Some((_, field)) = refused.iter().find(|(given, _)| *given) {
            return Err(ContextError::Unusable(format!("validation_context.{field} is not supported")));
        }
        let mut roots = validation.trusted_ca.clone();
        if let Some(domains) = &validation.spiffe {
            roots.extend(domains.iter().flat_map(|(_, roots)| roots.iter().cloned()));
        }
        if validation.system_roots {
            roots.extend(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            return Ok(None);
        }
        TrustBundle::new(roots)
            .map(Some)
            .map_err(|error| ContextError::Unusable(format!("trusted_ca: {error}")))
    }

    fn policy(&self) -> Result<PeerPolicy, ContextError> {
        let contexts = self.validation.iter().chain(self.combined);
        let matchers = contexts.flat_map(|context| &context.match_subject_alt_names);
        let mut sans =
            matchers.map(|san| san_matcher(san.kind, &san.matcher)).collect::<Result<Vec<_>, _>>()?;
        if sans.is_empty()
            && let Some(domains) = self.validation.as_ref().and_then(|validation| validation.spiffe.as_ref())
        {
            sans = domains
                .iter()
                .map(|(domain, _)| SanMatcher {
                    kind: Some(SanKind::Uri),
                    pattern: StringPattern::Prefix(format!("spiffe://{domain}/")),
                })
                .collect();
        }
        Ok(PeerPolicy::sans(sans))
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

    fn server(&self, tls: &DownstreamTls) -> Result<Server, ContextError> {
        let svid =
            self.svid()?.ok_or_else(|| ContextError::Unusable("a server needs a certificate".to_owned()))?;
        let local = local_identity(&svid);
        let client_auth = match (self.bundle()?, tls.require_client_certificate) {
            (Some(bundle), true) => ClientAuth::Required(Watched::new(bundle), self.policy()?),
            (Some(bundle), false) => ClientAuth::Optional(Watched::new(bundle), self.policy()?),
            (None, false) => ClientAuth::None,
            (None, true) => {
                return Err(ContextError::Unusable(
                    "require_client_certificate needs a validation context with trusted_ca".to_owned(),
                ));
            }
        };
        let side = ServerSide { svid: Watched::new(svid), client_auth, alpn: self.alpn() };
        let mut config = side
            .config_with(provider(self.common), &self.versions())
            .map_err(|error| ContextError::Unusable(error.to_string()))?;
        if tls.disable_stateful_session_resumption {
            config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        }
        if !tls.disable_stateless_session_resumption
            && let Ok(ticketer) = rustls::crypto::aws_lc_rs::Ticketer::new()
        {
            config.ticketer = ticketer;
            config.send_tls13_tickets = 1;
        }
        Ok(Server { config: Arc::new(config), local })
    }

    fn client(&self, tls: &UpstreamTls, name: Option<&Arc<str>>) -> Result<Client, ContextError> {
        let svid = self.svid()?;
        let local = svid.as_ref().map(local_identity).unwrap_or_default();
        let mut policy = self.policy()?;
        if let Some(name) = name {
            policy.sans.push(SanMatcher::dns(&**name));
        }
        let unusable = |error: identity::Error| ContextError::Unusable(error.to_string());
        let mut config = match self.bundle()? {
            Some(bundle) => {
                let side = ClientSide {
                    svid: svid.map(Watched::new),
                    bundle: Watched::new(bundle),
                    policy,
                    alpn: self.alpn(),
                };
                side.config_with(provider(self.common), &self.versions()).map_err(unusable)?
            }
            // As Envoy has it: without roots there is nothing to check against.
            None => super::unverified::config(svid, provider(self.common), &self.versions(), self.alpn())
                .map_err(|error| ContextError::Unusable(error.to_string()))?,
        };
        config.enable_sni = true;
        config.resumption = match tls.max_session_keys {
            0 => Resumption::disabled(),
            keys => Resumption::in_memory_sessions((keys as usize).max(32)),
        };
        Ok(Client { config: Arc::new(config), local })
    }
}

fn certificate(source: &CertificateSource, snapshot: &Snapshot) -> Result<Arc<Certificate>, ContextError> {
    match source {
        CertificateSource::Inline(certificate) => Ok(certificate.clone()),
        CertificateSource::Sds(wanted) => match snapshot.secrets.get(&wanted.name) {
            Some(Secret::Certificate(certificate)) => Ok(certificate.clone()),
            Some(_) => Err(ContextError::Unusable(format!("secret {} holds no certificate", wanted.name))),
            None => Err(ContextError::Waiting(wanted.name.clone())),
        },
    }
}

/// Ciphers and curves that the context names, of those that we have; all if it names none of them.
fn provider(common: &CommonTls) -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if !common.cipher_suites.is_empty() {
        let named = |suite: &rustls::SupportedCipherSuite| {
            // The list is about TLS 1.2; TLS 1.3's suites are always offered.
            suite.tls13().is_some()
                || common.cipher_suites.iter().any(|names| {
                    let ours = super::cipher_name(suite.suite());
                    names.trim_matches(['[', ']']).split('|').any(|name| name == ours)
                })
        };
        let chosen: Vec<_> = provider.cipher_suites.iter().copied().filter(|suite| named(suite)).collect();
        if chosen.iter().any(|suite| suite.tls13().is_none()) {
            provider.cipher_suites = chosen;
        }
    }
    Arc::new(provider)
}

fn local_identity(svid: &Svid) -> LocalIdentity {
    let leaf = svid.leaf();
    LocalIdentity {
        uri_sans: leaf.uris().map(Into::into).collect(),
        subject: Some(leaf.subject.as_str().into()),
        certificate: svid.chain().certs().first().cloned().map(Arc::new),
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
