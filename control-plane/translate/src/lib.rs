//! From the model to xDS resources: listeners, clusters, routes, endpoints, policies.
//!
//! Pure: no I/O, no clock, no state but a [`Cache`] that is handed in. Each resource is made by a function of its inputs
//! alone, and the inputs are the cache's key: what a resource depends on is what its inputs' type says.

mod authn;
mod authz;
mod cache;
pub mod cluster;
pub mod endpoint;
pub mod envoy_filter;
mod gateway;
mod generate;
pub mod listener;
mod nametable;
pub mod naming;
mod outbound_policy;
mod pb;
mod provider;
mod resource;
pub mod route;
mod secret;
mod telemetry;
mod tls;
mod traits;
mod unsupported;
mod warning;
pub mod wasm;
mod workload;

pub use cache::{Cache, Usage};
pub use generate::{NodeError, affected, generate, proxy_view};
pub use resource::{Generated, NamedResource, Names};
pub use warning::Warning;
