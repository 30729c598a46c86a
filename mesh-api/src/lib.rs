//! The user's API: Istio's kinds and MeshConfig, their defaults and validation, one file a kind.
//!
//! [`parse`] is the way in: a manifest becomes a [`MeshObject`] whose fields are typed, or an [`Error`] that names every
//! field that is wrong. Several API versions of a kind read into one type, and spellings that Istio gave up
//! (`percent`, `appendHeaders`, `mirror_percent`, …) are rewritten to today's on the way in, so that readers see one shape.

#[macro_use]
mod macros;

pub mod check;
pub mod decode;
pub mod duration;
pub mod field;
pub mod kind;
pub mod number;
pub mod object;
pub mod selector;
pub mod string_match;

pub mod authorization_policy;
pub mod destination_rule;
pub mod envoy_filter;
pub mod gateway;
pub mod mesh_config;
pub mod mesh_networks;
pub mod peer_authentication;
pub mod proxy_config;
pub mod request_authentication;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod wasm_plugin;
pub mod workload_entry;
pub mod workload_group;

pub use decode::{Decode, Encode};
pub use field::{Finding, Severity};
pub use kind::Kind;
pub use mesh_config::MeshConfig;
pub use mesh_networks::MeshNetworks;
pub use number::{Float, Percent};
pub use object::{Error, MeshObject, Object, ObjectMeta, Spec, check, parse};
pub use selector::{PolicyTargetReference, WorkloadSelector};
pub use string_match::StringMatch;
