//! `MeshNetworks`: which addresses belong to which network, and the gateways between them.

use std::collections::BTreeMap;

message! {
    /// All networks by name.
    pub struct MeshNetworks {
        networks: BTreeMap<String, Network>,
    }
}

message! {
    /// One network.
    pub struct Network {
        endpoints: Vec<NetworkEndpoints>,
        gateways: Vec<NetworkGateway>,
    }
}

message! {
    /// Endpoints of a network: by address or by the registry that knows them.
    pub struct NetworkEndpoints {
        from_cidr: String,
        from_registry: String,
    }
}

message! {
    /// A way into a network.
    pub struct NetworkGateway {
        registry_service_name: String,
        address: String,
        port: u16,
        locality: String,
    }
}
