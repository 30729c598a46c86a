//! JSON Web Key sets, and the check of a signature by them.

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{self, RsaParameters, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

use super::token::decode;
use super::{Algorithm, Failure, Token};

/// A key set: those keys of it that can be used.
#[derive(Debug)]
pub struct Jwks {
    keys: Box<[Jwk]>,
}

/// A key.
pub struct Jwk {
    kid: Box<str>,
    algorithm: Box<str>,
    key: Key,
}

impl std::fmt::Debug for Jwk {
    /// Shared secrets are not shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwk").field("kid", &self.kid).field("alg", &self.algorithm).finish_non_exhaustive()
    }
}

enum Key {
    Rsa(PublicKeyComponents<Box<[u8]>>),
    /// The curve, and the point uncompressed.
    Ec(Curve, Box<[u8]>),
    Ed25519(Box<[u8]>),
    Secret(Box<[u8]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Jwks {
    /// Reads a key set. Keys of kinds that there are not are left out, as long as one remains.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let value: Value = serde_json::from_slice(text).map_err(|_| Failure::JwksParseError)?;
        let keys = value.get("keys").ok_or(Failure::JwksNoKeys)?.as_array().ok_or(Failure::JwksBadKeys)?;
        let keys: Box<[Jwk]> = keys.iter().filter_map(|key| Jwk::parse(key.as_object()?)).collect();
        if keys.is_empty() {
            return Err(Failure::JwksNoValidKeys);
        }
        Ok(Self { keys })
    }

    /// Whether one of the keys signed the token; `text` is the token as it came.
    pub fn verify(&self, token: &Token, text: &str) -> Result<(), Failure> {
        let Some((signed, _)) = text.rsplit_once('.') else { return Err(Failure::BadFormat) };
        if token.algorithm == Algorithm::EdDsa && token.signature.len() != 64 {
            return Err(Failure::SignatureWrongLength);
        }
        let mut fits = false;
        for key in self.keys.iter().filter(|key| key.may_have_signed(token)) {
            fits = true;
            if key.verify(token, signed.as_bytes()) {
                return Ok(());
            }
        }
        Err(if fits { Failure::VerificationFail } else { Failure::JwksKidAlgMismatch })
    }
}

impl Jwk {
    fn parse(object: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let bytes = |name: &str| decode(text(name)?).map(Vec::into_boxed_slice);
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        let key = match text("kty")? {
            "RSA" => {
                let unpadded = |name: &str| {
                    let bytes = bytes(name)?;
                    let start = bytes.iter().position(|byte| *byte != 0)?;
                    Some(Box::from(&bytes[start..]))
                };
                Key::Rsa(PublicKeyComponents { n: unpadded("n")?, e: unpadded("e")? })
            }
            "EC" => {
                let curve = match text("crv")? {
                    "P-256" => Curve::P256,
                    "P-384" => Curve::P384,
                    "P-521" => Curve::P521,
                    _ => return None,
                };
                Key::Ec(curve, point(curve, &bytes("x")?, &bytes("y")?)?)
            }
            "OKP" if text("crv")? == "Ed25519" => Key::Ed25519(bytes("x").filter(|bytes| bytes.len() == 32)?),
            "oct" => Key::Secret(bytes("k").filter(|bytes| !bytes.is_empty())?),
            _ => return None,
        };
        Some(Self {
            kid: text("kid").unwrap_or_default().into(),
            algorithm: text("alg").unwrap_or_default().into(),
            key,
        })
    }

    /// By key id, by the algorithm that the key is for, and by the kind of key.
    fn may_have_signed(&self, token: &Token) -> bool {
        let kid = token.kid.is_empty() || self.kid.is_empty() || self.kid == token.kid;
        let named = self.algorithm.is_empty() || Algorithm::parse(&self.algorithm) == Some(token.algorithm);
        kid && named && self.key.is_for(token.algorithm)
    }

    fn verify(&self, token: &Token, signed: &[u8]) -> bool {
        let signature = &token.signature;
        match &self.key {
            Key::Rsa(key) => {
                rsa(token.algorithm).is_some_and(|with| key.verify(with, signed, signature).is_ok())
            }
            Key::Ec(curve, point) => {
                let algorithm: &'static dyn VerificationAlgorithm = match curve {
                    Curve::P256 => &signature::ECDSA_P256_SHA256_FIXED,
                    Curve::P384 => &signature::ECDSA_P384_SHA384_FIXED,
                    Curve::P521 => &signature::ECDSA_P521_SHA512_FIXED,
                };
                UnparsedPublicKey::new(algorithm, point).verify(signed, signature).is_ok()
            }
            Key::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(signed, signature).is_ok()
            }
            Key::Secret(secret) => {
                let digest = match token.algorithm {
                    Algorithm::Hs256 => hmac::HMAC_SHA256,
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    Algorithm::Hs512 => hmac::HMAC_SHA512,
                    _ => return false,
                };
                hmac::verify(&hmac::Key::new(digest, secret), signed, signature).is_ok()
            }
        }
    }
}

impl Key {
    /// Whether a key of this kind makes such signatures: a public key must never be taken for a shared secret.
    fn is_for(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa(_) => rsa(algorithm).is_some(),
            Self::Ec(curve, _) => matches!(
                (curve, algorithm),
                (Curve::P256, Algorithm::Es256)
                    | (Curve::P384, Algorithm::Es384)
                    | (Curve::P521, Algorithm::Es512)
            ),
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
            Self::Secret(_) => {
                matches!(algorithm, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
            }
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// SEC 1's uncompressed form: `04`, x, y, each as wide as the curve.
fn point(curve: Curve, x: &[u8], y: &[u8]) -> Option<Box<[u8]>> {
    let width = match curve {
        Curve::P256 => 32,
        Curve::P384 => 48,
        Curve::P521 => 66,
    };
    let mut point = vec![0; 1 + 2 * width];
    point[0] = 4;
    for (index, coordinate) in [x, y].into_iter().enumerate() {
        let end = 1 + (index + 1) * width;
        let start = end.checked_sub(coordinate.len()).filter(|start| *start > index * width)?;
        point[start..end].copy_from_slice(coordinate);
    }
    Some(point.into())
}
