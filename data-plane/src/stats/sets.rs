//! The sets of statistics, by the kind of object that has them; one file a family.

mod auth;
mod bodies;
mod clusters;
mod filters;
mod istio;
mod listeners;
mod process;
mod tcp_stats;
mod tls;
#[cfg(feature = "wasm")]
mod wasm_vms;

pub use auth::{
    header_to_metadata, http_adaptive_concurrency, http_admission_control, http_api_key_auth,
    http_bandwidth_limit, http_basic_auth, http_cors, http_credential_injector, http_credential_oauth2,
    http_csrf, http_ip_tagging, http_jwt_authn, http_set_metadata,
};
pub use bodies::{
    http_compressor, http_compressor_choice, http_custom_response, http_decompressor, http_ext_proc,
    http_lua, json_to_metadata,
};
pub use clusters::{
    cluster, cluster_budgets, cluster_eds, cluster_external, cluster_health_check, cluster_http2,
    cluster_internal, cluster_outlier, cluster_rate_limit, cluster_retry, cluster_sizes, cluster_update,
    virtual_host,
};
pub use filters::{
    http, http_ext_authz, http_fault, http_health_check, http_local_rate_limit, http_rbac, http_rds,
    http_srds, http_stateful_session, http_tracing, network_rbac,
};
pub use istio::{istio_http, istio_tcp};
pub use listeners::{
    connection_limit, http_inspector, listener, listener_http, listener_local_rate_limit, network_ext_authz,
    network_local_rate_limit, network_rate_limit, proxy_protocol, tcp, tls_inspector,
};
pub use process::{
    cds, cluster_manager, control_plane, extension_config, filesystem, http1, http2, lds, listener_manager,
    runtime, sds, server, single_counter, single_gauge, single_histogram, tracing_exporter,
};
pub use tcp_stats::{cluster_tcp_stats, listener_tcp_stats};
pub use tls::{cluster_tls, listener_tls};
#[cfg(feature = "wasm")]
pub use wasm_vms::{wasm, wasm_all, wasm_plugin};
