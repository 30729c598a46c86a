//! The user's API: Istio's kinds and MeshConfig, their defaults and validation, one file a kind.
