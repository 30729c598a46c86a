//! Short names for the protobuf packages that conversions take apart.

pub(crate) use xds_api::envoy::config::{
    accesslog::v3 as accesslog, cluster::v3 as cluster, common::mutation_rules::v3 as mutation_rules,
    core::v3 as core, endpoint::v3 as endpoint, listener::v3 as listener, rbac::v3 as rbac,
    route::v3 as route, trace::v3 as trace,
};
pub(crate) use xds_api::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
pub(crate) use xds_api::envoy::extensions::transport_sockets::tls::v3 as tls;
pub(crate) use xds_api::envoy::extensions::{filters, load_balancing_policies};
pub(crate) use xds_api::envoy::r#type::matcher::v3 as matcher;
pub(crate) use xds_api::envoy::r#type::tracing::v3 as tag;
pub(crate) use xds_api::envoy::r#type::v3 as ty;
pub(crate) use xds_api::google::protobuf::{
    Any, BoolValue, Duration, Struct, UInt32Value, UInt64Value, Value,
};
