//! Modules of wasm plugins: fetched by URL, checked by their SHA-256, and kept as files. What is there already is not
//! fetched again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use identity::TrustBundle;
use identity::tls::{ClientSide, PeerPolicy, Watched};
use rustls::pki_types::ServerName;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use url::Url;
use xds_api::envoy::config::core::v3::RemoteDataSource;

use crate::http_client::{self, Fetch};

/// How long one try may take where the control plane does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a server may point elsewhere.
const REDIRECTS: usize = 10;
/// What modules begin with.
const MAGIC: &[u8] = b"\0asm";

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0:?} is no http:// or https:// URL")]
    Url(String),
    #[error("fetching {0}: {1}")]
    Fetch(String, String),
    #[error("the module of {url} has the SHA-256 {found}, not {wanted}")]
    Hash { url: String, found: String, wanted: String },
    #[error("the module of {url} must be given a SHA-256, and {wanted:?} is none")]
    NoHash { url: String, wanted: String },
    #[error("what {0} answers is no WebAssembly module")]
    Module(String),
    #[error("keeping the module in {0:?}: {1}")]
    Keep(PathBuf, std::io::Error),
}

/// Where modules are kept, and who is fetching which.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    /// By SHA-256: of those who want the same one, the first fetches it.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Modules {
    /// Modules in a directory.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, turns: Mutex::default() }
    }

    /// The file of a module that was fetched before.
    pub(super) async fn kept(&self, remote: &RemoteDataSource) -> Option<PathBuf> {
        let wanted = wanted(remote).ok()?;
        let path = self.path(&wanted).ok()?;
        let bytes = tokio::fs::read(&path).await.ok()?;
        (hash(&bytes) == wanted).then_some(path)
    }

    /// The file of a module, fetched if need be: one try.
    pub(super) async fn file(&self, remote: &RemoteDataSource) -> Result<PathBuf, Error> {
        let wanted = wanted(remote)?;
        let turn = Arc::clone(
            self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry(wanted.clone()).or_default(),
        );
        let _turn = turn.lock().await;
        if let Some(path) = self.kept(remote).await {
            return Ok(path);
        }
        let uri = remote.http_uri.clone().unwrap_or_default();
        let timeout =
            uri.timeout.and_then(|limit| u64::try_from(limit.seconds).ok()).filter(|&limit| limit > 0);
        let bytes = fetch(&uri.uri, timeout.map_or(TIMEOUT, Duration::from_secs)).await?;
        let found = hash(&bytes);
        if found != wanted {
            return Err(Error::Hash { url: uri.uri, found, wanted });
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Error::Module(uri.uri));
        }
        let path = self.path(&wanted)?;
        write(&path, &bytes).await.map_err(|error| Error::Keep(path.clone(), error))?;
        tracing::info!(url = uri.uri, file = %path.display(), "fetched a wasm module");
        Ok(path)
    }

    fn path(&self, sha256: &str) -> Result<PathBuf, Error> {
        let dir = std::path::absolute(&self.dir).map_err(|error| Error::Keep(self.dir.clone(), error))?;
        Ok(dir.join(format!("{sha256}.wasm")))
    }
}

/// The SHA-256 that a module must have.
fn wanted(remote: &RemoteDataSource) -> Result<String, Error> {
    let wanted = remote.sha256.to_ascii_lowercase();
    if wanted.len() == 64 && wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(wanted);
    }
    let url = remote.http_uri.clone().unwrap_or_default().uri;
    Err(Error::NoHash { url, wanted })
}

pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whole or not at all.
async fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        tokio::fs::create_dir_all(dir).await?;
    }
    let part = path.with_extension("part");
    tokio::fs::write(&part, bytes).await?;
    tokio::fs::rename(&part, path).await
}

/// Follows redirects, as sites that keep releases elsewhere have them.
async fn fetch(text: &str, timeout: Duration) -> Result<Bytes, Error> {
    let fail = |reason: String| Error::Fetch(text.to_owned(), reason);
    let mut url = parse(text)?;
    for _ in 0..=REDIRECTS {
        let answer = attempt(&url, timeout).await.map_err(fail)?;
        if answer.status.is_success() {
            return Ok(answer.body);
        }
        let location = answer.headers.get(http::header::LOCATION).and_then(|value| value.to_str().ok());
        let Some(location) = location.filter(|_| answer.status.is_redirection()) else {
            return Err(fail(format!("HTTP status {}", answer.status)));
        };
        let next =
            url.join(location).map_err(|error| fail(format!("redirected to {location:?}: {error}")))?;
        url = parse(next.as_str())?;
    }
    Err(fail(format!("more than {REDIRECTS} redirects")))
}

fn parse(text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| Error::Url(text.to_owned()))
}

async fn attempt(url: &Url, timeout: Duration) -> Result<http_client::Fetched, String> {
    let host = url.host_str().ok_or("it has no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let fetch = Fetch::get(host, port, &path, timeout);
    if url.scheme() == "https" {
        tokio::time::timeout(timeout, over_tls(fetch, host, port))
            .await
            .map_err(|_| format!("no answer within {timeout:?}"))?
    } else {
        fetch.send().await.map_err(|error| say(&error))
    }
}

/// With the reasons behind it.
fn say(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

async fn over_tls(fetch: Fetch<'_>, host: &str, port: u16) -> Result<http_client::Fetched, String> {
    let (_, pem) = crate::upstream::system_roots().await.map_err(|error| say(&error))?;
    let bundle = TrustBundle::from_pem(&pem).map_err(|error| say(&error))?;
    let side = ClientSide {
        svid: None,
        bundle: Watched::new(bundle),
        policy: PeerPolicy::server_name(),
        alpn: vec![b"http/1.1".to_vec()],
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(side.config().map_err(|error| say(&error))?));
    let name = ServerName::try_from(host.to_owned()).map_err(|error| say(&error))?;
    let stream = TcpStream::connect((host, port)).await.map_err(|error| say(&error))?;
    let stream = connector.connect(name, stream).await.map_err(|error| say(&error))?;
    let peer = if port == 443 { host.to_owned() } else { format!("{host}:{port}") };
    http_client::exchange(stream, fetch, peer).await.map_err(|error| say(&error))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use xds_api::envoy::config::core::v3::HttpUri;

    use super::*;

    /// A module that is as short as one can be, with something to tell it from others.
    pub(in super::super) fn module(mark: &str) -> Vec<u8> {
        [MAGIC, mark.as_bytes()].concat()
    }

    /// Answers requests one after the other with what the list has, the last ones with its last.
    pub(in super::super) struct Server {
        pub(in super::super) url: String,
        pub(in super::super) asked: Arc<AtomicUsize>,
        _task: base::task::Supervised<()>,
    }

    impl Server {
        pub(in super::super) async fn start(answers: Vec<(&'static str, Vec<u8>)>) -> Self {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/m.wasm", listener.local_addr().unwrap());
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let task = base::task::Supervised::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let at = count.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                    let (head, body) = &answers[at];
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(body).await;
                }
            });
            Self { url, asked, _task: task }
        }

        pub(in super::super) fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    pub(in super::super) fn remote(url: &str, sha256: &str) -> RemoteDataSource {
        RemoteDataSource {
            http_uri: Some(HttpUri { uri: url.to_owned(), ..Default::default() }),
            sha256: sha256.to_owned(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_module_is_fetched_once_however_many_want_it() {
        let server = Server::start(vec![("200 OK", module("a"))]).await;
        let dir = tempfile::tempdir().unwrap();
        let modules = Modules::new(dir.path().join("wasm"));
        let remote = remote(&server.url, &hash(&module("a")).to_uppercase());
        assert!(modules.kept(&remote).await.is_none());
        let all = futures_util::future::join_all((0..8).map(|_| modules.file(&remote))).await;
        for path in all {
            assert_eq!(std::fs::read(path.unwrap()).unwrap(), module("a"));
        }
        assert_eq!(server.asked(), 1);
        // What somebody spoiled is fetched again.
        std::fs::write(modules.kept(&remote).await.unwrap(), "spoiled").unwrap();
        assert!(modules.kept(&remote).await.is_none());
        assert_eq!(std::fs::read(modules.file(&remote).await.unwrap()).unwrap(), module("a"));
        assert_eq!(server.asked(), 2);
    }

    #[tokio::test]
    async fn redirects_are_followed_but_not_for_ever() {
        let to = "302 Found\r\nlocation: /elsewhere";
        let server = Server::start(vec![(to, Vec::new()), ("200 OK", module("a")), (to, Vec::new())]).await;
        let dir = tempfile::tempdir().unwrap();
        let modules = Modules::new(dir.path().to_owned());
        modules.file(&remote(&server.url, &hash(&module("a")))).await.unwrap();
        let error = modules.file(&remote(&server.url, &hash(&module("b")))).await.unwrap_err();
        assert!(error.to_string().contains("redirects"), "{error}");
    }

    #[tokio::test]
    async fn what_is_not_the_module_is_not_kept() {
        let server = Server::start(vec![("200 OK", b"<html>".to_vec())]).await;
        let dir = tempfile::tempdir().unwrap();
        let modules = Modules::new(dir.path().to_owned());
        let fails = async |url: &str, sha256: &str| modules.file(&remote(url, sha256)).await.unwrap_err();
        assert!(matches!(fails("ftp://x/y", &hash(b"a")).await, Error::Url(_)));
        assert!(matches!(fails(&server.url, "").await, Error::NoHash { .. }));
        assert!(matches!(fails(&server.url, &hash(b"a")).await, Error::Hash { .. }));
        assert!(matches!(fails(&server.url, &hash(b"<html>")).await, Error::Module(_)));
        assert!(matches!(fails("http://127.0.0.1:1/m.wasm", &hash(b"a")).await, Error::Fetch(..)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
