//! The ingress gateway: hosts, paths, TLS.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Turn, ensure, eventually, get_with};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

fn turn() -> Turn {
    Turn::take("ingress", &["examples/tasks/echo.yaml"])
}

#[test]
fn hosts_and_paths_lead_to_versions() {
    let mut mesh = turn();
    mesh.apply("examples/tasks/ingress.yaml");
    let ask = |host: &str, path: &str| get_with(&format!("{}{path}", mesh.ingress()), &[("host", host)]);
    eventually(|| {
        let answer = ask("echo.example.com", "/v2/hello")?;
        let told: serde_json::Value =
            serde_json::from_str(&answer.body).map_err(|_| format!("{answer:?}"))?;
        ensure(told["version"] == "v2" && told["path"] == "/hello", || format!("{told}"))
    });
    let told: serde_json::Value =
        serde_json::from_str(&ask("echo.example.com", "/hello").unwrap().body).unwrap();
    assert_eq!((told["version"].as_str(), told["path"].as_str()), (Some("v1"), Some("/hello")));
    let redirect = ask("echo.example.com", "/old").unwrap();
    assert_eq!(
        (redirect.status, &redirect.headers["location"]),
        (301, &"http://echo.example.com/new".parse().unwrap())
    );
    let other = ask("other.example.com", "/").unwrap();
    assert_eq!((other.status, other.body.as_str()), (418, "other"));
    assert_eq!(ask("unknown.example.com", "/").unwrap().status, 404);
}

/// An authority and what it issued, as files for curl and as Secrets for the gateway.
struct Certificates {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Without names of their own, issuer and subject would be the same: that is what "self-signed" looks like.
        params.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let (cert, private) =
            (self.folder.path().join(format!("{name}.pem")), self.folder.path().join(format!("{name}.key")));
        std::fs::write(&cert, certificate.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (cert, private)
    }

    /// A Secret in the gateway's namespace, with the client authority where given.
    fn secret(&self, name: &str, host: &str, client_authority: Option<&Path>) -> String {
        let (cert, key) = self.issue(host);
        let block = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().map(|line| format!("    {line}\n")).collect::<String>()
        };
        let authority =
            client_authority.map(|path| format!("  ca.crt: |\n{}", block(path))).unwrap_or_default();
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: istio-system}}\ntype: kubernetes.io/tls\n\
             stringData:\n  tls.crt: |\n{}  tls.key: |\n{}{authority}",
            block(&cert),
            block(&key)
        )
    }
}

/// What curl prints, or its error.
fn curl(
    mesh: &Turn,
    host: &str,
    authority: &Path,
    client: Option<&(PathBuf, PathBuf)>,
) -> Result<String, String> {
    let port = mesh.ingress_tls();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--cacert"]).arg(authority);
    curl.args(["--resolve", &format!("{host}:{port}:127.0.0.1"), &format!("https://{host}:{port}/hello")]);
    if let Some((cert, key)) = client {
        curl.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    let output = curl.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn simple_tls_proves_the_server() {
    let certificates = Certificates::new();
    let mut mesh = turn();
    mesh.apply_text("simple", &certificates.secret("echo-credential", "secure.example.com", None));
    mesh.apply("examples/tasks/ingress-tls.yaml");
    eventually(|| {
        let answer = curl(&mesh, "secure.example.com", &certificates.authority(), None)?;
        ensure(answer.contains("\"version\":\"v1\""), || answer.clone())
    });
    // A certificate that is renewed by another authority is served to the next connection.
    let renewed = Certificates::new();
    mesh.apply_text("renewed", &renewed.secret("echo-credential", "secure.example.com", None));
    eventually(|| curl(&mesh, "secure.example.com", &renewed.authority(), None).map(drop));
}

#[test]
fn mutual_tls_asks_the_client() {
    let (servers, clients) = (Certificates::new(), Certificates::new());
    let mut mesh = turn();
    let secret = servers.secret("echo-credential-mutual", "mutual.example.com", Some(&clients.authority()));
    mesh.apply_text("mutual", &secret);
    mesh.apply("examples/tasks/ingress-tls.yaml");
    let client = clients.issue("client.example.com");
    eventually(|| {
        let answer = curl(&mesh, "mutual.example.com", &servers.authority(), Some(&client))?;
        ensure(answer.contains("\"version\":\"v1\""), || answer.clone())
    });
    let stranger = servers.issue("stranger.example.com");
    for wrong in [None, Some(&stranger)] {
        let refused = curl(&mesh, "mutual.example.com", &servers.authority(), wrong);
        assert!(refused.is_err(), "a client without the right certificate passed: {refused:?}");
    }
}
