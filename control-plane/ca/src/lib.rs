//! The certificate authority: its root, issuance, and who may ask.
