//! Service-account tokens: signed with a key of the mesh's own; its public half is a JWKS file that the control plane reads.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{KeyAlgorithm, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::local::StateDir;

/// Who the tokens say they come from.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The file with the public key, below the issuer's directory.
pub(crate) const JWKS_FILE: &str = "jwks.json";

/// Signs tokens.
pub(crate) struct Issuer {
    key: EncodingKey,
    key_id: String,
}

impl Issuer {
    /// Takes the key of an earlier run, or makes one.
    pub(crate) fn open(state: &StateDir) -> anyhow::Result<Self> {
        let file = state.issuer().join("key.pem");
        let pair = match fs::read_to_string(&file) {
            Ok(pem) => KeyPair::from_pem(&pem).with_context(|| format!("{}", file.display()))?,
            Err(_) => {
                let pair = KeyPair::generate(KeyAlgorithm::EcdsaP256)?;
                fs::write(&file, pair.to_pem())?;
                fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
                pair
            }
        };
        let public = pair.public_key_der();
        // The key ends with the point: a byte 4, then x, then y.
        let point = public
            .len()
            .checked_sub(64)
            .map(|start| &public[start..])
            .context("the issuer's key is not P-256")?;
        let (x, y) = point.split_at(32);
        let key_id = hex::encode(&Sha256::digest(&public)[..8]);
        let text = |bytes| URL_SAFE_NO_PAD.encode(bytes);
        let jwks = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key_id, "x": text(x), "y": text(y),
        }]});
        fs::write(state.issuer().join(JWKS_FILE), jwks.to_string())?;
        let key = EncodingKey::from_ec_pem(pair.to_pem().as_bytes()).context("the issuer's key")?;
        Ok(Self { key, key_id })
    }

    /// A token bound to a pod, with the claims that Kubernetes gives.
    pub(crate) fn token(
        &self,
        pod: &Pod,
        account: &Account,
        audience: &str,
        seconds: i64,
    ) -> anyhow::Result<String> {
        let now = jiff::Timestamp::now().as_second();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let claims = json!({
            "aud": [audience],
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": ISSUER,
            "jti": uuid::Uuid::new_v4().to_string(),
            "sub": format!("system:serviceaccount:{namespace}:{}", account.name),
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": super::NODE_NAME},
                "pod": {"name": pod.metadata.name, "uid": pod.metadata.uid},
                "serviceaccount": {"name": account.name, "uid": account.uid},
            },
        });
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key).context("cannot sign a token")
    }
}

/// A service account.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The issuer's directory, in which the control plane finds the key set.
pub(crate) fn directory(state: &StateDir) -> PathBuf {
    state.issuer()
}
