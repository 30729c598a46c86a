//! The workload's certificate and the mesh's roots: made and renewed with the certificate authority, or read from
//! files that somebody else keeps. Whatever fails, what was good stays in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::backoff::Backoff;
use identity::{CsrRequest, KeyAlgorithm, KeyPair, Renewal, SpiffeId, Svid, TrustBundle};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::ca::{self, CaClient};
use crate::files::FileWatch;
use crate::stats::AgentStats;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key, or no request.
    #[error("making a key and a certificate request")]
    Request(#[source] identity::Error),
    /// No certificate.
    #[error(transparent)]
    Ca(#[from] ca::Error),
    /// A file is missing.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file, or an answer, is wrong.
    #[error("{what}")]
    Unusable {
        /// Which.
        what: String,
        /// What is wrong with it.
        #[source]
        source: identity::Error,
    },
    /// Certificates could not be written to OUTPUT_CERTS.
    #[error("writing certificates to {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What there is now; each part may be missing yet.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The workload's own.
    pub workload: Option<Arc<Svid>>,
    /// The mesh's roots.
    pub bundle: Option<Arc<TrustBundle>>,
}

/// The readers' side.
pub type SecretsWatch = watch::Receiver<Secrets>;

/// Where certificates come from.
#[derive(Debug)]
pub enum Source {
    /// The certificate authority.
    Ca(Box<Issuance>),
    /// Files.
    Files(CertFiles),
}

/// What is asked of the certificate authority.
#[derive(Clone, Debug)]
pub struct Issuance {
    /// Whom to ask.
    pub ca: CaClient,
    /// Who the workload is.
    pub id: SpiffeId,
    /// Which key to make.
    pub algorithm: KeyAlgorithm,
    /// The lifetime that is asked for.
    pub ttl: Duration,
    /// When to renew.
    pub renewal: Renewal,
    /// Where certificates are written as well.
    pub output: Option<PathBuf>,
}

/// Certificates that somebody else keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    /// PEM, the leaf first.
    pub chain: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// PEM.
    pub root: PathBuf,
}

impl CertFiles {
    /// The usual names below a directory.
    pub fn below(dir: &Path) -> Self {
        Self {
            chain: dir.join(agent_contract::paths::CERT_CHAIN),
            key: dir.join(agent_contract::paths::KEY),
            root: dir.join(agent_contract::paths::ROOT_CERT),
        }
    }

    /// Whether all of them are there.
    pub fn exist(&self) -> bool {
        self.chain.exists() && self.key.exists() && self.root.exists()
    }

    fn read(&self) -> Result<Secrets, Error> {
        let unusable = |path: &Path| {
            let what = path.display().to_string();
            move |source| Error::Unusable { what, source }
        };
        let svid = Svid::from_pem(&read(&self.chain)?, &read(&self.key)?).map_err(unusable(&self.chain))?;
        let bundle = TrustBundle::from_pem(&read(&self.root)?).map_err(unusable(&self.root))?;
        Ok(Secrets { workload: Some(Arc::new(svid)), bundle: Some(Arc::new(bundle)) })
    }
}

/// Reads a file into text.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// Keeps the certificates current for as long as it is polled.
pub async fn keep(source: Source, publish: watch::Sender<Secrets>, stats: Arc<AgentStats>) {
    match source {
        Source::Ca(issuance) => keep_issued(&issuance, &publish, &stats).await,
        Source::Files(files) => keep_read(&files, &publish).await,
    }
}

async fn keep_issued(issuance: &Issuance, publish: &watch::Sender<Secrets>, stats: &AgentStats) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        stats.certificate_requests.inc();
        let delay = match issue(issuance).await {
            Ok(secrets) => {
                backoff.reset();
                let delay = renewal_delay(issuance, &secrets);
                publish.send_replace(secrets);
                delay
            }
            Err(error) => {
                stats.certificate_failures.inc();
                let delay = backoff.next_delay(&mut rand::rng());
                let in_use = publish.borrow().workload.is_some();
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    in_use,
                    ?delay,
                    "no new certificate; trying again"
                );
                delay
            }
        };
        tokio::time::sleep(delay).await;
    }
}

fn renewal_delay(issuance: &Issuance, secrets: &Secrets) -> Duration {
    let Some(svid) = &secrets.workload else { return RETRY_FIRST };
    let leaf = svid.leaf();
    let delay = issuance.renewal.delay(leaf, Timestamp::now(), &mut rand::rng());
    tracing::info!(serial = leaf.serial, not_after = %leaf.not_after, renewal_in = ?delay, "got a certificate");
    // A certificate that is born old (clock skew, a lifetime of seconds) must not make a busy loop.
    delay.max(RETRY_FIRST)
}

async fn issue(issuance: &Issuance) -> Result<Secrets, Error> {
    let key = KeyPair::generate(issuance.algorithm).map_err(Error::Request)?;
    let csr = CsrRequest::for_workload(&issuance.id).to_pem(&key).map_err(Error::Request)?;
    let issued = issuance.ca.sign(csr, issuance.ttl).await?;
    let unusable = |source| Error::Unusable { what: "the certificate authority's answer".to_owned(), source };
    let svid = Svid::new(issued.chain, Arc::new(key)).map_err(unusable)?;
    let secrets = Secrets { workload: Some(Arc::new(svid)), bundle: Some(Arc::new(issued.bundle)) };
    if let Some(dir) = &issuance.output {
        write(dir, &secrets)?;
    }
    Ok(secrets)
}

async fn keep_read(files: &CertFiles, publish: &watch::Sender<Secrets>) {
    let mut watch = FileWatch::new([files.chain.as_path(), &files.key, &files.root]);
    loop {
        match files.read() {
            Ok(secrets) => {
                publish.send_replace(secrets);
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    error = format!("{error:#}"),
                    "certificate files cannot be used; the last good ones stay"
                );
            }
        }
        watch.changed().await;
    }
}

fn write(dir: &Path, secrets: &Secrets) -> Result<(), Error> {
    let files = CertFiles::below(dir);
    let put = |path: &Path, text: &str| {
        write_private(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
    };
    if let Some(svid) = &secrets.workload {
        put(&files.chain, &svid.chain().to_pem())?;
        put(&files.key, &svid.key().to_pem())?;
    }
    if let Some(bundle) = &secrets.bundle {
        put(&files.root, &bundle.to_pem())?;
    }
    Ok(())
}

/// Replaces a file at once, readable by its owner only.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
