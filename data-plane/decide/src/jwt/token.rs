//! A token taken apart. Nothing in it is to be believed before its signature was checked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Failure;

/// Signature algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are RFC 7518's")]
pub enum Algorithm {
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    /// By its name.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The header.
    pub header: Map<String, Value>,
    /// The claims.
    pub payload: Map<String, Value>,
    /// The payload as the token spells it, for those that it is forwarded to.
    pub payload_base64: Box<str>,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its key's id; empty if it names none.
    pub kid: Box<str>,
    /// `iss`; empty if it has none.
    pub issuer: Box<str>,
    /// `sub`; empty if it has none.
    pub subject: Box<str>,
    /// `aud`
    pub audiences: Box<[Box<str>]>,
    /// `nbf`, in seconds since 1970.
    pub not_before: Option<u64>,
    /// `exp`, in seconds since 1970.
    pub expires: Option<u64>,
    pub(super) signature: Box<[u8]>,
}

impl Token {
    /// Takes a token apart.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::BadFormat);
        };
        let header = object(header, Failure::HeaderBadBase64, Failure::HeaderBadJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Failure::HeaderBadAlg)?;
        let algorithm = Algorithm::parse(algorithm).ok_or(Failure::HeaderUnknownAlg)?;
        let kid = text_field(&header, "kid", Failure::HeaderBadKid)?;
        let payload_base64 = payload.into();
        let payload = object(payload, Failure::PayloadBadBase64, Failure::PayloadBadJson)?;
        let issuer = text_field(&payload, "iss", Failure::IssNotString)?;
        let subject = text_field(&payload, "sub", Failure::SubNotString)?;
        text_field(&payload, "jti", Failure::JtiNotString)?;
        seconds(&payload, "iat", Failure::IatNotInteger, Failure::IatOutOfRange)?;
        let not_before = seconds(&payload, "nbf", Failure::NbfNotInteger, Failure::NbfOutOfRange)?;
        let expires = seconds(&payload, "exp", Failure::ExpNotInteger, Failure::ExpOutOfRange)?;
        let audiences = audiences(payload.get("aud"))?;
        let signature = decode(signature).ok_or(Failure::SignatureBadBase64)?;
        Ok(Self {
            header,
            payload,
            payload_base64,
            algorithm,
            kid,
            issuer,
            subject,
            audiences,
            not_before,
            expires,
            signature: signature.into(),
        })
    }

    /// Whether it holds at this moment (seconds since 1970), give or take the skew of clocks.
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Failure> {
        if self.not_before.is_some_and(|from| from > now.saturating_add(skew)) {
            return Err(Failure::NotYetValid);
        }
        // As in Envoy, an `exp` of 0 is none.
        if self.expires.is_some_and(|end| end > 0 && now > end.saturating_add(skew)) {
            return Err(Failure::Expired);
        }
        Ok(())
    }
}

/// Base64url without padding; padding is put up with.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

fn object(part: &str, encoding: Failure, json: Failure) -> Result<Map<String, Value>, Failure> {
    let bytes = decode(part).ok_or(encoding)?;
    serde_json::from_slice(&bytes).map_err(|_| json)
}

fn text_field(object: &Map<String, Value>, name: &str, failure: Failure) -> Result<Box<str>, Failure> {
    match object.get(name) {
        None => Ok("".into()),
        Some(Value::String(text)) => Ok(text.as_str().into()),
        Some(_) => Err(failure),
    }
}

fn seconds(
    object: &Map<String, Value>,
    name: &str,
    kind: Failure,
    range: Failure,
) -> Result<Option<u64>, Failure> {
    let Some(value) = object.get(name) else { return Ok(None) };
    let Value::Number(number) = value else { return Err(kind) };
    if let Some(number) = number.as_u64() {
        return Ok(Some(number));
    }
    match number.as_f64() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be in range; fractions of seconds are cut off"
        )]
        Some(number) if (0.0..9.2e18).contains(&number) => Ok(Some(number as u64)),
        _ => Err(range),
    }
}

fn audiences(value: Option<&Value>) -> Result<Box<[Box<str>]>, Failure> {
    match value {
        None => Ok(Box::default()),
        Some(Value::String(one)) => Ok(Box::new([one.as_str().into()])),
        Some(Value::Array(all)) => {
            let each = all.iter().map(|one| one.as_str().map(Box::from).ok_or(Failure::AudNotString));
            each.collect()
        }
        Some(_) => Err(Failure::AudNotString),
    }
}
