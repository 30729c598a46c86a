//! The agent's binary, driven as a pod does: with a control plane of the tests' own, and a script, a stock Envoy or the
//! test itself in the proxy's place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod certificates;
mod proxy;
mod relay;
mod status;
mod support;
