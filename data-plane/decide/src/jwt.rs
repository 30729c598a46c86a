//! JSON Web Tokens: whose they are, whether they hold, and what requests must bring.
//!
//! [`Jwks`] and [`Token`] are what was parsed; [`JwtAuthn`] is the filter's configuration, and its
//! [`check`](JwtAuthn::check) decides on a request. Time is an argument; so are keys, which may have to be fetched first.

mod check;
mod config;
mod extract;
mod failure;
mod keys;
mod token;

pub use check::{Effects, Keys, KeysState, Verdict};
pub use config::{
    ClaimToHeader, FilterStateRule, JwksSource, JwtAuthn, Provider, ProviderId, RemoteJwks, Requirement,
    Rule, TokenHeader, plain_audience,
};
pub use failure::Failure;
pub use keys::{Jwk, Jwks};
pub use token::{Algorithm, Token};

/// Whether the request is a CORS preflight, which carries no token.
pub fn is_cors_preflight(head: &crate::head::RequestHead<'_>) -> bool {
    let filled = |name: http::HeaderName| head.headers.get(name).is_some_and(|value| !value.is_empty());
    head.method == "OPTIONS"
        && filled(http::header::ORIGIN)
        && filled(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}
