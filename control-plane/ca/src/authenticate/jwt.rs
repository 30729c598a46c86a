//! Service accounts' tokens, verified with a set of public keys from a file. The file is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::{Authenticator, Caller, Credentials, Means, Refusal};

/// The audience of tokens for the control plane.
pub const AUDIENCE: &str = "istio-ca";
const WHAT: &str = "the service account's token";
const SUBJECT_PREFIX: &str = "system:serviceaccount:";
/// How far two clocks may be apart, in seconds.
const LEEWAY: u64 = 30;

/// Verifies tokens.
#[derive(Debug)]
pub struct Jwt {
    keys: PathBuf,
    issuer: String,
    audiences: Vec<String>,
    read: Mutex<Option<Keys>>,
}

#[derive(Clone, Debug)]
struct Keys {
    modified: SystemTime,
    set: Arc<JwkSet>,
}

/// The claims of a projected service-account token.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Named>,
    serviceaccount: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

impl Jwt {
    /// Tokens of an issuer whose public keys are in a file of the form of a JSON Web Key Set.
    pub fn new(keys: PathBuf, issuer: String, audiences: Vec<String>) -> Self {
        Self { keys, issuer, audiences, read: Mutex::new(None) }
    }

    fn keys(&self) -> Result<Arc<JwkSet>, Refusal> {
        let unavailable = |reason: String| Refusal::Unavailable { what: WHAT, reason };
        let shown = self.keys.display();
        let modified = modified(&self.keys);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*read, modified) {
            (Some(known), Ok(modified)) if known.modified == modified => return Ok(Arc::clone(&known.set)),
            // The file is being replaced or is gone: the keys that were good stay good.
            (Some(known), Err(_)) => return Ok(Arc::clone(&known.set)),
            _ => {}
        }
        let modified = modified_or_epoch(&self.keys);
        let text = std::fs::read(&self.keys)
            .map_err(|error| unavailable(format!("the keys in {shown} cannot be read: {error}")))?;
        let set = match serde_json::from_slice::<JwkSet>(&text) {
            Ok(set) => Arc::new(set),
            Err(error) => {
                return match &*read {
                    Some(known) => Ok(Arc::clone(&known.set)),
                    None => Err(unavailable(format!("{shown} is not a JSON Web Key Set: {error}"))),
                };
            }
        };
        *read = Some(Keys { modified, set: Arc::clone(&set) });
        Ok(set)
    }

    fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        let bad = |reason: String| Refusal::Bad { what: WHAT, reason };
        let header = jsonwebtoken::decode_header(token).map_err(|error| bad(error.to_string()))?;
        let set = self.keys()?;
        let key = match &header.kid {
            Some(kid) => set.find(kid),
            None => set.keys.first().filter(|_| set.keys.len() == 1),
        }
        .ok_or_else(|| bad(format!("it was signed with an unknown key ({:?})", header.kid)))?;
        if !fits(key, header.alg) {
            return Err(bad(format!("its algorithm {:?} does not fit its key", header.alg)));
        }
        let decoding = DecodingKey::from_jwk(key).map_err(|error| bad(error.to_string()))?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&self.audiences);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &decoding, &validation)
            .map_err(|error| bad(error.to_string()))?
            .claims;
        caller(claims).map_err(bad)
    }
}

#[async_trait]
impl Authenticator for Jwt {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<Caller>, Refusal> {
        credentials.bearer.as_deref().map(|token| self.verify(token)).transpose()
    }
}

/// Only signatures with public keys: with a shared secret, the public key itself could be used to sign.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use jsonwebtoken::jwk::AlgorithmParameters;
    match key.algorithm {
        AlgorithmParameters::RSA(_) => matches!(
            algorithm,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        AlgorithmParameters::EllipticCurve(_) => matches!(algorithm, Algorithm::ES256 | Algorithm::ES384),
        AlgorithmParameters::OctetKeyPair(_) => algorithm == Algorithm::EdDSA,
        _ => false,
    }
}

fn caller(claims: Claims) -> Result<Caller, String> {
    let (namespace, account) = claims
        .sub
        .strip_prefix(SUBJECT_PREFIX)
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(|| format!("its subject {:?} is no service account", claims.sub))?;
    if let Some(kubernetes) = &claims.kubernetes {
        let other_account = kubernetes.serviceaccount.as_ref().is_some_and(|named| named.name != account);
        if kubernetes.namespace != namespace || other_account {
            return Err("its subject and its kubernetes.io claim contradict each other".to_owned());
        }
    }
    Ok(Caller {
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
        pod: claims.kubernetes.and_then(|kubernetes| kubernetes.pod).map(|pod| pod.name),
        means: Means::Token,
    })
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

fn modified_or_epoch(path: &Path) -> SystemTime {
    modified(path).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    struct Issuer {
        key: EncodingKey,
        keys: tempfile::NamedTempFile,
    }

    fn issuer() -> Issuer {
        let pair = identity::KeyPair::generate(identity::KeyAlgorithm::EcdsaP256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.to_pem().as_bytes()).unwrap();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k1".into());
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), serde_json::to_vec(&JwkSet { keys: vec![jwk] }).unwrap()).unwrap();
        Issuer { key, keys }
    }

    fn claims() -> Value {
        json!({
            "iss": "https://local", "aud": ["istio-ca"], "exp": jiff::Timestamp::now().as_second() + 600,
            "sub": "system:serviceaccount:default:reviews",
            "kubernetes.io": {
                "namespace": "default",
                "pod": {"name": "reviews-v1-x", "uid": "1"},
                "serviceaccount": {"name": "reviews", "uid": "2"},
            },
        })
    }

    fn verify(issuer: &Issuer, claims: &Value, kid: &str) -> Result<Caller, Refusal> {
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, claims, &issuer.key).unwrap();
        let jwt = Jwt::new(issuer.keys.path().to_owned(), "https://local".into(), vec![AUDIENCE.into()]);
        jwt.verify(&token)
    }

    #[test]
    fn a_projected_token_says_who_calls() {
        let caller = verify(&issuer(), &claims(), "k1").unwrap();
        assert_eq!((caller.namespace.as_str(), caller.service_account.as_str()), ("default", "reviews"));
        assert_eq!(caller.pod.as_deref(), Some("reviews-v1-x"));
    }

    #[test]
    fn what_is_not_for_us_is_refused() {
        let issuer = issuer();
        let check = |field: &str, value: Value, kid: &str, expect: &str| {
            let mut claims = claims();
            claims[field] = value;
            let error = verify(&issuer, &claims, kid).unwrap_err().to_string();
            assert!(error.contains(expect), "{field}: {error}");
        };
        check("aud", json!(["kubernetes"]), "k1", "InvalidAudience");
        check("iss", json!("https://elsewhere"), "k1", "InvalidIssuer");
        check("exp", json!(1), "k1", "ExpiredSignature");
        check("sub", json!("jane"), "k1", "no service account");
        check("sub", json!("system:serviceaccount:other:reviews"), "k1", "contradict");
        check("sub", json!("system:serviceaccount:default:reviews"), "k2", "unknown key");
    }

    #[test]
    fn keys_that_are_missing_are_named() {
        let jwt = Jwt::new("/nowhere/jwks.json".into(), "i".into(), vec![AUDIENCE.into()]);
        assert!(
            matches!(jwt.keys(), Err(Refusal::Unavailable { reason, .. }) if reason.contains("/nowhere/jwks.json"))
        );
    }
}
