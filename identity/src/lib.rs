//! Workload identities: SPIFFE ids, key pairs, certificate requests, certificates and trust bundles, and rustls
//! verifiers and resolvers that follow certificate changes. No I/O and no clock: times are arguments.

mod bundle;
mod cert;
mod csr;
mod error;
mod key;
mod name;
mod pem;
mod san;
mod spiffe;
mod svid;
pub mod tls;

pub use bundle::TrustBundle;
pub use cert::{CertInfo, CertificateChain};
pub use csr::{Csr, CsrRequest};
pub use error::{Error, Result};
pub use key::{KeyAlgorithm, KeyPair};
pub use san::{San, SanKind, SanMatcher, StringPattern};
pub use spiffe::{SpiffeId, TrustDomain};
pub use svid::{Renewal, Svid};
