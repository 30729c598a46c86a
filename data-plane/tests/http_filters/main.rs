//! HTTP filters, one file a subject, through the real binary.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod ext_proc;
mod fault;
#[path = "../support/grpc.rs"]
#[allow(dead_code, reason = "each file uses its part")]
mod grpc;
mod setup;
mod stateful_session;
#[path = "../support.rs"]
mod support;
mod transcoder;
