//! The control plane's output fed to the data plane's real decisions, in one process, without a socket: "productpage calls
//! http://reviews:9080/ with `end-user: jason`" and which listener, chain, policy, route, cluster and endpoint decide.
//!
//! Nothing is decided here. [`Proxy`] holds what saild's translation gives a proxy, as sail-proxy's configuration
//! accepted it; [`call`] asks the same functions that workers ask, in the same order.

mod call;
mod proxy;
mod server;

pub use call::{Call, Outcome, Protocol, Route, call};
pub use proxy::{Error, Proxy};
pub use server::Server;
