//! sail-proxy, the sidecar and gateway proxy that runs Envoy's configuration.

fn main() {}
