//! Tokens of every algorithm, every place, every requirement.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::jwt::{ClaimToHeader, RemoteJwks, TokenHeader};
use crate::matcher::{StringMatch, StringMatcher};

const NOW: u64 = 1_700_000_000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed(header: Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn secret(secret: &[u8]) -> Value {
    json!({"kty": "oct", "kid": "s", "alg": "HS256", "k": encode(secret)})
}

/// A token signed by the shared secret `secret`.
fn token(claims: Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let header = json!({"alg": "HS256", "kid": "s", "typ": "JWT"});
    signed(header, &claims, |text| hmac::sign(&key, text).as_ref().to_vec())
}

fn jwks(keys: &[Value]) -> Arc<Jwks> {
    Arc::new(Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap())
}

fn provider(name: &str, issuer: &str) -> Provider {
    Provider {
        name: name.into(),
        issuer: issuer.into(),
        audiences: Box::default(),
        subjects: None,
        require_expiration: false,
        max_lifetime: None,
        jwks: JwksSource::Local(Some(jwks(&[secret(b"secret")]))),
        forward: false,
        from_headers: Box::new([TokenHeader {
            name: HeaderKey::parse("authorization").unwrap(),
            prefix: "Bearer ".into(),
        }]),
        from_params: Box::new(["access_token".into()]),
        from_cookies: Box::default(),
        forward_payload_header: None,
        pad_forward_payload_header: false,
        payload_in_metadata: "payload".into(),
        space_delimited_claims: Box::new(["scope".into()]),
        header_in_metadata: "".into(),
        failed_status_in_metadata: "".into(),
        clock_skew_seconds: 60,
        cached: false,
        claim_to_headers: Box::default(),
        clear_route_cache: false,
    }
}

struct NoKeys;

impl Keys for NoKeys {
    fn remote(&self, _: ProviderId) -> KeysState {
        KeysState::Unknown
    }
    fn verified(&self, _: &str, _: &Arc<Jwks>) -> Option<Arc<Token>> {
        None
    }
    fn remember(&self, _: &str, _: &Arc<Jwks>, _: &Arc<Token>) {}
}

fn config(providers: Vec<Provider>) -> JwtAuthn {
    JwtAuthn {
        providers: providers.into(),
        rules: Box::default(),
        requirement_map: Box::default(),
        filter_state_rules: None,
        bypass_cors_preflight: true,
        strip_failure_response: false,
        stat_prefix: "".into(),
    }
}

fn check_at(config: &JwtAuthn, wanted: &Requirement, path: &str, headers: &[(&str, &str)]) -> Verdict {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let head =
        RequestHead { method: "GET", scheme: "http", authority: "a", path, protocol: None, headers: &map };
    config.check(wanted, &head, NOW, &NoKeys)
}

fn of(provider: ProviderId) -> Requirement {
    Requirement::Provider { provider, audiences: None }
}

fn failure(verdict: Verdict) -> Option<Failure> {
    match verdict {
        Verdict::Pass(_) => None,
        Verdict::Deny(failure, _) => Some(failure),
        Verdict::Fetch(_) => panic!("nothing is to be fetched"),
    }
}

fn bearer(config: &JwtAuthn, wanted: &Requirement, token: &str) -> Verdict {
    check_at(config, wanted, "/", &[("authorization", &format!("Bearer {token}"))])
}

/// PKCS #1 of a 2048-bit key: the modulus stands behind 9 bytes, the exponent behind two more.
fn public_rsa(pair: &RsaKeyPair) -> Value {
    let der = pair.public_key().as_ref();
    json!({"kty": "RSA", "n": encode(&der[9..265]), "e": encode(&der[267..])})
}

#[test]
fn every_algorithm_verifies_and_only_its_own_key_does() {
    let random = SystemRandom::new();
    let claims = json!({"iss": "i"});
    let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let rsa_key = public_rsa(&pair);
    let rsa_kinds: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &signature::RSA_PKCS1_SHA256),
        ("RS384", &signature::RSA_PKCS1_SHA384),
        ("RS512", &signature::RSA_PKCS1_SHA512),
        ("PS256", &signature::RSA_PSS_SHA256),
        ("PS384", &signature::RSA_PSS_SHA384),
        ("PS512", &signature::RSA_PSS_SHA512),
    ];
    let mut cases = Vec::new();
    for (alg, encoding) in rsa_kinds {
        let text = signed(json!({"alg": alg}), &claims, |text| {
            let mut out = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &random, text, &mut out).unwrap();
            out
        });
        cases.push((text, rsa_key.clone()));
    }
    let curves: [(&str, &str, &'static EcdsaSigningAlgorithm); 3] = [
        ("ES256", "P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        ("ES512", "P-521", &signature::ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    for (alg, crv, algorithm) in curves {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let text =
            signed(json!({"alg": alg}), &claims, |text| pair.sign(&random, text).unwrap().as_ref().to_vec());
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        cases.push((text, json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)})));
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let text = signed(json!({"alg": "EdDSA"}), &claims, |text| pair.sign(text).as_ref().to_vec());
    let x = encode(pair.public_key().as_ref());
    cases.push((text, json!({"kty": "OKP", "crv": "Ed25519", "x": x})));
    for (alg, digest) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        let key = hmac::Key::new(digest, b"k");
        let text = signed(json!({"alg": alg}), &claims, |text| hmac::sign(&key, text).as_ref().to_vec());
        cases.push((text, json!({"kty": "oct", "k": encode(b"k")})));
    }
    for (index, (text, key)) in cases.iter().enumerate() {
        let token = Token::parse(text).unwrap();
        assert_eq!(jwks(std::slice::from_ref(key)).verify(&token, text), Ok(()), "{:?}", token.algorithm);
        let mut broken = text.clone();
        let flipped = if broken.as_bytes()[0] == b'e' { "f" } else { "e" };
        broken.replace_range(0..1, flipped);
        assert!(jwks(std::slice::from_ref(key)).verify(&token, &broken).is_err());
        let others: Vec<_> =
            cases.iter().enumerate().filter(|(other, (_, k))| *other != index && k != key).collect();
        for (_, (_, other)) in others {
            assert!(jwks(std::slice::from_ref(other)).verify(&token, text).is_err());
        }
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let keys = jwks(&[public_rsa(&pair)]);
    let key = hmac::Key::new(hmac::HMAC_SHA256, pair.public_key().as_ref());
    let text = signed(json!({"alg": "HS256"}), &json!({}), |text| hmac::sign(&key, text).as_ref().to_vec());
    let token = Token::parse(&text).unwrap();
    assert_eq!(keys.verify(&token, &text), Err(Failure::JwksKidAlgMismatch));
    let none = format!("{}.{}.", encode(json!({"alg": "none"}).to_string()), encode("{}"));
    assert_eq!(Token::parse(&none).unwrap_err(), Failure::HeaderUnknownAlg);
}

#[test]
fn claims_decide() {
    let mut one = provider("p", "i");
    one.audiences = Box::new(["example.com".into()]);
    one.subjects = Some(StringMatcher::new(StringMatch::Prefix("s".into()), false));
    one.max_lifetime = Some(std::time::Duration::from_secs(3600));
    let config = config(vec![one]);
    let check = |change: Value, expected: Option<Failure>| {
        let mut claims =
            json!({"iss": "i", "sub": "s1", "aud": ["x", "https://example.com/"], "exp": NOW + 100});
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        assert_eq!(failure(bearer(&config, &of(0), &token(claims))), expected, "{change}");
    };
    check(json!({}), None);
    check(json!({"exp": NOW - 60}), None);
    check(json!({"exp": NOW - 61}), Some(Failure::Expired));
    check(json!({"nbf": NOW + 60}), None);
    check(json!({"nbf": NOW + 61}), Some(Failure::NotYetValid));
    check(json!({"exp": NOW + 3601}), Some(Failure::VerificationFail));
    check(json!({"aud": "other"}), Some(Failure::AudienceNotAllowed));
    check(json!({"sub": "t"}), Some(Failure::VerificationFail));
    check(json!({"iss": "j"}), Some(Failure::UnknownIssuer));
    check(json!({"iss": 1}), Some(Failure::IssNotString));
    check(json!({"exp": "x"}), Some(Failure::ExpNotInteger));
    check(json!({"exp": -1}), Some(Failure::ExpOutOfRange));
    check(json!({"aud": [1]}), Some(Failure::AudNotString));
    assert_eq!(failure(bearer(&config, &of(0), "a.b")), Some(Failure::BadFormat));
    assert_eq!(failure(check_at(&config, &of(0), "/", &[])), Some(Failure::Missing));
    assert_eq!(Failure::AudienceNotAllowed.status(), 403);
}

#[test]
fn tokens_are_found_in_their_places_and_taken_out() {
    let mut one = provider("p", "i");
    one.from_headers = Box::new([
        TokenHeader { name: HeaderKey::parse("x-a").unwrap(), prefix: "".into() },
        TokenHeader { name: HeaderKey::parse("x-b").unwrap(), prefix: "JWT=".into() },
    ]);
    one.from_cookies = Box::new(["c".into()]);
    one.forward_payload_header = Some(HeaderName::from_static("x-payload"));
    one.claim_to_headers = Box::new([
        ClaimToHeader {
            header: HeaderName::from_static("x-claim"),
            path: Box::new(["nested".into(), "key".into()]),
        },
        ClaimToHeader { header: HeaderName::from_static("x-list"), path: Box::new(["list".into()]) },
    ]);
    let config = config(vec![one]);
    let claims = json!({"iss": "i", "scope": "a b", "nested": {"key": 7}, "list": [1]});
    let text = token(claims.clone());
    let query = format!("/?a=b&access_token={text}");
    let prefixed = format!("JWT={text}, rest");
    let cookie = format!("a=b; c={text}");
    let cases: [(&str, Vec<(&str, &str)>); 4] = [
        ("/", vec![("x-a", &text)]),
        ("/", vec![("x-b", &prefixed)]),
        (&query, vec![]),
        ("/", vec![("cookie", &cookie)]),
    ];
    for (path, headers) in cases {
        let Verdict::Pass(effects) = check_at(&config, &of(0), path, &headers) else {
            panic!("{path} {headers:?}")
        };
        assert_eq!(effects.metadata["payload"]["scope"], json!(["a", "b"]));
        let added: Vec<_> = effects
            .add_headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let list = encode("[1]");
        let payload = encode(claims.to_string());
        assert_eq!(added, [("x-claim", "7"), ("x-list", &*list), ("x-payload", &*payload)]);
        assert_eq!(effects.sanitize.len(), 3);
        let removed = effects.remove_headers.len() + effects.remove_params.len();
        assert_eq!(removed, usize::from(headers.first().is_none_or(|(name, _)| *name != "cookie")));
    }
}

#[test]
fn requirements_nest() {
    let config = config(vec![provider("a", "a"), provider("b", "b")]);
    let (a, b) = (token(json!({"iss": "a"})), token(json!({"iss": "b"})));
    let (c, expired) = (token(json!({"iss": "c"})), token(json!({"iss": "a", "exp": 1})));
    let any = |list: Vec<Requirement>| Requirement::Any(list.into());
    let missing = || Requirement::AllowMissing(Box::new([0, 1]));
    let wanted = any(vec![of(0), of(1)]);
    assert_eq!(failure(bearer(&config, &wanted, &a)), None);
    assert_eq!(failure(bearer(&config, &wanted, &b)), None);
    assert_eq!(failure(bearer(&config, &wanted, &c)), Some(Failure::UnknownIssuer));
    assert_eq!(failure(bearer(&config, &wanted, &expired)), Some(Failure::Expired));
    assert_eq!(failure(check_at(&config, &wanted, "/", &[])), Some(Failure::Missing));

    let optional = any(vec![of(0), missing()]);
    assert_eq!(failure(check_at(&config, &optional, "/", &[])), None);
    assert_eq!(failure(bearer(&config, &optional, &b)), None, "another provider's token is good as well");
    assert_eq!(failure(bearer(&config, &optional, &expired)), Some(Failure::Expired));
    assert_eq!(failure(bearer(&config, &optional, &c)), Some(Failure::UnknownIssuer));

    let lenient = Requirement::AllowMissingOrFailed(Box::new([0, 1]));
    assert_eq!(failure(bearer(&config, &lenient, &expired)), None);
    let all = Requirement::All(Box::new([of(0), of(1)]));
    let path = format!("/?access_token={b}");
    assert_eq!(failure(bearer(&config, &all, &a)), Some(Failure::Missing), "the first took it");
    let both = check_at(&config, &all, &path, &[("authorization", &format!("Bearer {a}"))]);
    assert!(failure(both).is_some(), "each provider wants every token in its places to be its own");
    let audiences = Requirement::Provider { provider: 0, audiences: Some(Box::new(["x".into()])) };
    assert_eq!(failure(bearer(&config, &audiences, &a)), Some(Failure::AudienceNotAllowed));
}

#[test]
fn remote_keys_are_asked_for_when_all_else_is_well() {
    let mut one = provider("p", "i");
    one.jwks = JwksSource::Remote(Arc::new(RemoteJwks {
        https: false,
        authority: http::uri::Authority::from_static("keys"),
        path: http::uri::PathAndQuery::from_static("/"),
        cluster: "keys".into(),
        timeout: std::time::Duration::from_secs(1),
        cache_duration: std::time::Duration::from_secs(600),
        async_fetch: None,
        retries: 0,
    }));
    let config = config(vec![one]);
    assert!(matches!(bearer(&config, &of(0), &token(json!({"iss": "i"}))), Verdict::Fetch(0)));
    let expired = token(json!({"iss": "i", "exp": 1}));
    assert!(matches!(bearer(&config, &of(0), &expired), Verdict::Deny(Failure::Expired, _)));
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC*", keys in "\\PC*", header in "\\PC*", payload in "\\PC*") {
        let _ = Token::parse(&text);
        let _ = Jwks::parse(keys.as_bytes());
        let text = format!("{}.{}.{}", encode(&header), encode(&payload), encode(&text));
        if let Ok(token) = Token::parse(&text) {
            let _ = jwks(&[secret(b"secret")]).verify(&token, &text);
        }
    }

    #[test]
    fn keys_of_any_shape_do_not_panic(
        kty in "RSA|EC|OKP|oct", crv in "P-256|P-384|P-521|Ed25519",
        x in "[A-Za-z0-9_-]{0,90}", y in "[A-Za-z0-9_-]{0,90}", alg in "RS256|PS512|ES256|ES512|EdDSA|HS256",
        signature in proptest::collection::vec(any::<u8>(), 0..140),
    ) {
        let key = json!({"kty": kty, "crv": crv, "x": x, "y": y, "n": x, "e": y, "k": x});
        if let Ok(keys) = Jwks::parse(json!({"keys": [key]}).to_string().as_bytes()) {
            let text = signed(json!({"alg": alg}), &json!({}), |_| signature);
            let token = Token::parse(&text).unwrap();
            let _ = keys.verify(&token, &text);
        }
    }
}
