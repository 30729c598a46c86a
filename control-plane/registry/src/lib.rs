//! Where the model comes from: Kubernetes, a directory of manifests.
