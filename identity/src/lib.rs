//! SPIFFE identities, key pairs, certificate requests, and rustls configurations that follow certificate changes.
