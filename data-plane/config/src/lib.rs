//! Envoy's protobufs turned into the snapshot that workers run, with diagnostics that name field and object.
//!
//! The modules hold the runtime types, each beside its conversion. [`State`](state::State) takes resources as protobufs, says which
//! are refused and why, and gives out [`Snapshot`]s. Nothing is dropped silently: conversions take messages apart field
//! by field, so that a field that nobody thought of does not compile.

#![expect(deprecated, reason = "fields that Envoy deprecates stay valid for those who still send them")]

pub mod access_log;
pub mod callout;
pub mod cluster;
pub mod discovered;
pub mod hcm;
pub mod http_filter;
pub mod kind;
pub mod listener;
pub mod network_filter;
pub mod secret;
pub mod snapshot;
pub mod source;
pub mod state;
pub mod tls;
pub mod tracing;
pub mod wasm;

mod cel;
mod convert;
mod diagnostics;
mod pb;
mod rbac;
mod route;

pub use convert::values::json;
pub use convert::{NoSources, Sources, hash as version};
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use kind::Kind;
pub use sail_proxy_decide as decide;
pub use snapshot::Snapshot;
pub use state::{Accepted, State, Wanted};
