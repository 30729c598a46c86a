//! The proxy's pure decisions: filter chain, route, policy, load balancing, retry, outliers.
//!
//! Everything here is data in, data out: no socket, no clock, no global state. Time and randomness are arguments. The
//! types are compiled once from Envoy's protobufs by `sail-proxy-config` and are read by every worker through `Arc`s.

pub mod address;
pub mod admission;
pub mod bandwidth;
pub mod cdn_loop;
pub mod cel;
pub mod concurrency;
pub mod credentials;
pub mod csrf;
pub mod fault;
pub mod filter_chain;
pub mod format;
pub mod fraction;
pub mod head;
pub mod headers;
pub mod host;
pub mod jwt;
pub mod lb;
pub mod log_format;
pub mod matcher;
pub mod mutation_rules;
pub mod outlier;
pub mod path_template;
pub mod rate_limit;
pub mod rbac;
pub mod route;
pub mod signature;
pub mod transcoder;
