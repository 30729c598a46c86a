//! What injector, agent, node plugin and control plane agree on: environment variables, ports, paths, annotations,
//! labels, container names, protocol names. One table each, so that a name is written once.

pub mod agent_env;
pub mod alpn;
pub mod annotations;
pub mod containers;
pub mod env;
pub mod labels;
pub mod metrics;
pub mod paths;
pub mod ports;
pub mod probes;
pub mod sds;

pub use agent_env::AgentEnv;
pub use env::EnvVar;

/// The release of Istio whose behaviour is kept: what proxies and control plane call their version.
pub const ISTIO_VERSION: &str = "1.30.3";
