//! JSON Web Tokens and key sets.

use sail_proxy_decide::jwt::{Jwks, Token};

use crate::{parts, text};

/// Keys of every shape, one of them a shared secret.
const KEYS: &str = r#"{"keys": [
    {"kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0"},
    {"kty": "RSA", "kid": "r", "n": "u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u-qKhbwKfBstIs-bMY2Zkp18gnTxKLxoS2tFczGkPLPgizskuemMghRniWaoLcyehkd3qqGElvW_VDL5AaWTg0nLVkjRo9z-40RQzuVaE8AkAFmxZzow3x-VJYKdjykkJ0iT9wCS0DRTXu269V264Vf_3jvredZiKRkgwlL9xNAwxXFg0x_XFw005UWVRIkdgcKWTjpBP2dPwVZ4WWC-9aGVd-Gyn1o0CLelf4rEjGoXbAAEgAqeGUxrcIlbjXfbcmw", "e": "AQAB"},
    {"kty": "EC", "kid": "e", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
]}"#;

/// A key that signed nothing here.
const STRANGER: &str = r#"{"keys": [{"kty": "oct", "kid": "s", "alg": "HS256", "k": "c3RyYW5nZXI"}]}"#;

/// A token is read or refused; what was not signed is not believed.
pub fn jwt(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(token) = Token::parse(text) else { return };
    let _ = token.check_time(1_700_000_000, 60);
    let keys = Jwks::parse(KEYS.as_bytes()).expect("the keys are well-formed");
    // A signature is that of its text: with another text in front it is none.
    if keys.verify(&token, text).is_ok()
        && let Some((signed, signature)) = text.rsplit_once('.')
    {
        let forged = format!("{signed}e30.{signature}");
        if let Ok(token) = Token::parse(&forged) {
            assert!(keys.verify(&token, &forged).is_err(), "{forged:?} is believed");
        }
    }
    let stranger = Jwks::parse(STRANGER.as_bytes()).expect("the keys are well-formed");
    assert!(stranger.verify(&token, text).is_err(), "{text:?} is believed without its key");
}

/// A key set is read or refused, and a token against it.
pub fn jwks(data: &[u8]) {
    let (keys, token) = parts(data);
    let Ok(keys) = Jwks::parse(keys) else { return };
    let Some(text) = text(token) else { return };
    if let Ok(token) = Token::parse(text) {
        let _ = keys.verify(&token, text);
    }
}
