//! Envoy's protobufs turned into the snapshot that workers run, with diagnostics that name field and object.
