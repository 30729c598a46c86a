//! Which fields of a bootstrap are carried out: each is named here. What would change how traffic or configuration is
//! treated is refused by name; what only tells or tunes has no effect, and a warning says so.

use xds_api::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use xds_api::envoy::config::bootstrap::v3::{Admin, Bootstrap, ClusterManager};
use xds_api::envoy::config::core::v3::TypedExtensionConfig;
use xds_api::envoy::config::trace::v3::tracing::Http;
use xds_api::type_url;

const INTERNAL_LISTENER: &str = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener";
const RE2: &str = "envoy.extensions.regex_engines.v3.GoogleRE2";

/// Looks at all fields.
///
/// # Errors
/// Those that are refused, by name.
pub fn check(bootstrap: &Bootstrap) -> Result<(), String> {
    let found = Found::of(bootstrap);
    for field in found.without_effect {
        tracing::warn!(field, "the bootstrap has a field that has no effect here");
    }
    if found.refused.is_empty() { Ok(()) } else { Err(found.refused.join("; ")) }
}

/// The tracer of those connection managers that trace and name none. Istio's `ProxyConfig.tracing` comes as this.
#[expect(deprecated, reason = "Envoy would have each connection manager name its own")]
pub fn tracer(bootstrap: &Bootstrap) -> Option<Http> {
    bootstrap.tracing.clone()?.http
}

#[derive(Debug, Default)]
struct Found {
    refused: Vec<String>,
    without_effect: Vec<&'static str>,
}

impl Found {
    #[expect(deprecated, reason = "files still have such fields")]
    fn of(bootstrap: &Bootstrap) -> Self {
        // Whole, so that a field that comes with a new version of the API is decided on.
        let Bootstrap {
            node: _,
            static_resources: _,
            stats_config: _,
            layered_runtime: _,
            overload_manager: _,
            tracing: _,
            dynamic_resources,
            cluster_manager,
            admin,
            node_context_params,
            hds_config,
            flags_path,
            stats_sinks,
            // Statistics that nobody counted yet are shown at once, or not at all.
            deferred_stat_options: _,
            stats_flush_interval,
            stats_flush,
            stats_eviction,
            watchdog,
            watchdogs,
            enable_dispatcher_stats,
            header_prefix,
            stats_server_version_override,
            use_tcp_for_dns_lookups,
            dns_resolution_config,
            typed_dns_resolver_config,
            bootstrap_extensions,
            fatal_actions,
            config_sources,
            default_config_source,
            default_socket_interface,
            certificate_provider_instances,
            // Any header may have several lines here, and all are as fast.
            inline_headers: _,
            perf_tracing_file_path,
            default_regex_engine,
            xds_delegate_extension,
            xds_config_tracker_extension,
            listener_manager,
            // Lines of the log have a form of their own.
            application_log_config: _,
            grpc_async_client_manager_config,
            memory_allocator_manager,
            enable_worker_cpu_affinity,
        } = bootstrap;
        let mut found = Self::default();
        found.without_effect("node_context_params", node_context_params);
        found.refused("hds_config", hds_config);
        found.without_effect("flags_path", flags_path);
        found.without_effect("stats_sinks", stats_sinks);
        found.without_effect("stats_flush_interval", stats_flush_interval);
        found.without_effect("stats_flush", stats_flush);
        found.without_effect("stats_eviction", stats_eviction);
        found.without_effect("watchdog", watchdog);
        found.without_effect("watchdogs", watchdogs);
        found.without_effect("enable_dispatcher_stats", enable_dispatcher_stats);
        found.refused("header_prefix", header_prefix);
        found.without_effect("stats_server_version_override", stats_server_version_override);
        found.without_effect("use_tcp_for_dns_lookups", use_tcp_for_dns_lookups);
        found.without_effect("dns_resolution_config", dns_resolution_config);
        found.without_effect("typed_dns_resolver_config", typed_dns_resolver_config);
        found.without_effect("fatal_actions", fatal_actions);
        found.refused("config_sources", config_sources);
        found.refused("default_config_source", default_config_source);
        found.refused("default_socket_interface", default_socket_interface);
        found.refused("certificate_provider_instances", certificate_provider_instances);
        found.without_effect("perf_tracing_file_path", perf_tracing_file_path);
        found.refused("xds_delegate_extension", xds_delegate_extension);
        found.refused("xds_config_tracker_extension", xds_config_tracker_extension);
        found.refused("listener_manager", listener_manager);
        found.without_effect("grpc_async_client_manager_config", grpc_async_client_manager_config);
        found.without_effect("memory_allocator_manager", memory_allocator_manager);
        found.without_effect("enable_worker_cpu_affinity", enable_worker_cpu_affinity);
        found.regex_engine(default_regex_engine.as_ref());
        found.extensions(bootstrap_extensions);
        dynamic_resources.iter().for_each(|dynamic| found.dynamic_resources(dynamic));
        cluster_manager.iter().for_each(|manager| found.cluster_manager(manager));
        admin.iter().for_each(|admin| found.admin(admin));
        if let Some(tracer) = tracer(bootstrap)
            && let Err(reason) = sail_proxy_config::tracing::check(tracer)
        {
            found.refused.push(format!("tracing.http.{reason}"));
        }
        found
    }

    fn refused<T: Default + PartialEq>(&mut self, field: &str, value: &T) {
        if *value != T::default() {
            self.refused.push(format!("{field}: it is not supported"));
        }
    }

    fn without_effect<T: Default + PartialEq>(&mut self, field: &'static str, value: &T) {
        if *value != T::default() {
            self.without_effect.push(field);
        }
    }

    fn regex_engine(&mut self, engine: Option<&TypedExtensionConfig>) {
        let Some(name) = engine.map(name_of).filter(|name| *name != RE2) else { return };
        self.refused.push(format!("default_regex_engine: there is no engine {name:?}"));
    }

    /// Listeners that would use it are refused themselves; Istio's bootstrap always has it.
    fn extensions(&mut self, extensions: &[TypedExtensionConfig]) {
        for (place, extension) in extensions.iter().enumerate() {
            let name = name_of(extension);
            if name != INTERNAL_LISTENER {
                self.refused.push(format!("bootstrap_extensions[{place}]: there is no extension {name:?}"));
            }
        }
    }

    fn dynamic_resources(&mut self, dynamic: &DynamicResources) {
        let DynamicResources {
            lds_config: _,
            cds_config: _,
            ads_config: _,
            lds_resources_locator,
            cds_resources_locator,
        } = dynamic;
        self.refused("dynamic_resources.lds_resources_locator", lds_resources_locator);
        self.refused("dynamic_resources.cds_resources_locator", cds_resources_locator);
    }

    fn cluster_manager(&mut self, manager: &ClusterManager) {
        let ClusterManager {
            local_cluster_name: _,
            outlier_detection,
            upstream_bind_config,
            load_stats_config,
            // A cluster that nobody asked yet costs little.
            enable_deferred_cluster_creation: _,
        } = manager;
        let detection = outlier_detection.clone().unwrap_or_default();
        self.without_effect("cluster_manager.outlier_detection", &detection);
        self.refused("cluster_manager.upstream_bind_config", upstream_bind_config);
        self.refused("cluster_manager.load_stats_config", load_stats_config);
    }

    #[expect(deprecated, reason = "files still have such fields")]
    fn admin(&mut self, admin: &Admin) {
        let Admin {
            address: _,
            access_log,
            access_log_path,
            // There is no CPU profiler to write there.
            profile_path: _,
            socket_options,
            // Admin connections never count for that limit.
            ignore_global_conn_limit: _,
            allow_paths,
        } = admin;
        let logs = access_log.iter().any(|log| !is_to_nowhere(log));
        self.without_effect("admin.access_log", &logs);
        self.without_effect("admin.access_log_path", &(!matches!(access_log_path.as_str(), "" | NOWHERE)));
        self.refused("admin.socket_options", socket_options);
        self.refused("admin.allow_paths", allow_paths);
    }
}

const NOWHERE: &str = "/dev/null";

fn is_to_nowhere(log: &xds_api::envoy::config::accesslog::v3::AccessLog) -> bool {
    use xds_api::envoy::config::accesslog::v3::access_log::ConfigType;
    use xds_api::envoy::extensions::access_loggers::file::v3::FileAccessLog;
    let Some(ConfigType::TypedConfig(any)) = &log.config_type else { return false };
    xds_api::any::unpack::<FileAccessLog>(any).is_ok_and(|file| file.path == NOWHERE)
}

fn name_of(extension: &TypedExtensionConfig) -> &str {
    extension.typed_config.as_ref().map_or(&extension.name, |any| type_url::message(&any.type_url))
}

#[cfg(test)]
mod tests {
    use xds_api::codec::Codec;

    use super::*;

    fn found(yaml: &str) -> Found {
        Found::of(&Codec::new().from_yaml(yaml).unwrap())
    }

    #[test]
    fn what_changes_traffic_is_refused_by_name() {
        for (yaml, expected) in [
            ("header_prefix: x-foo", "header_prefix: it is not supported"),
            ("hds_config: {api_type: GRPC}", "hds_config: it is not supported"),
            ("admin: {allow_paths: [{exact: /stats}]}", "admin.allow_paths: it is not supported"),
            (
                "cluster_manager: {load_stats_config: {api_type: GRPC}}",
                "cluster_manager.load_stats_config: it is not supported",
            ),
            (
                "bootstrap_extensions: [{name: a, typed_config: {'@type': \
                 type.googleapis.com/envoy.extensions.wasm.v3.WasmService}}]",
                "bootstrap_extensions[0]: there is no extension \"envoy.extensions.wasm.v3.WasmService\"",
            ),
            (
                "tracing: {http: {name: t, typed_config: {'@type': \
                 type.googleapis.com/envoy.config.trace.v3.DatadogConfig, collector_cluster: c, service_name: s}}}",
                "tracing.http.typed_config: there is no tracer \"envoy.config.trace.v3.DatadogConfig\"",
            ),
        ] {
            assert_eq!(found(yaml).refused, [expected]);
        }
    }

    #[test]
    fn what_tells_or_tunes_is_warned_of() {
        let yaml =
            "{watchdog: {miss_timeout: 1s}, stats_flush_interval: 5s, admin: {access_log_path: /tmp/a}}";
        let found = found(yaml);
        assert_eq!(found.without_effect, ["stats_flush_interval", "watchdog", "admin.access_log_path"]);
        assert!(found.refused.is_empty(), "{:?}", found.refused);
    }

    /// As Istio's agent writes it.
    #[test]
    fn the_bootstrap_of_a_mesh_says_nothing_that_is_not_carried_out() {
        let found = found(
            "{admin: {profile_path: /var/lib/a, access_log: [{name: f, typed_config: {'@type': \
             type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /dev/null}}]}, \
             deferred_stat_options: {enable_deferred_creation_stats: true}, cluster_manager: {outlier_detection: {}}, \
             application_log_config: {log_format: {text_format: \"%v\"}}, \
             bootstrap_extensions: [{name: i, typed_config: {'@type': \
             type.googleapis.com/udpa.type.v1.TypedStruct, type_url: \
             type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener, \
             value: {buffer_size_kb: 64}}}]}",
        );
        assert!(found.refused.is_empty() && found.without_effect.is_empty(), "{found:?}");
    }
}
