//! sail-agent: what runs beside a proxy. It makes the key and gets the certificate, serves both to the proxy over SDS,
//! relays the proxy's xDS stream to the control plane, answers DNS, answers probes, and keeps the proxy running.

pub mod admin;
pub mod bootstrap;
pub mod ca;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod dns;
pub mod files;
pub mod frames;
pub mod http_client;
pub mod relay;
pub mod sds;
pub mod secrets;
pub mod stats;
pub mod status;
pub mod supervise;
pub mod unix;
pub mod upstream;
