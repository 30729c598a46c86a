//! From the model to xDS resources: listeners, clusters, routes, endpoints, policies.
//!
//! Pure: no I/O, no clock, no state but a [`Cache`] that is handed in. Each resource is made by a function of its inputs
//! alone, and the inputs are the cache's key.

mod cache;
mod generate;
pub mod naming;
mod pb;

pub use cache::Cache;
pub use generate::{Generated, NamedResource, Names, NodeError, Warning, affected, generate, proxy_view};
