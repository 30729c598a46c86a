//! `ServiceEntry`: services that the registry does not know by itself.

mod validate;

use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use crate::selector::WorkloadSelector;
use crate::workload_entry::WorkloadEntry;

message! {
    /// `networking.istio.io/ServiceEntry`.
    pub struct ServiceEntry {
        hosts: Vec<String>,
        addresses: Vec<String>,
        ports: Vec<ServicePort>,
        location: Location,
        resolution: Resolution,
        endpoints: Vec<WorkloadEntry>,
        workload_selector: Option<WorkloadSelector>,
        export_to: Vec<String>,
        subject_alt_names: Vec<String>,
    }
}

impl Spec for ServiceEntry {
    const KIND: Kind = Kind::ServiceEntry;
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx) {
        validate::service_entry(self, meta, cx);
    }
}

message! {
    /// A port of the service.
    pub struct ServicePort {
        number: u16,
        protocol: String,
        name: String,
        /// Absent: as `number`.
        target_port: Option<u16>,
    }
}

enumeration! {
    /// Whether the service belongs to the mesh.
    pub enum Location {
        #[default]
        MeshExternal = "MESH_EXTERNAL" = 0,
        MeshInternal = "MESH_INTERNAL" = 1,
    }
}

enumeration! {
    /// Where addresses come from.
    pub enum Resolution {
        #[default]
        None = "NONE" = 0,
        Static = "STATIC" = 1,
        Dns = "DNS" = 2,
        DnsRoundRobin = "DNS_ROUND_ROBIN" = 3,
        DynamicDns = "DYNAMIC_DNS" = 4,
    }
}
