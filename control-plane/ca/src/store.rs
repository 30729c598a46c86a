//! Where the authority's key and certificate live. In this order: certificates that the operator plugged in
//! (`cacerts`), what an earlier run left in the state directory, and a root made now, which the next run finds there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use identity::tls::Watched;
use identity::{CertificateChain, Csr, KeyAlgorithm, KeyPair, SpiffeId, TrustBundle, TrustDomain};
use jiff::Timestamp;

use crate::authority::{Authority, Lifetimes};
use crate::error::{Error, Result};
use crate::file;

/// The ConfigMap in which Istio hands the root to every namespace.
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// A root is renewed once less than this part of its life is left.
const GRACE: f64 = 0.2;

/// The kind of key of a root that is made here.
pub type RootKey = KeyAlgorithm;

/// Where from, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's certificates: `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`, `root-cert.pem`, or `tls.crt`,
    /// `tls.key`, `ca.crt`. Usually `/etc/cacerts`; used if it holds a key.
    pub cacerts: PathBuf,
    /// What survives a restart.
    pub state_dir: PathBuf,
    /// Whose root it is.
    pub trust_domain: TrustDomain,
    /// The key of a root that is made here.
    pub root_key: RootKey,
    /// The life of a root that is made here.
    pub root_life: Duration,
    /// The lives of workloads' certificates.
    pub lifetimes: Lifetimes,
}

/// Which of the places the authority came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator's certificates.
    Plugged,
    /// The state directory.
    Kept,
    /// Made now.
    Made,
}

/// The authority in force, which may be replaced while it is used.
#[derive(Debug)]
pub struct Ca {
    options: Options,
    current: ArcSwap<Authority>,
    source: Source,
    roots: Watched<TrustBundle>,
}

impl Ca {
    /// Finds or makes the authority, and writes its root where others pick it up.
    pub fn open(options: Options, now: Timestamp) -> Result<Self> {
        file::directory(&options.state_dir)?;
        let (authority, source) = match plugged(&options.cacerts)? {
            Some(authority) => (authority, Source::Plugged),
            None => match kept(&options.state_dir)? {
                Some(authority) => (authority, Source::Kept),
                None => (make(&options, now)?, Source::Made),
            },
        };
        let roots = Watched::new(authority.roots().clone());
        let ca = Self { options, current: ArcSwap::from_pointee(authority), source, roots };
        ca.refresh(now)?;
        ca.distribute()?;
        Ok(ca)
    }

    /// Where the authority came from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The authority in force.
    pub fn authority(&self) -> Arc<Authority> {
        self.current.load_full()
    }

    /// The roots in force, for whoever verifies peers; it follows changes.
    pub fn roots(&self) -> Watched<TrustBundle> {
        self.roots.clone()
    }

    /// The trust domain in which identities are issued.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.options.trust_domain
    }

    /// Signs a workload's request; 0 seconds ask for the default life. The result ends with the roots.
    pub fn issue(&self, csr: &str, id: &SpiffeId, seconds: i64, now: Timestamp) -> Result<Vec<String>> {
        let life = self.options.lifetimes.grant(seconds)?;
        let csr = Csr::from_pem(csr).map_err(Error::Request)?;
        let authority = self.authority();
        let chain = authority.issue(&csr, id, life, now)?;
        let single = |cert: &_| CertificateChain::new(vec![Clone::clone(cert)]).map(|chain| chain.to_pem());
        let mut pem = chain.certs().iter().map(single).collect::<Result<Vec<_>, _>>()?;
        pem.push(authority.roots().to_pem());
        Ok(pem)
    }

    /// Takes over certificates that the operator replaced, and renews a root of our own that nears its end. Returns
    /// whether the authority changed. On an error the old one stays.
    pub fn refresh(&self, now: Timestamp) -> Result<bool> {
        let current = self.authority();
        let next = if self.source == Source::Plugged {
            plugged(&self.options.cacerts)?.filter(|next| {
                next.info().fingerprint != current.info().fingerprint || next.roots() != current.roots()
            })
        } else if nears_its_end(&current, now) {
            let key = KeyPair::from_pem(&current.key_pem()?)?;
            let next = Authority::self_signed(key, &self.options.trust_domain, self.options.root_life, now)?;
            keep(&self.options.state_dir, &next)?;
            Some(next)
        } else {
            None
        };
        let Some(next) = next else { return Ok(false) };
        self.roots.set(Arc::new(next.roots().clone()));
        self.current.store(Arc::new(next));
        self.distribute()?;
        Ok(true)
    }

    /// Writes the roots where agents are given them from: as a PEM file and as the ConfigMap that Istio keeps in every
    /// namespace.
    fn distribute(&self) -> Result<()> {
        let pem = self.authority().roots().to_pem();
        let dir = &self.options.state_dir;
        file::replace(&dir.join("root-cert.pem"), &pem, file::PUBLIC)?;
        let config_map = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ROOT_CONFIG_MAP, "labels": {"istio.io/config": "true"}},
            "data": {"root-cert.pem": pem},
        });
        file::replace(
            &dir.join(format!("{ROOT_CONFIG_MAP}.json")),
            &format!("{config_map:#}\n"),
            file::PUBLIC,
        )
    }
}

fn nears_its_end(authority: &Authority, now: Timestamp) -> bool {
    let info = authority.info();
    let life = info.not_after.duration_since(info.not_before).as_secs_f64();
    info.not_after.duration_since(now).as_secs_f64() < life * GRACE
}

/// The operator's certificates, under either of the two sets of names.
fn plugged(dir: &Path) -> Result<Option<Authority>> {
    for [key, cert, chain, root] in [
        ["ca-key.pem", "ca-cert.pem", "cert-chain.pem", "root-cert.pem"],
        ["tls.key", "tls.crt", "", "ca.crt"],
    ] {
        let Some(key_pem) = file::read(&dir.join(key))? else { continue };
        let need = |name: &str| {
            let path = dir.join(name);
            file::read(&path)?
                .ok_or_else(|| Error::Material { path, reason: format!("it is missing beside {key}") })
        };
        let (own, roots) = (need(cert)?, need(root)?);
        let between = if chain.is_empty() { None } else { file::read(&dir.join(chain))? };
        let unusable = |name: &str, error: &dyn std::fmt::Display| Error::Material {
            path: dir.join(name),
            reason: error.to_string(),
        };
        let key = KeyPair::from_pem(&key_pem).map_err(|error| unusable(key, &error))?;
        let mut certs =
            CertificateChain::from_pem(&own).map_err(|error| unusable(cert, &error))?.certs().to_vec();
        if let Some(between) = between {
            let more = CertificateChain::from_pem(&between).map_err(|error| unusable(chain, &error))?;
            for more in more.certs() {
                if !certs.contains(more) {
                    certs.push(more.clone());
                }
            }
        }
        let roots = TrustBundle::from_pem(&roots).map_err(|error| unusable(root, &error))?;
        let authority = Authority::new(key, CertificateChain::new(certs)?, roots);
        return Ok(Some(authority.map_err(|error| unusable(cert, &error))?));
    }
    Ok(None)
}

fn kept(dir: &Path) -> Result<Option<Authority>> {
    let (key_path, cert_path) = (dir.join("ca-key.pem"), dir.join("ca-cert.pem"));
    let Some(key) = file::read(&key_path)? else { return Ok(None) };
    // The key is written last: without a certificate beside it, somebody removed that.
    let cert = file::read(&cert_path)?.ok_or_else(|| Error::Material {
        path: cert_path.clone(),
        reason: "it is missing beside ca-key.pem; restore it, or remove both for a new root".to_owned(),
    })?;
    let key = KeyPair::from_pem(&key)
        .map_err(|error| Error::Material { path: key_path, reason: error.to_string() })?;
    let unusable = |error: &dyn std::fmt::Display| Error::Material {
        path: cert_path.clone(),
        reason: error.to_string(),
    };
    let chain = CertificateChain::from_pem(&cert).map_err(|error| unusable(&error))?;
    let roots = TrustBundle::from_pem(&cert).map_err(|error| unusable(&error))?;
    Authority::new(key, chain, roots).map(Some).map_err(|error| unusable(&error))
}

fn make(options: &Options, now: Timestamp) -> Result<Authority> {
    let key = KeyPair::generate(options.root_key)?;
    let authority = Authority::self_signed(key, &options.trust_domain, options.root_life, now)?;
    keep(&options.state_dir, &authority)?;
    Ok(authority)
}

fn keep(dir: &Path, authority: &Authority) -> Result<()> {
    file::replace(&dir.join("ca-cert.pem"), &authority.cert_pem(), file::PUBLIC)?;
    file::replace(&dir.join("ca-key.pem"), &authority.key_pem()?, file::PRIVATE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn options(dir: &Path) -> Options {
        Options {
            cacerts: dir.join("cacerts"),
            state_dir: dir.join("state"),
            trust_domain: TrustDomain::default(),
            root_key: RootKey::EcdsaP256,
            root_life: Duration::from_secs(10 * 365 * 24 * 3600),
            lifetimes: Lifetimes::default(),
        }
    }

    #[test]
    fn a_root_survives_a_restart_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let first = Ca::open(options(dir.path()), now).unwrap();
        assert_eq!(first.source(), Source::Made);
        let again = Ca::open(options(dir.path()), now).unwrap();
        assert_eq!(again.source(), Source::Kept);
        assert_eq!(again.authority().info().fingerprint, first.authority().info().fingerprint);
        let mode = std::fs::metadata(dir.path().join("state/ca-key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let root = std::fs::read_to_string(dir.path().join("state/root-cert.pem")).unwrap();
        assert_eq!(root, first.authority().roots().to_pem());
    }

    #[test]
    fn an_rsa_root_signs_and_survives_too() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let options = Options { root_key: RootKey::Rsa2048, ..options(dir.path()) };
        Ca::open(options.clone(), now).unwrap();
        let ca = Ca::open(options, now).unwrap();
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let id = SpiffeId::new(TrustDomain::default(), "a", "b").unwrap();
        let csr = identity::CsrRequest::for_workload(&id).to_pem(&key).unwrap();
        let chain = ca.issue(&csr, &id, 0, now).unwrap();
        assert_eq!(chain.len(), 2);
        identity::Svid::from_pem(&chain.concat(), &key.to_pem()).unwrap();
    }

    #[test]
    fn plugged_certificates_go_first_and_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let options = options(dir.path());
        std::fs::create_dir(&options.cacerts).unwrap();
        let plug = || {
            let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
            let life = Duration::from_secs(3600);
            let root = Authority::self_signed(key, &TrustDomain::default(), life, now).unwrap();
            std::fs::write(options.cacerts.join("ca-key.pem"), root.key_pem().unwrap()).unwrap();
            std::fs::write(options.cacerts.join("ca-cert.pem"), root.cert_pem()).unwrap();
            std::fs::write(options.cacerts.join("root-cert.pem"), root.cert_pem()).unwrap();
            root.info().fingerprint.clone()
        };
        let first = plug();
        let ca = Ca::open(options.clone(), now).unwrap();
        assert_eq!((ca.source(), ca.authority().info().fingerprint.clone()), (Source::Plugged, first));
        assert!(!ca.refresh(now).unwrap());
        let second = plug();
        assert!(ca.refresh(now).unwrap());
        assert_eq!(ca.authority().info().fingerprint, second);
        std::fs::write(options.cacerts.join("ca-cert.pem"), "rubbish").unwrap();
        assert!(ca.refresh(now).unwrap_err().to_string().contains("ca-cert.pem"));
        assert_eq!(ca.authority().info().fingerprint, second);
    }

    #[test]
    fn a_root_near_its_end_is_renewed_with_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let ca =
            Ca::open(Options { root_life: Duration::from_secs(1000), ..options(dir.path()) }, now).unwrap();
        let before = ca.authority();
        assert!(ca.refresh(now + Duration::from_secs(900)).unwrap());
        let after = ca.authority();
        assert_eq!(after.info().public_key, before.info().public_key);
        assert!(after.info().not_after > before.info().not_after);
    }

    #[test]
    fn a_damaged_store_is_named_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        std::fs::create_dir(&options.state_dir).unwrap();
        std::fs::write(options.state_dir.join("ca-key.pem"), "rubbish").unwrap();
        std::fs::write(options.state_dir.join("ca-cert.pem"), "rubbish").unwrap();
        let error = Ca::open(options, Timestamp::now()).unwrap_err().to_string();
        assert!(error.contains("ca-key.pem"), "{error}");
    }
}
