//! sail-proxy: the I/O around the pure crates. Module paths follow a request; the main thread's own work (xDS, admin,
//! statistics, health checks, DNS, logs, spans) stands beside it.

pub mod access_log;
pub mod admin;
pub mod bootstrap;
pub mod cli;
pub mod dial;
pub mod dns;
pub mod health;
#[doc(hidden)]
pub mod inputs;
pub mod logging;
pub mod observe;
pub mod outlier;
pub mod overload;
mod run;
pub mod runtime;
pub mod server;
pub mod stats;
pub mod stream_info;
pub mod trace;
pub mod xds;

mod callout;
mod clock;
mod cluster;
mod filters;
mod http;
mod http1;
mod http2;
mod inspect;
mod listener;
mod net;
mod pool;
mod resident;
mod router;
mod rt;
mod tcp;
mod tcp_stats;
mod tls;
#[cfg(feature = "wasm")]
mod wasm;
pub mod worker;

pub use resident::trim_with;
pub use run::run;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
