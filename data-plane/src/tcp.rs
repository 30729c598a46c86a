//! Connections that are not HTTP: network filters, and the TCP proxy.

pub(crate) mod exchange_metadata;
pub(crate) mod filters;
pub(crate) mod posted;
pub(crate) mod proxy;
pub(crate) mod relay;
mod splice;
mod tunnel;
