//! sail-proxy: the I/O around the pure crates. Module paths follow a request; the main thread's own work (xDS, admin,
//! statistics, health checks, DNS, logs, spans) stands beside it.

pub mod observe;
pub mod stats;
pub mod stream_info;
pub mod trace;
