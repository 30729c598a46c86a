//! A typed pod in, a typed pod out: the sidecar's containers, volumes and probes.
