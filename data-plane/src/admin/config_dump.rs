//! `/config_dump`: what the proxy was told, as `envoy.admin.v3.ConfigDump`. Keys are never shown.

use std::time::SystemTime;

use http::StatusCode;
use prost::Message;
use regex::Regex;
use xds_api::any;
use xds_api::envoy::admin::v3::{
    BootstrapConfigDump, ClustersConfigDump, ConfigDump, EndpointsConfigDump, ListenersConfigDump,
    RoutesConfigDump, SecretsConfigDump, UpdateFailureState, clusters_config_dump, endpoints_config_dump,
    listeners_config_dump, routes_config_dump, secrets_config_dump,
};
use xds_api::envoy::config::bootstrap::v3::Bootstrap;
use xds_api::envoy::config::core::v3::{DataSource, data_source::Specifier};
use xds_api::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
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
    if params.has("include_eds") {
        parts.push(endpoints(manager, &keep));
    }
    parts.extend([listeners(manager, &keep), routes(manager, &keep), secrets(manager, &keep)]);
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
        Ok(Ok(dump)) => super::json(&dump),
        Ok(Err(said)) => text(StatusCode::BAD_REQUEST, said),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn bootstrap_part(main: &Main) -> Part {
    let mut bootstrap = Bootstrap::decode(main.bootstrap.clone()).unwrap_or_default();
    bootstrap.node = Some(main.node.clone());
    for secret in bootstrap.static_resources.iter_mut().flat_map(|fixed| &mut fixed.secrets) {
        redact(secret);
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
            let cluster = clusters_config_dump::DynamicCluster {
                version_info: held.version.to_string(),
                cluster: Some(body(type_url::CLUSTER, held)),
                last_updated: timestamp(held.updated),
                error_state: kind.refused.get(name).map(|refused| failure(type_url::CLUSTER, refused)),
                ..Default::default()
            };
            if manager.is_warming(type_url::CLUSTER, name) {
                dump.dynamic_warming_clusters.push(cluster);
            } else {
                dump.dynamic_active_clusters.push(cluster);
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
            let state = kind.held.get(name).map(|held| listeners_config_dump::DynamicListenerState {
                version_info: held.version.to_string(),
                listener: Some(body(type_url::LISTENER, held)),
                last_updated: timestamp(held.updated),
            });
            let warming = manager.is_warming(type_url::LISTENER, name);
            let (active_state, warming_state) = if warming { (None, state) } else { (state, None) };
            dump.dynamic_listeners.push(listeners_config_dump::DynamicListener {
                name: name.to_string(),
                active_state,
                warming_state,
                error_state: kind.refused.get(name).map(|refused| failure(type_url::LISTENER, refused)),
                ..Default::default()
            });
        }
    });
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

fn secrets(manager: &Manager, keep: &dyn Fn(&str) -> bool) -> Part {
    let mut dump = SecretsConfigDump::default();
    manager.with_kind(type_url::SECRET, |kind| {
        for (name, held) in kind.into_iter().flat_map(|kind| &kind.held).filter(|(name, _)| keep(name)) {
            let mut secret = Secret::decode(held.body.clone()).unwrap_or_default();
            redact(&mut secret);
            dump.dynamic_active_secrets.push(secrets_config_dump::DynamicSecret {
                name: name.to_string(),
                version_info: held.version.to_string(),
                last_updated: timestamp(held.updated),
                secret: Some(any::pack(&secret)),
                ..Default::default()
            });
        }
    });
    Part { resource: "secrets dynamic_active_secrets", message: any::pack(&dump) }
}

/// Keys and the like become the word `[redacted]`.
fn redact(secret: &mut Secret) {
    let hide = |source: &mut Option<DataSource>| {
        if let Some(source) = source {
            source.specifier = Some(match &source.specifier {
                // A name is no secret.
                Some(Specifier::Filename(name)) => Specifier::Filename(name.clone()),
                _ => Specifier::InlineBytes(b"[redacted]".to_vec()),
            });
        }
    };
    match &mut secret.r#type {
        Some(secret::Type::TlsCertificate(certificate)) => {
            hide(&mut certificate.private_key);
            hide(&mut certificate.password);
            hide(&mut certificate.pkcs12);
        }
        Some(secret::Type::SessionTicketKeys(keys)) => {
            for key in &mut keys.keys {
                key.specifier = Some(Specifier::InlineBytes(b"[redacted]".to_vec()));
            }
        }
        Some(secret::Type::GenericSecret(generic)) => hide(&mut generic.secret),
        Some(secret::Type::ValidationContext(_)) | None => {}
    }
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
