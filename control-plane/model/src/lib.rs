//! What the mesh consists of: services, endpoints, workloads, configuration, and the indexes over them.
//!
//! Pure data: no I/O, no clock. A registry fills a [`MeshBuilder`] and gets an immutable [`Mesh`]; everything that
//! translates, explains or shows the mesh reads that snapshot. Kubernetes Services, Pods and EndpointSlices are turned
//! into [`Service`], [`Workload`] and [`Endpoint`] by the registry; ServiceEntry and WorkloadEntry by the builder, as they
//! read the same from every source.

pub mod change;
pub mod endpoint;
pub mod hostname;
pub mod mesh;
pub mod protocol;
pub mod proxy;
pub mod scope;
pub mod secret;
pub mod service;
pub mod workload;

use std::collections::BTreeMap;

pub use change::{ChangeSet, ConfigKey};
pub use endpoint::{Address, Endpoint, Health, Locality, TlsMode};
pub use mesh::{Config, Mesh, MeshBuilder, Rule};
pub use protocol::Protocol;
pub use proxy::{InterceptionMode, ProxyType, ProxyView};
pub use scope::{Egress, Scope};
pub use secret::Secret;
pub use service::{ExportTo, Location, Port, Resolution, Service, Source, TargetPort};
pub use workload::{Namespace, Workload};

/// Labels and annotations.
pub type Labels = BTreeMap<String, String>;
