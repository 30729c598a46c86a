//! HTTP filters, one file a subject, through the real binary.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod bodies;
mod collectors;
mod custom_response;
mod ext_authz;
mod ext_proc;
mod ext_proc_grpc;
mod ext_proc_settings;
mod ext_proc_streams;
mod fault;
#[path = "../support/grpc.rs"]
#[allow(dead_code, reason = "each file uses its part")]
mod grpc;
mod grpc_clients;
mod grpc_stats;
#[path = "../support/h2.rs"]
mod h2;
mod jwt;
mod matchers;
mod mirrors;
mod override_host;
mod redirects;
mod reports;
mod setup;
mod spellings;
mod stateful_session;
#[path = "../support.rs"]
mod support;
mod transcoder;
mod transcoder_bodies;
mod typed_metadata;
mod wasm_grpc;
