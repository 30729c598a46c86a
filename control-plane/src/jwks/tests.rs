//! A server of key sets that does as it is told, and what becomes of its keys.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use identity::San;
use identity::tls::{ClientAuth, ServerSide};
use jiff::Timestamp;
use saild_ca::serving::Serving;
use saild_ca::{Ca, Options, RootKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::*;

const KEYS: &str = r#"{"keys":[{"kty":"oct","k":"YQ"}]}"#;
const OTHERS: &str = r#"{"keys":[{"kty":"oct","k":"Yg"}]}"#;
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers each path with what it holds, and counts.
#[derive(Default)]
struct Site {
    pages: Mutex<BTreeMap<String, String>>,
    asked: AtomicUsize,
}

impl Site {
    fn put(&self, path: &str, status: &str, more: &str, body: &str) {
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{more}\r\n{body}", body.len());
        self.pages.lock().unwrap().insert(path.to_owned(), text);
    }

    async fn serve(self: Arc<Self>, tls: Option<ServerConfig>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (site, tls) = (Arc::clone(&self), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => site.answer(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                site.answer(stream).await;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.unwrap_or_default();
        let head = String::from_utf8_lossy(&head[..length]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let page = self.pages.lock().unwrap().get(path).cloned();
        self.asked.fetch_add(1, Ordering::Relaxed);
        let none = || "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
        let _ = stream.write_all(page.unwrap_or_else(none).as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

async fn site() -> (Arc<Site>, String) {
    let site = Arc::new(Site::default());
    let address = Arc::clone(&site).serve(None).await;
    (site, format!("http://{address}"))
}

fn uri(text: String) -> JwksSource {
    JwksSource::Uri(text)
}

async fn keys(source: JwksSource) -> Result<String, String> {
    Fetcher::default().keys(&source).await.map_err(|error| chain(&error))
}

#[tokio::test]
async fn keys_are_found_where_the_issuer_says() {
    let (site, base) = site().await;
    site.put("/keys", "200 OK", "", KEYS);
    site.put("/moved", "302 Found", "location: /keys\r\n", "");
    let document = format!(r#"{{"jwks_uri":"{base}/moved"}}"#);
    site.put("/.well-known/openid-configuration", "200 OK", "", &document);
    assert_eq!(keys(uri(format!("{base}/keys"))).await.unwrap(), KEYS);
    assert_eq!(keys(JwksSource::Issuer(base)).await.unwrap(), KEYS);
}

#[tokio::test]
async fn what_is_no_key_set_is_refused_with_its_reason() {
    let (site, base) = site().await;
    site.put("/text", "200 OK", "", "hello");
    site.put("/other", "200 OK", "", "{}");
    site.put("/large", "200 OK", "", &" ".repeat((1 << 20) + 1));
    site.put("/round", "302 Found", "location: /round\r\n", "");
    for (path, reason) in [
        ("/text", "is not JSON"),
        ("/other", "is not a JSON Web Key set"),
        ("/large", "larger than"),
        ("/round", "redirections"),
        ("/nothing", "404"),
    ] {
        let said = keys(uri(format!("{base}{path}"))).await.unwrap_err();
        assert!(said.contains(reason), "{path}: {said}");
    }
    assert!(keys(uri("file:///etc/passwd".into())).await.unwrap_err().contains("not an http or https URL"));
    let inside = Fetcher::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let said = inside.keys(&uri(format!("{base}/keys"))).await.unwrap_err().to_string();
    assert!(said.contains("BLOCKED_CIDRS_IN_JWKS_URIS"), "{said}");
}

fn wanting(sources: &[&JwksSource]) -> Wanted {
    sources.iter().map(|source| ((*source).clone(), TIMEOUT)).collect()
}

async fn until(resolver: &mut Resolver, holds: impl Fn(&Jwks) -> bool) {
    let found = resolver.known.wait_for(|known| holds(&known.keys));
    tokio::time::timeout(PATIENCE, found).await.expect("in time").expect("the task lives");
}

#[tokio::test]
async fn the_last_good_keys_stay_and_survive() {
    let (site, base) = site().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("jwks.json");
    let timing = Timing { refresh: Duration::from_millis(20), retry: Duration::from_millis(5) };
    let start = || Resolver::start(Fetcher::default(), timing, file.clone());
    let source = uri(format!("{base}/keys"));

    let mut resolver = start();
    resolver.wanted.send(wanting(&[&source])).unwrap();
    resolver.settled(PATIENCE).await;
    assert!(resolver.keys().is_empty(), "the page does not exist yet");
    site.put("/keys", "200 OK", "", KEYS);
    until(&mut resolver, |keys| keys.get(&source).is_some_and(|keys| keys == KEYS)).await;
    site.put("/keys", "200 OK", "", OTHERS);
    until(&mut resolver, |keys| keys.get(&source).is_some_and(|keys| keys == OTHERS)).await;

    site.put("/keys", "500 Sorry", "", "");
    let asked = site.asked.load(Ordering::Relaxed);
    while site.asked.load(Ordering::Relaxed) < asked + 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(resolver.keys().get(&source).map(String::as_str), Some(OTHERS));

    drop(resolver);
    let mut next = start();
    next.wanted.send(wanting(&[&source])).unwrap();
    next.settled(PATIENCE).await;
    assert_eq!(next.keys().get(&source).map(String::as_str), Some(OTHERS));

    next.wanted.send(Wanted::new()).unwrap();
    until(&mut next, Jwks::is_empty).await;
}

#[tokio::test]
async fn https_is_for_those_whom_the_roots_vouch_for() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::open(
        Options {
            cacerts: dir.path().join("cacerts"),
            state_dir: dir.path().to_owned(),
            trust_domain: identity::TrustDomain::default(),
            root_key: RootKey::default(),
            root_life: Duration::from_secs(3600),
            lifetimes: Default::default(),
        },
        Timestamp::now(),
    )
    .unwrap();
    let svid = Serving::new(&ca, vec![San::dns("localhost")], Timestamp::now()).unwrap().svid();
    let config = ServerSide { svid, client_auth: ClientAuth::None, alpn: Vec::new() }.config().unwrap();
    let site = Arc::new(Site::default());
    site.put("/keys", "200 OK", "", KEYS);
    let address = Arc::clone(&site).serve(Some(config)).await;
    let source = uri(format!("https://localhost:{}/keys", address.port()));
    let roots = ca.roots().get().unwrap().store().as_ref().clone();
    assert_eq!(Fetcher::trusting(roots).keys(&source).await.unwrap(), KEYS);
    assert!(keys(source).await.unwrap_err().contains("TLS with localhost"));
}
