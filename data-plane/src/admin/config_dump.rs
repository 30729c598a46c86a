//! `/config_dump`: what the proxy was told, as `envoy.admin.v3.ConfigDump`. Keys are never shown.

mod secrets;

use std::time::SystemTime;

use http::StatusCode;
use prost::Message;
use regex::Regex;
use xds_api::any;
use xds_api::envoy::admin::v3::{
    BootstrapConfigDump, ClustersConfigDump, ConfigDump, EcdsConfigDump, EndpointsConfigDump,
    ListenersConfigDump, RoutesConfigDump, ScopedRoutesConfigDump, UpdateFailureState, clusters_config_dump,
    ecds_config_dump, endpoints_config_dump, listeners_config_dump, routes_config_dump,
    scoped_routes_config_dump,
};
use xds_api::envoy::config::bootstrap::v3::Bootstrap;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::scoped_routes::ConfigSpecifier;
use xds_api::google::protobuf::{Any, Timestamp};
use xds_api::type_url;

use super::{Page, Params, mask, text};
use crate::bootstrap;
use crate::server::Main;
use crate::xds::{Held, Manager, Refused};

/// One page of the dump, with the words that `resource=` and `mask=` use for it.
struct Part {
    resource: &'static str,
    message: Any,
}

pub(super) async fn page(main: &Main, params: &Params) -> Page {
    let Some(manager) = main.discovery.get() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "not initialized\n".to_owned());
    };
    let names = match params.get("name_regex").map(Regex::new).transpose() {
        Ok(names) => names,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("Invalid re2 regex: {error}\n")),
    };
    let keep = |name: &str| names.as_ref().is_none_or(|names| names.is_match(name));
    let mut parts = vec![bootstrap_part(main), clusters(manager, &keep)];
    parts.extend(extensions(manager, &keep));
    if params.has("include_eds") {
        parts.push(endpoints(manager, &keep));
    }
    let secrets = secrets::part(main, manager, &keep);
    parts.extend([listeners(manager, &keep), scopes(manager, &keep), routes(manager, &keep), secrets]);
    let given = |name: &str| params.get(name).filter(|value| !value.is_empty());
    let (resource, mask) = (given("resource"), given("mask"));
    if let Some(resource) = resource {
        // What nobody asks for need not be written.
        parts.retain(|part| part.resource.split(' ').any(|name| name == resource));
    }
    let dump = ConfigDump { configs: parts.into_iter().map(|part| part.message).collect() };
    let written = bootstrap::to_json("envoy.admin.v3.ConfigDump", dump.encode_to_vec()).await;
    let parsed = written
        .map_err(|error| error.to_string())
        .and_then(|body| serde_json::from_str(&body).map_err(|error| error.to_string()));
    match parsed.map(|dump| mask::pick(dump, resource, mask)) {
        Ok(Ok(mut dump)) => {
            super::integers(&mut dump);
            super::json(&dump)
        }
        Ok(Err(said)) => text(StatusCode::BAD_REQUEST, said),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn bootstrap_part(main: &Main) -> Part {
    let mut bootstrap = Bootstrap::decode(main.bootstrap.clone()).unwrap_or_default();
    bootstrap.node = Some(main.node.clone());
    for secret in bootstrap.static_resources.iter_mut().flat_map(|fixed| &mut fixed.secrets) {
        secrets::redact(secret);
    }
    let dump = BootstrapConfigDump { bootstrap: Some(bootstrap), last_updated: timestamp(main.started_at) };
    Part { resource: "bootstrap", message: any::pack(&dump) }
}

fn clusters(manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Part {
    let mut dump = ClustersConfigDump::default();
    for cluster in manager.static_clusters().filter(|cluster| keep(&cluster.name)) {
        dump.static_clusters.push(clusters_config_dump::StaticCluster {
            cluster: Some(any::pack(&cluster)),
            last_updated: timestamp(manager.started()),
        });
    }
    manager.with_kind(type_url::CLUSTER, |kind| {
        let Some(kind) = kind else { return };
        dump.version_info.clone_from(&kind.version);
        for (name, held) in kind.held.iter().filter(|(name, _)| keep(name)) {
            let error_state = kind.refused.get(name).map(|refused| failure(type_url::CLUSTER, refused));
            let state = |held: &Held, error_state| clusters_config_dump::DynamicCluster {
                version_info: held.version.to_string(),
                cluster: Some(body(type_url::CLUSTER, held)),
                last_updated: timestamp(held.updated),
                error_state,
                ..Default::default()
            };
            if manager.is_warming(type_url::CLUSTER, name) {
                dump.dynamic_active_clusters.extend(kind.before.get(name).map(|held| state(held, None)));
                dump.dynamic_warming_clusters.push(state(held, error_state));
            } else {
                dump.dynamic_active_clusters.push(state(held, error_state));
            }
        }
        for (_, refused) in
            kind.refused.iter().filter(|(name, _)| keep(name) && !kind.held.contains_key(*name))
        {
            dump.dynamic_warming_clusters.push(clusters_config_dump::DynamicCluster {
                error_state: Some(failure(type_url::CLUSTER, refused)),
                ..Default::default()
            });
        }
    });
    Part {
        resource: "clusters static_clusters dynamic_active_clusters dynamic_warming_clusters",
        message: any::pack(&dump),
    }
}

fn endpoints(manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Part {
    let mut dump = EndpointsConfigDump::default();
    for cluster in manager.static_clusters().filter(|cluster| keep(&cluster.name)) {
        if let Some(assignment) = &cluster.load_assignment {
            dump.static_endpoint_configs.push(endpoints_config_dump::StaticEndpointConfig {
                endpoint_config: Some(any::pack(assignment)),
                last_updated: timestamp(manager.started()),
            });
        }
    }
    manager.with_kind(type_url::ENDPOINT, |kind| {
        for (_, held) in kind.into_iter().flat_map(|kind| &kind.held).filter(|(name, _)| keep(name)) {
            dump.dynamic_endpoint_configs.push(endpoints_config_dump::DynamicEndpointConfig {
                version_info: held.version.to_string(),
                endpoint_config: Some(body(type_url::ENDPOINT, held)),
                last_updated: timestamp(held.updated),
                ..Default::default()
            });
        }
    });
    Part { resource: "endpoints static_endpoint_configs dynamic_endpoint_configs", message: any::pack(&dump) }
}

fn listeners(manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Part {
    let mut dump = ListenersConfigDump::default();
    for listener in manager.static_listeners().iter().filter(|listener| keep(&listener.name)) {
        dump.static_listeners.push(listeners_config_dump::StaticListener {
            listener: Some(any::pack(listener)),
            last_updated: timestamp(manager.started()),
        });
    }
    manager.with_kind(type_url::LISTENER, |kind| {
        let Some(kind) = kind else { return };
        dump.version_info.clone_from(&kind.version);
        let names = kind.held.keys().chain(kind.refused.keys().filter(|name| !kind.held.contains_key(*name)));
        for name in names.filter(|name| keep(name)) {
            let state = |held: &Held| listeners_config_dump::DynamicListenerState {
                version_info: held.version.to_string(),
                listener: Some(body(type_url::LISTENER, held)),
                last_updated: timestamp(held.updated),
            };
            let newest = kind.held.get(name).map(state);
            let warming = manager.is_warming(type_url::LISTENER, name);
            let before = kind.before.get(name).map(state);
            let (active_state, warming_state) = if warming { (before, newest) } else { (newest, None) };
            dump.dynamic_listeners.push(listeners_config_dump::DynamicListener {
                name: name.to_string(),
                active_state,
                warming_state,
                error_state: kind.refused.get(name).map(|refused| failure(type_url::LISTENER, refused)),
                ..Default::default()
            });
        }
    });
    for (name, held) in manager.draining_listeners().into_iter().filter(|(name, _)| keep(name)) {
        let state = listeners_config_dump::DynamicListenerState {
            version_info: held.version.to_string(),
            listener: Some(body(type_url::LISTENER, &held)),
            last_updated: timestamp(held.updated),
        };
        let mut known = dump.dynamic_listeners.iter_mut();
        match known.find(|one| *one.name == *name && one.draining_state.is_none()) {
            Some(one) => one.draining_state = Some(state),
            None => dump.dynamic_listeners.push(listeners_config_dump::DynamicListener {
                name: name.to_string(),
                draining_state: Some(state),
                ..Default::default()
            }),
        }
    }
    Part { resource: "listeners static_listeners dynamic_listeners", message: any::pack(&dump) }
}

fn routes(manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Part {
    let mut dump = RoutesConfigDump::default();
    for route in manager.static_routes().iter().filter(|route| keep(&route.name)) {
        dump.static_route_configs.push(routes_config_dump::StaticRouteConfig {
            route_config: Some(any::pack(route)),
            last_updated: timestamp(manager.started()),
        });
    }
    manager.with_kind(type_url::ROUTE, |kind| {
        let Some(kind) = kind else { return };
        for (name, held) in kind.held.iter().filter(|(name, _)| keep(name)) {
            dump.dynamic_route_configs.push(routes_config_dump::DynamicRouteConfig {
                version_info: held.version.to_string(),
                route_config: Some(body(type_url::ROUTE, held)),
                last_updated: timestamp(held.updated),
                error_state: kind.refused.get(name).map(|refused| failure(type_url::ROUTE, refused)),
                ..Default::default()
            });
        }
    });
    Part { resource: "routes static_route_configs dynamic_route_configs", message: any::pack(&dump) }
}

/// Configurations of filters, where they are asked for.
fn extensions(manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Option<Part> {
    let mut dump = EcdsConfigDump::default();
    manager.with_kind(type_url::EXTENSION_CONFIG, |kind| {
        for (name, held) in kind?.held.iter().filter(|(name, _)| keep(name)) {
            let refused = kind?.refused.get(name);
            dump.ecds_filters.push(ecds_config_dump::EcdsFilterConfig {
                version_info: held.version.to_string(),
                ecds_filter: Some(body(type_url::EXTENSION_CONFIG, held)),
                last_updated: timestamp(held.updated),
                error_state: refused.map(|refused| failure(type_url::EXTENSION_CONFIG, refused)),
                ..Default::default()
            });
        }
        Some(Part { resource: "ecds_filters", message: any::pack(&dump) })
    })
}

fn scopes(manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Part {
    let mut dump = ScopedRoutesConfigDump::default();
    for scoped in manager.scoped_routes().into_iter().filter(|scoped| keep(&scoped.name)) {
        match scoped.config_specifier {
            Some(ConfigSpecifier::ScopedRouteConfigurationsList(list)) => {
                dump.inline_scoped_route_configs.push(scoped_routes_config_dump::InlineScopedRouteConfigs {
                    name: scoped.name,
                    scoped_route_configs: list.scoped_route_configurations.iter().map(any::pack).collect(),
                    last_updated: timestamp(manager.started()),
                });
            }
            Some(ConfigSpecifier::ScopedRds(_)) => manager.with_kind(type_url::SCOPED_ROUTE, |kind| {
                let Some(kind) = kind else { return };
                let last = kind.held.values().map(|held| held.updated).max();
                dump.dynamic_scoped_route_configs.push(
                    scoped_routes_config_dump::DynamicScopedRouteConfigs {
                        name: scoped.name,
                        version_info: kind.version.clone(),
                        scoped_route_configs: kind
                            .held
                            .values()
                            .map(|held| body(type_url::SCOPED_ROUTE, held))
                            .collect(),
                        last_updated: last.and_then(timestamp),
                        ..Default::default()
                    },
                );
            }),
            None => {}
        }
    }
    let resource = "scoped_route_configs inline_scoped_route_configs dynamic_scoped_route_configs";
    Part { resource, message: any::pack(&dump) }
}

fn body(type_url: &str, held: &Held) -> Any {
    Any { type_url: type_url.to_owned(), value: held.body.to_vec() }
}

fn failure(type_url: &str, refused: &Refused) -> UpdateFailureState {
    UpdateFailureState {
        failed_configuration: Some(Any { type_url: type_url.to_owned(), value: refused.body.to_vec() }),
        last_update_attempt: timestamp(refused.at),
        details: refused.details.clone(),
        version_info: refused.version.to_string(),
    }
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32 })
}
