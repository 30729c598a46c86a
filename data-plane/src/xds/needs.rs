//! What a resource refers to: the endpoints of a cluster, the routes of a listener, the secrets of both, and the place
//! that each of them comes from.

use std::time::Duration;

use xds_api::any;
use xds_api::envoy::config::cluster::v3::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType};
use xds_api::envoy::config::core::v3::{
    ApiConfigSource, ConfigSource, ExtensionConfigSource, RetryPolicy, TransportSocket,
    api_config_source::ApiType, config_source::ConfigSourceSpecifier, grpc_service::TargetSpecifier,
    transport_socket,
};
use xds_api::envoy::config::listener::v3::{FilterChain, Listener, filter, listener_filter};
use xds_api::envoy::config::route::v3::RouteConfiguration;
use xds_api::envoy::extensions::filters::http::credential_injector::v3::CredentialInjector;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, ScopedRoutes, http_connection_manager::RouteSpecifier, http_filter,
    scoped_routes::ConfigSpecifier,
};
use xds_api::envoy::extensions::http::injected_credentials::generic::v3::Generic;
use xds_api::envoy::extensions::http::injected_credentials::oauth2::v3::{OAuth2, o_auth2::FlowType};
use xds_api::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, UpstreamTlsContext,
    common_tls_context::ValidationContextType, downstream_tls_context::SessionTicketKeysType,
};
use xds_api::google::protobuf::Any;
use xds_api::type_url;
use xds_stream::client::Protocol;

use super::checks::SecretKind;
use crate::dial::duration;

/// Envoy's `initial_fetch_timeout` where the configuration is silent.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Stands for all resources of a type.
pub(super) const ALL: &str = "*";

/// Where resources come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// The aggregated stream of the bootstrap.
    Ads,
    /// A server of its own.
    Grpc {
        /// The server's cluster.
        cluster: String,
        /// The variant of the protocol.
        delta: bool,
        /// The authority, if it is not the cluster's name.
        authority: String,
        /// Metadata of the stream.
        initial_metadata: Vec<(String, String)>,
        /// How long a message may be; `None`: as long as it likes.
        max_message: Option<u32>,
        /// The first wait between attempts, and the longest.
        backoff: (Duration, Duration),
    },
    /// A file, read again when it is replaced.
    Path(String),
}

impl Source {
    /// What logs call it: metadata may hold tokens.
    pub(super) fn called(&self) -> &str {
        match self {
            Self::Ads => "ADS",
            Self::Grpc { cluster, .. } => cluster,
            Self::Path(path) => path,
        }
    }

    /// The variant of the protocol; the aggregated stream's is the bootstrap's matter.
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Grpc { delta: false, .. } => Protocol::Sotw,
            _ => Protocol::Delta,
        }
    }
}

/// A resource that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    /// Its type.
    pub(super) type_url: &'static str,
    /// Its name.
    pub(super) name: String,
    /// Where it comes from.
    pub(super) source: Source,
    /// How long to wait for it; `None` is for ever.
    pub(super) timeout: Option<Duration>,
    /// The `stat_prefix` under which a route table is counted, or the family of a filter.
    pub(super) stat_prefix: Box<str>,
    /// What a secret must be.
    pub(super) secret: Option<SecretKind>,
}

impl Need {
    /// One that has nothing but a name to be known by.
    pub(super) fn new(
        type_url: &'static str,
        name: impl Into<String>,
        source: Source,
        timeout: Option<Duration>,
    ) -> Self {
        Self { type_url, name: name.into(), source, timeout, stat_prefix: Box::default(), secret: None }
    }
}

/// What is wrong, after the field's path.
pub(super) type Failure = String;

/// What a configuration source says; `parent` is where the resource that has it came from.
pub(super) fn source(
    config: Option<&ConfigSource>,
    parent: &Source,
) -> Result<(Source, Option<Duration>), Failure> {
    let Some(config) = config else { return Err("config source: required".to_owned()) };
    let timeout = match config.initial_fetch_timeout.as_ref().and_then(duration) {
        None => Some(FETCH_TIMEOUT),
        Some(Duration::ZERO) => None,
        set => set,
    };
    let source = match &config.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => Source::Ads,
        Some(ConfigSourceSpecifier::Self_(_)) => parent.clone(),
        #[expect(deprecated, reason = "Envoy still takes it")]
        Some(ConfigSourceSpecifier::Path(path)) => Source::Path(path.clone()),
        Some(ConfigSourceSpecifier::PathConfigSource(path)) => Source::Path(path.path.clone()),
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            api_source(api).map_err(|e| format!("api_config_source.{e}"))?
        }
        None => return Err("config_source_specifier: required".to_owned()),
    };
    Ok((source, timeout))
}

/// A management server.
pub(super) fn api_source(api: &ApiConfigSource) -> Result<Source, Failure> {
    let delta = match ApiType::try_from(api.api_type) {
        Ok(ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc) => true,
        Ok(ApiType::Grpc | ApiType::AggregatedGrpc) => false,
        Ok(other) => return Err(format!("api_type: {} is not supported", other.as_str_name())),
        Err(_) => return Err(format!("api_type: {} is unknown", api.api_type)),
    };
    if !api.config_validators.is_empty() {
        return Err("config_validators: not supported".to_owned());
    }
    if api.grpc_services.len() > 1 {
        return Err("grpc_services: more than one server is not supported".to_owned());
    }
    let service = api.grpc_services.first();
    let metadata = service.into_iter().flat_map(|service| &service.initial_metadata);
    match service.and_then(|service| service.target_specifier.as_ref()) {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => Ok(Source::Grpc {
            cluster: envoy.cluster_name.clone(),
            delta,
            authority: envoy.authority.clone(),
            initial_metadata: metadata.map(|header| (header.key.clone(), header.value.clone())).collect(),
            max_message: envoy
                .max_receive_message_length
                .as_ref()
                .map(|max| max.value)
                .filter(|max| *max > 0),
            backoff: backoff(envoy.retry_policy.as_ref())
                .map_err(|e| format!("grpc_services[0].envoy_grpc.retry_policy.{e}"))?,
        }),
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            Err("grpc_services[0].google_grpc: not supported; use envoy_grpc".to_owned())
        }
        None => Err("grpc_services: required".to_owned()),
    }
}

/// How long to wait between attempts: Envoy's default is half a second, then up to thirty.
fn backoff(policy: Option<&RetryPolicy>) -> Result<(Duration, Duration), Failure> {
    let Some(strategy) = policy.and_then(|policy| policy.retry_back_off.as_ref()) else {
        return Ok((Duration::from_millis(500), Duration::from_secs(30)));
    };
    let base = strategy.base_interval.as_ref().and_then(duration).filter(|base| !base.is_zero());
    let base = base.ok_or("retry_back_off.base_interval: required")?;
    let max = strategy.max_interval.as_ref().and_then(duration).unwrap_or(base * 10);
    if max < base {
        return Err("retry_back_off.max_interval: less than base_interval".to_owned());
    }
    Ok((base, max))
}

/// What a cluster waits for.
pub(super) fn of_cluster(cluster: &Cluster, parent: &Source) -> Result<Vec<Need>, Failure> {
    let mut needs = Vec::new();
    let eds = DiscoveryType::Eds as i32;
    if matches!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(kind)) if kind == eds) {
        let config = cluster.eds_cluster_config.as_ref();
        let (source, timeout) = source(config.and_then(|config| config.eds_config.as_ref()), parent)
            .map_err(|e| format!("eds_cluster_config.eds_config.{e}"))?;
        let service = config.map(|config| config.service_name.as_str()).filter(|name| !name.is_empty());
        let name = service.unwrap_or(&cluster.name).to_owned();
        needs.push(Need::new(type_url::ENDPOINT, name, source, timeout));
    }
    if let Some(socket) = &cluster.transport_socket {
        upstream_tls(socket, parent, &mut needs).map_err(|e| format!("transport_socket.{e}"))?;
    }
    for (place, one) in cluster.transport_socket_matches.iter().enumerate() {
        if let Some(socket) = &one.transport_socket {
            upstream_tls(socket, parent, &mut needs)
                .map_err(|e| format!("transport_socket_matches[{place}].transport_socket.{e}"))?;
        }
    }
    Ok(distinct(needs))
}

/// What a listener refers to, gathered at once: its connection managers may be large, and decoding one takes time.
#[derive(Debug, Default)]
pub(super) struct OfListener {
    /// What it waits for.
    pub(super) own: Vec<Need>,
    /// Whence the tables come that scopes of SRDS name, and the `stat_prefix` of who asks for them.
    pub(super) tables_of_scopes: Vec<(Source, Box<str>)>,
    /// The route configurations that it holds itself.
    pub(super) inline_routes: Vec<RouteConfiguration>,
}

/// What a listener refers to.
pub(super) fn of_listener(listener: &Listener, parent: &Source) -> Result<OfListener, Failure> {
    let mut needs = OfListener::default();
    for (place, filter) in listener.listener_filters.iter().enumerate() {
        if let Some(listener_filter::ConfigType::ConfigDiscovery(discovery)) = &filter.config_type {
            of_extension("tcp_listener_filter", &filter.name, discovery, parent, &mut needs.own)
                .map_err(|e| format!("listener_filters[{place}].{e}"))?;
        }
    }
    for (place, chain) in listener.filter_chains.iter().enumerate() {
        of_chain(chain, parent, &mut needs).map_err(|e| format!("filter_chains[{place}].{e}"))?;
    }
    if let Some(chain) = &listener.default_filter_chain {
        of_chain(chain, parent, &mut needs).map_err(|e| format!("default_filter_chain.{e}"))?;
    }
    needs.own = distinct(needs.own);
    Ok(needs)
}

/// The route configurations that a listener holds itself.
pub(super) fn inline_routes(listener: &Listener) -> Vec<RouteConfiguration> {
    managers(listener)
        .filter_map(|hcm| match hcm.route_specifier {
            Some(RouteSpecifier::RouteConfig(routes)) => Some(routes),
            _ => None,
        })
        .collect()
}

/// The scoped routes of a listener.
pub(super) fn scoped_routes(listener: &Listener) -> Vec<ScopedRoutes> {
    managers(listener)
        .filter_map(|hcm| match hcm.route_specifier {
            Some(RouteSpecifier::ScopedRoutes(scoped)) => Some(scoped),
            _ => None,
        })
        .collect()
}

fn distinct(mut needs: Vec<Need>) -> Vec<Need> {
    needs.sort();
    needs.dedup();
    needs
}

fn of_chain(chain: &FilterChain, parent: &Source, all: &mut OfListener) -> Result<(), Failure> {
    if let Some(socket) = &chain.transport_socket
        && let Some(tls) = tls_context::<DownstreamTlsContext>(socket)?
    {
        if let Some(common) = &tls.common_tls_context {
            of_tls(common, parent, &mut all.own)
                .map_err(|e| format!("transport_socket.typed_config.common_tls_context.{e}"))?;
        }
        if let Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(secret)) =
            &tls.session_ticket_keys_type
        {
            of_secret(secret, SecretKind::SessionTicketKeys, parent, &mut all.own).map_err(|e| {
                format!("transport_socket.typed_config.session_ticket_keys_sds_secret_config.{e}")
            })?;
        }
    }
    for (place, filter) in chain.filters.iter().enumerate() {
        let config = match &filter.config_type {
            Some(filter::ConfigType::TypedConfig(config)) => config,
            Some(filter::ConfigType::ConfigDiscovery(discovery)) => {
                of_extension("network_filter", &filter.name, discovery, parent, &mut all.own)
                    .map_err(|e| format!("filters[{place}].{e}"))?;
                continue;
            }
            None => continue,
        };
        // Other filters refer to nothing that is discovered; whether they are valid is not asked here.
        let Ok(hcm) = any::unpack::<HttpConnectionManager>(config) else { continue };
        for (at, filter) in hcm.http_filters.iter().enumerate() {
            of_filter(filter, parent, &mut all.own)
                .map_err(|e| format!("filters[{place}].typed_config.http_filters[{at}].{e}"))?;
        }
        for filter in hcm.upgrade_configs.iter().flat_map(|upgrade| &upgrade.filters) {
            of_filter(filter, parent, &mut all.own)
                .map_err(|e| format!("filters[{place}].typed_config.upgrade_configs.{e}"))?;
        }
        of_routes(hcm.route_specifier, &hcm.stat_prefix, parent, all)
            .map_err(|e| format!("filters[{place}].typed_config.{e}"))?;
    }
    Ok(())
}

fn of_routes(
    specifier: Option<RouteSpecifier>,
    prefix: &str,
    parent: &Source,
    all: &mut OfListener,
) -> Result<(), Failure> {
    match specifier {
        Some(RouteSpecifier::RouteConfig(table)) => all.inline_routes.push(table),
        Some(RouteSpecifier::Rds(rds)) => {
            let (source, timeout) =
                source(rds.config_source.as_ref(), parent).map_err(|e| format!("rds.config_source.{e}"))?;
            let need = Need::new(type_url::ROUTE, rds.route_config_name, source, timeout);
            all.own.push(Need { stat_prefix: prefix.into(), ..need });
        }
        Some(RouteSpecifier::ScopedRoutes(scoped)) => {
            of_scopes(&scoped, prefix, parent, all).map_err(|e| format!("scoped_routes.{e}"))?;
        }
        None => {}
    }
    Ok(())
}

/// What scopes wait for: themselves, or the tables that they name.
fn of_scopes(
    scoped: &ScopedRoutes,
    prefix: &str,
    parent: &Source,
    all: &mut OfListener,
) -> Result<(), Failure> {
    let tables = scoped.rds_config_source.as_ref();
    match &scoped.config_specifier {
        Some(ConfigSpecifier::ScopedRds(rds)) => {
            let (scopes, timeout) = source(rds.scoped_rds_config_source.as_ref(), parent)
                .map_err(|e| format!("scoped_rds.scoped_rds_config_source.{e}"))?;
            let stat_prefix = format!("{prefix}.scoped_rds.{}", scoped.name).into();
            all.own.push(Need { stat_prefix, ..Need::new(type_url::SCOPED_ROUTE, ALL, scopes, timeout) });
            if tables.is_some() {
                let tables = source(tables, parent).map_err(|e| format!("rds_config_source.{e}"))?;
                all.tables_of_scopes.push((tables.0, prefix.into()));
            }
        }
        Some(ConfigSpecifier::ScopedRouteConfigurationsList(list)) => {
            let scopes = list.scoped_route_configurations.iter();
            for name in scopes.map(|scope| &scope.route_configuration_name).filter(|name| !name.is_empty()) {
                let (source, timeout) =
                    source(tables, parent).map_err(|e| format!("rds_config_source.{e}"))?;
                let need = Need::new(type_url::ROUTE, name, source, timeout);
                all.own.push(Need { stat_prefix: prefix.into(), ..need });
            }
        }
        None => {}
    }
    Ok(())
}

/// The HTTP connection managers of a listener.
fn managers(listener: &Listener) -> impl Iterator<Item = HttpConnectionManager> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.flat_map(|chain| &chain.filters).filter_map(|filter| match &filter.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => any::unpack::<HttpConnectionManager>(config).ok(),
        _ => None,
    })
}

/// A filter's configuration may be a resource of its own.
fn of_filter(filter: &HttpFilter, parent: &Source, needs: &mut Vec<Need>) -> Result<(), Failure> {
    match &filter.config_type {
        Some(http_filter::ConfigType::ConfigDiscovery(discovery)) => {
            of_extension("http_filter", &filter.name, discovery, parent, needs)
        }
        Some(http_filter::ConfigType::TypedConfig(config)) => of_credentials(config, parent, needs),
        None => Ok(()),
    }
}

fn of_extension(
    family: &str,
    name: &str,
    discovery: &ExtensionConfigSource,
    parent: &Source,
    needs: &mut Vec<Need>,
) -> Result<(), Failure> {
    let (source, timeout) = source(discovery.config_source.as_ref(), parent)
        .map_err(|e| format!("config_discovery.config_source.{e}"))?;
    // With a default to begin with nobody waits.
    let ready = discovery.apply_default_config_without_warming && discovery.default_config.is_some();
    let timeout = if ready { Some(Duration::ZERO) } else { timeout };
    let need = Need::new(type_url::EXTENSION_CONFIG, name, source, timeout);
    needs.push(Need { stat_prefix: family.into(), ..need });
    Ok(())
}

/// Credentials that a filter puts into requests are secrets.
fn of_credentials(config: &Any, parent: &Source, needs: &mut Vec<Need>) -> Result<(), Failure> {
    let Ok(injector) = any::unpack::<CredentialInjector>(config) else { return Ok(()) };
    let Some(config) = injector.credential.and_then(|credential| credential.typed_config) else {
        return Ok(());
    };
    let (field, secret) = if let Ok(generic) = any::unpack::<Generic>(&config) {
        ("credential", generic.credential)
    } else if let Ok(OAuth2 { flow_type: Some(FlowType::ClientCredentials(client)), .. }) =
        any::unpack::<OAuth2>(&config)
    {
        ("client_credentials.client_secret", client.client_secret)
    } else {
        return Ok(());
    };
    let secret =
        secret.as_ref().map_or(Ok(()), |secret| of_secret(secret, SecretKind::Generic, parent, needs));
    secret.map_err(|e| format!("typed_config.credential.typed_config.{field}.{e}"))
}

fn upstream_tls(socket: &TransportSocket, parent: &Source, needs: &mut Vec<Need>) -> Result<(), Failure> {
    if let Some(tls) = tls_context::<UpstreamTlsContext>(socket)?
        && let Some(common) = &tls.common_tls_context
    {
        of_tls(common, parent, needs).map_err(|e| format!("typed_config.common_tls_context.{e}"))?;
    }
    Ok(())
}

fn tls_context<M>(socket: &TransportSocket) -> Result<Option<M>, Failure>
where
    M: prost::Message + prost::Name + Default,
{
    match &socket.config_type {
        Some(transport_socket::ConfigType::TypedConfig(config)) => match any::unpack::<M>(config) {
            Ok(tls) => Ok(Some(tls)),
            Err(any::Error::Type { .. }) => Ok(None),
            Err(error) => Err(format!("typed_config: {error}")),
        },
        None => Ok(None),
    }
}

fn of_tls(common: &CommonTlsContext, parent: &Source, needs: &mut Vec<Need>) -> Result<(), Failure> {
    for (place, secret) in common.tls_certificate_sds_secret_configs.iter().enumerate() {
        of_secret(secret, SecretKind::Certificate, parent, needs)
            .map_err(|e| format!("tls_certificate_sds_secret_configs[{place}].{e}"))?;
    }
    match &common.validation_context_type {
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            of_secret(secret, SecretKind::Validation, parent, needs)
                .map_err(|e| format!("validation_context_sds_secret_config.{e}"))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let secret = combined.validation_context_sds_secret_config.as_ref();
            secret
                .map_or(Ok(()), |secret| of_secret(secret, SecretKind::Validation, parent, needs))
                .map_err(|e| format!("combined_validation_context.validation_context_sds_secret_config.{e}"))
        }
        _ => Ok(()),
    }
}

fn of_secret(
    secret: &SdsSecretConfig,
    kind: SecretKind,
    parent: &Source,
    needs: &mut Vec<Need>,
) -> Result<(), Failure> {
    // Without a source it is one of the bootstrap's static secrets.
    if secret.sds_config.is_some() {
        let (source, timeout) =
            source(secret.sds_config.as_ref(), parent).map_err(|e| format!("sds_config.{e}"))?;
        let need = Need::new(type_url::SECRET, &secret.name, source, timeout);
        needs.push(Need { secret: Some(kind), ..need });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use xds_api::codec::Codec;

    fn read(grpc: &Value, more: &Value) -> Result<Source, Failure> {
        let mut api =
            json!({"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [grpc]});
        api.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        api_source(&Codec::new().from_json_value(&api).unwrap())
    }

    #[test]
    fn a_management_server_is_read_whole_or_refused_by_name() {
        let plain = json!({"envoy_grpc": {"cluster_name": "xds"}});
        let Ok(Source::Grpc { backoff, max_message, .. }) = read(&plain, &json!({})) else { panic!() };
        assert_eq!((backoff.0.as_millis(), backoff.1.as_secs(), max_message), (500, 30, None));
        let base = |base: &str| json!({"retry_back_off": {"base_interval": base}});
        let own = json!({"envoy_grpc": {"cluster_name": "xds", "max_receive_message_length": 10,
            "retry_policy": base("0.1s")}});
        let Ok(Source::Grpc { backoff, max_message, .. }) = read(&own, &json!({})) else { panic!() };
        assert_eq!((backoff.0.as_millis(), backoff.1.as_millis(), max_message), (100, 1000, Some(10)));
        let none = json!({"envoy_grpc": {"cluster_name": "xds", "retry_policy": base("0s")}});
        assert!(read(&none, &json!({})).unwrap_err().contains("base_interval"));
        let two = json!({"grpc_services": [plain, plain]});
        assert!(read(&plain, &two).unwrap_err().starts_with("grpc_services: "));
        let validators = json!({"config_validators": [{"name": "v"}]});
        assert!(read(&plain, &validators).unwrap_err().starts_with("config_validators: "));
    }
}
