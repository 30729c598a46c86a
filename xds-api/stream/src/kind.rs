//! What the protocol has to know about a resource type: whether it can be watched as a whole, whether a
//! state-of-the-world response must be complete, what it depends on, and which goes first.

use xds_api::type_url;

/// The name that stands for "all resources of the type".
pub const WILDCARD: &str = "*";

/// Whether a first request without names asks for everything. Endpoints, routes, secrets and filter configurations
/// are always asked for by name.
pub fn is_wildcard(type_url: &str) -> bool {
    !matches!(
        type_url,
        type_url::ENDPOINT
            | type_url::ROUTE
            | type_url::SECRET
            | type_url::EXTENSION_CONFIG
            | type_url::VIRTUAL_HOST
            | type_url::RUNTIME
    )
}

/// Whether absence from a state-of-the-world response means deletion, so that every response must be complete.
pub fn is_full_state(type_url: &str) -> bool {
    is_wildcard(type_url)
}

/// Whether a client that holds a resource is told that it is gone. Filter configurations are given up by those who named
/// them, once their connections are over: requests that still come by would be refused without one.
pub fn is_withdrawn(type_url: &str) -> bool {
    type_url != type_url::EXTENSION_CONFIG
}

/// The type that a client keeps warming until it is sent again, after this one changed.
pub fn warms(type_url: &str) -> Option<&'static str> {
    match type_url {
        type_url::CLUSTER => Some(type_url::ENDPOINT),
        type_url::LISTENER => Some(type_url::ROUTE),
        _ => None,
    }
}

/// The place of a type in a push: what is referred to goes before what refers to it, so that no traffic is lost
/// between two responses.
pub fn push_order(type_url: &str) -> u8 {
    match type_url {
        type_url::CLUSTER => 0,
        type_url::ENDPOINT => 1,
        type_url::LISTENER => 2,
        type_url::ROUTE => 3,
        type_url::SECRET => 4,
        type_url::ADDRESS => 5,
        type_url::WORKLOAD => 6,
        _ => 7,
    }
}

/// Whether the resource's own first field is its name, so that it can be read from the bytes alone.
pub fn carries_name(type_url: &str) -> bool {
    matches!(
        type_url,
        type_url::CLUSTER
            | type_url::ENDPOINT
            | type_url::LISTENER
            | type_url::ROUTE
            | type_url::SCOPED_ROUTE
            | type_url::VIRTUAL_HOST
            | type_url::SECRET
            | type_url::EXTENSION_CONFIG
            | type_url::RUNTIME
    )
}

/// The name in a resource's own first field, for the types of [`carries_name`].
pub fn own_name(body: &[u8]) -> Result<String, prost::DecodeError> {
    use prost::Message as _;
    crate::wire::NameOnly::decode(body).map(|message| message.name)
}
