//! The certificate authority: its root, issuance, and who may ask.
//!
//! Nobody outside holds the signing key: an [`Authority`] is asked to sign for an identity that an
//! [`authenticate::Authenticator`] found, never for one that a request names.

pub mod authenticate;
pub mod authority;
mod error;
mod file;
pub mod service;
pub mod serving;
pub mod store;

pub use authority::Authority;
pub use error::{Error, Result};
pub use store::{Ca, Options, RootKey, Source};
