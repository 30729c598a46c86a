//! A saild of a test's own: its directories, its process, and the clients that talk to it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use identity::{CsrRequest, KeyAlgorithm, KeyPair, SpiffeId, Svid};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub(crate) mod xds;

pub(crate) const ISSUER: &str = "https://issuer.test";
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Saild {
    pub(crate) dir: tempfile::TempDir,
    child: Child,
    pub(crate) addresses: BTreeMap<String, SocketAddr>,
    issuer: EncodingKey,
}

impl Drop for Saild {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Saild {
    /// Starts with the bookinfo services.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("objects")).unwrap();
        let bookinfo = include_str!("../testdata/bookinfo.yaml");
        fs::write(dir.path().join("objects/bookinfo.yaml"), bookinfo).unwrap();
        let pair = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let issuer = EncodingKey::from_ec_pem(pair.to_pem().as_bytes()).unwrap();
        let mut jwk = Jwk::from_encoding_key(&issuer, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k".into());
        let keys = serde_json::to_vec(&JwkSet { keys: vec![jwk] }).unwrap();
        fs::write(dir.path().join("jwks.json"), keys).unwrap();
        let child = spawn(dir.path());
        let mut saild = Self { dir, child, addresses: BTreeMap::new(), issuer };
        saild.wait_until_serving();
        saild
    }

    pub(crate) fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        fs::remove_file(self.dir.path().join("state/addresses.json")).unwrap();
        self.child = spawn(self.dir.path());
        self.wait_until_serving();
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// How it ended.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        wait_for("saild ends", || self.child.try_wait().unwrap())
    }

    fn wait_until_serving(&mut self) {
        let path = self.dir.path().join("state/addresses.json");
        let text = wait_for("saild serves", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("saild ended: {status}");
            }
            fs::read(&path).ok()
        });
        self.addresses = serde_json::from_slice(&text).unwrap();
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.dir.path().join("objects")
    }

    /// Replaces a manifest file, as those who keep objects in a directory do.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.objects().join(name);
        let beside = self.dir.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, path).unwrap();
    }

    pub(crate) fn put_pod(&self, name: &str, app: &str, address: &str) {
        self.put(
            &format!("pod-{name}.yaml"),
            &format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: default, labels: {{app: {app}}}}},\n\
                 spec: {{serviceAccountName: bookinfo-{app}, containers: [{{name: {app}, image: {app}}}]}},\n\
                 status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], \
                 conditions: [{{type: Ready, status: 'True'}}]}}}}\n"
            ),
        );
    }

    pub(crate) fn root(&self) -> String {
        fs::read_to_string(self.dir.path().join("state/root-cert.pem")).unwrap()
    }

    pub(crate) fn token(&self, namespace: &str, account: &str) -> String {
        let claims = json!({
            "iss": ISSUER, "aud": ["istio-ca"], "exp": jiff::Timestamp::now().as_second() + 600,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": account, "uid": "1"}},
        });
        let header = Header { kid: Some("k".into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.issuer).unwrap()
    }

    /// A page as text.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(local(self.addresses["http"])).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        body(&text)
    }

    pub(crate) fn get_json(&self, path: &str) -> Value {
        let text = self.get(path);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Sends an AdmissionReview to a webhook, over TLS that the mesh's root vouches for.
    pub(crate) async fn review(&self, path: &str, object: Value) -> Value {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u1", "operation": "CREATE", "namespace": "default", "object": object},
        })
        .to_string();
        let config = identity::tls::ClientSide {
            svid: None,
            bundle: identity::tls::Watched::new(identity::TrustBundle::from_pem(&self.root()).unwrap()),
            policy: identity::tls::PeerPolicy::server_name(),
            alpn: vec![b"http/1.1".to_vec()],
        }
        .config()
        .unwrap();
        let stream = tokio::net::TcpStream::connect(local(self.addresses["https"])).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = "istiod.istio-system.svc".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{review}",
            review.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        // The server may close without a farewell of TLS.
        let _ = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8(bytes).unwrap();
        serde_json::from_str::<Value>(&body(&text)).unwrap()["response"].clone()
    }

    /// A certificate for a workload, as an agent gets it.
    pub(crate) async fn certificate(&self, namespace: &str, account: &str) -> Result<Svid, tonic::Status> {
        use xds_api::istio::auth::IstioCertificateRequest;
        use xds_api::istio::auth::istio_certificate_service_client::IstioCertificateServiceClient;
        let key = KeyPair::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let id = SpiffeId::new(identity::TrustDomain::default(), "made-up", "name").unwrap();
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr: CsrRequest::for_workload(&id).to_pem(&key).unwrap(),
            validity_duration: 3600,
            metadata: None,
        });
        if !account.is_empty() {
            let token = format!("Bearer {}", self.token(namespace, account));
            request.metadata_mut().insert("authorization", token.parse().unwrap());
        }
        let channel = xds::tls_channel(self, None).await;
        let response = IstioCertificateServiceClient::new(channel).create_certificate(request).await?;
        let chain = response.into_inner().cert_chain;
        assert_eq!(chain.last().map(String::as_str), Some(self.root().as_str()));
        Ok(Svid::from_pem(&chain.concat(), &key.to_pem()).unwrap())
    }
}

fn spawn(dir: &Path) -> Child {
    let any = "127.0.0.1:0";
    Command::new(env!("CARGO_BIN_EXE_saild"))
        .args([
            "discovery",
            "--httpAddr",
            any,
            "--httpsAddr",
            any,
            "--grpcAddr",
            any,
            "--secureGRPCAddr",
            any,
        ])
        .args(["--monitoringAddr", any, "--token-issuer", ISSUER])
        .arg("--registry-dir")
        .arg(dir.join("objects"))
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--token-jwks")
        .arg(dir.join("jwks.json"))
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// The address at which this machine reaches a socket that listens everywhere.
pub(crate) fn local(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

fn body(response: &str) -> String {
    response.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// Asks until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
