//! Modules of wasm plugins: where the control plane names a URL, the agent fetches the module, checks its SHA-256 and
//! tells the proxy a file. What is there already is not fetched again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use identity::TrustBundle;
use identity::tls::{ClientSide, PeerPolicy, Watched};
use prost::{Message as _, Name as _};
use rustls::pki_types::ServerName;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use url::Url;
use xds_api::any;
use xds_api::envoy::config::core::v3::async_data_source::Specifier;
use xds_api::envoy::config::core::v3::{DataSource, RemoteDataSource, TypedExtensionConfig, data_source};
use xds_api::envoy::extensions::filters::http::wasm::v3::Wasm;
use xds_api::envoy::extensions::wasm::v3::plugin_config::Vm;
use xds_api::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use xds_api::google::protobuf::Any;

use super::names::Wire;
use crate::http_client::{self, Fetch};

/// How long one try may take where the control plane does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tries, and the pause between them.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Why a module is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the response cannot be read: {0}")]
    Response(#[from] prost::DecodeError),
    #[error("the extension configuration cannot be read: {0}")]
    Config(#[from] any::Error),
    #[error("{0:?} is no http:// or https:// URL")]
    Url(String),
    #[error("fetching {0}: {1}")]
    Fetch(String, String),
    #[error("the module of {url} has the SHA-256 {found}, not {wanted}")]
    Hash { url: String, found: String, wanted: String },
    #[error("keeping the module in {0:?}: {1}")]
    Keep(PathBuf, std::io::Error),
}

/// Where modules are kept.
#[derive(Debug)]
pub struct Modules {
    /// The directory.
    pub dir: PathBuf,
}

impl Modules {
    /// The same response, with files in the place of URLs.
    pub(super) async fn localize(&self, wire: Wire, response: Bytes) -> Result<Bytes, Error> {
        match wire {
            Wire::Sotw => {
                let mut response = DiscoveryResponse::decode(response)?;
                for resource in &mut response.resources {
                    self.resource(resource).await?;
                }
                Ok(response.encode_to_vec().into())
            }
            Wire::Delta => {
                let mut response = DeltaDiscoveryResponse::decode(response)?;
                for resource in response.resources.iter_mut().filter_map(|entry| entry.resource.as_mut()) {
                    self.resource(resource).await?;
                }
                Ok(response.encode_to_vec().into())
            }
        }
    }

    async fn resource(&self, resource: &mut Any) -> Result<(), Error> {
        if resource.type_url != TypedExtensionConfig::type_url() {
            return Ok(());
        }
        let mut config: TypedExtensionConfig = any::unpack(resource)?;
        let Some(typed) = config.typed_config.as_mut().filter(|it| it.type_url == Wasm::type_url()) else {
            return Ok(());
        };
        let mut wasm: Wasm = any::unpack(typed)?;
        let vm = wasm.config.as_mut().and_then(|config| config.vm.as_mut());
        let Some(Vm::VmConfig(vm)) = vm else { return Ok(()) };
        let Some(code) = vm.code.as_mut() else { return Ok(()) };
        let Some(Specifier::Remote(remote)) = &code.specifier else { return Ok(()) };
        let path = self.module(remote).await?;
        let file = data_source::Specifier::Filename(path.to_string_lossy().into_owned());
        code.specifier = Some(Specifier::Local(DataSource { specifier: Some(file), ..Default::default() }));
        *typed = any::pack(&wasm);
        *resource = any::pack(&config);
        Ok(())
    }

    /// The file of a module.
    async fn module(&self, remote: &RemoteDataSource) -> Result<PathBuf, Error> {
        let uri = remote.http_uri.clone().unwrap_or_default();
        let wanted = remote.sha256.to_ascii_lowercase();
        if wanted.len() != 64 || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let (url, found) = (uri.uri, "none that was given".to_owned());
            return Err(Error::Hash { url, found, wanted });
        }
        let keep = |error| Error::Keep(self.dir.clone(), error);
        let dir = std::path::absolute(&self.dir).map_err(keep)?;
        let path = dir.join(format!("{wanted}.wasm"));
        if let Ok(bytes) = tokio::fs::read(&path).await
            && hash(&bytes) == wanted
        {
            return Ok(path);
        }
        let timeout =
            uri.timeout.and_then(|limit| u64::try_from(limit.seconds).ok()).filter(|&limit| limit > 0);
        let bytes = fetch(&uri.uri, timeout.map_or(TIMEOUT, Duration::from_secs)).await?;
        let found = hash(&bytes);
        if found != wanted {
            return Err(Error::Hash { url: uri.uri, found, wanted });
        }
        write(&dir, &path, &bytes).await.map_err(keep)?;
        tracing::info!(url = uri.uri, file = %path.display(), "fetched a wasm module");
        Ok(path)
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whole or not at all.
async fn write(dir: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    tokio::fs::create_dir_all(dir).await?;
    let part = path.with_extension("part");
    tokio::fs::write(&part, bytes).await?;
    tokio::fs::rename(&part, path).await
}

async fn fetch(text: &str, timeout: Duration) -> Result<Bytes, Error> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| Error::Url(text.to_owned()))?;
    let mut left = TRIES;
    loop {
        left -= 1;
        match attempt(&url, timeout).await {
            Ok(bytes) => return Ok(bytes),
            Err(reason) if left == 0 => return Err(Error::Fetch(text.to_owned(), reason)),
            Err(reason) => {
                tracing::warn!(url = text, reason, "a wasm module could not be fetched; trying again")
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(url: &Url, timeout: Duration) -> Result<Bytes, String> {
    let host = url.host_str().ok_or("it has no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let fetch = Fetch::get(host, port, &path, timeout);
    let answer = if url.scheme() == "https" {
        tokio::time::timeout(timeout, over_tls(fetch, host, port))
            .await
            .map_err(|_| format!("no answer within {timeout:?}"))??
    } else {
        fetch.send().await.map_err(|error| error.to_string())?
    };
    if !answer.status.is_success() {
        return Err(format!("HTTP status {}", answer.status));
    }
    Ok(answer.body)
}

async fn over_tls(fetch: Fetch<'_>, host: &str, port: u16) -> Result<http_client::Fetched, String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
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
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use xds_api::envoy::config::core::v3::{AsyncDataSource, HttpUri};
    use xds_api::envoy::extensions::wasm::v3::{PluginConfig, VmConfig};
    use xds_api::envoy::service::discovery::v3::Resource;

    use super::*;

    fn response(url: &str, sha256: &str) -> Bytes {
        let remote = RemoteDataSource {
            http_uri: Some(HttpUri { uri: url.to_owned(), ..Default::default() }),
            sha256: sha256.to_owned(),
            ..Default::default()
        };
        let code = Some(AsyncDataSource { specifier: Some(Specifier::Remote(remote)) });
        let vm = Some(Vm::VmConfig(VmConfig { code, ..Default::default() }));
        let wasm = Wasm { config: Some(PluginConfig { vm, ..Default::default() }) };
        let config = TypedExtensionConfig { name: "x".to_owned(), typed_config: Some(any::pack(&wasm)) };
        let resource = Resource { resource: Some(any::pack(&config)), ..Default::default() };
        DeltaDiscoveryResponse { resources: vec![resource], ..Default::default() }.encode_to_vec().into()
    }

    fn file(response: Bytes) -> String {
        let response = DeltaDiscoveryResponse::decode(response).unwrap();
        let config: TypedExtensionConfig =
            any::unpack(response.resources[0].resource.as_ref().unwrap()).unwrap();
        let wasm: Wasm = any::unpack(config.typed_config.as_ref().unwrap()).unwrap();
        let Some(Vm::VmConfig(vm)) = wasm.config.unwrap().vm else { panic!("it has a VM") };
        match vm.code.unwrap().specifier.unwrap() {
            Specifier::Local(DataSource {
                specifier: Some(data_source::Specifier::Filename(path)), ..
            }) => path,
            other => panic!("not a file: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_url_becomes_a_file_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/m.wasm", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            // One answer: a second request would fail.
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nmodule").await.unwrap();
        });
        let dir = tempfile::tempdir().unwrap();
        let modules = Modules { dir: dir.path().to_owned() };
        let sha256 = hash(b"module");
        for _ in 0..2 {
            let localized = modules.localize(Wire::Delta, response(&url, &sha256)).await.unwrap();
            assert_eq!(std::fs::read(file(localized)).unwrap(), b"module");
        }
        server.await.unwrap();
        let error = modules.localize(Wire::Delta, response("ftp://x/y", &hash(b"other"))).await.unwrap_err();
        assert!(matches!(error, Error::Url(_)), "{error}");
        let error = modules.localize(Wire::Delta, response(&url, "")).await.unwrap_err();
        assert!(matches!(error, Error::Hash { .. }), "{error}");
    }
}
