//! CUSTOM policies: requests that they match are decided by a service outside of the proxy.
//!
//! An RBAC filter only notes, in dynamic metadata, which policy matches; the `ext_authz` filter behind it asks where one
//! of its provider did. What cannot be asked is refused.

use std::time::Duration;

use mesh_api::authorization_policy::ExtensionProviderRef;
use mesh_api::mesh_config::{ExtAuthz, Provider};
use saild_model::Mesh;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::rbac::v3 as rbac;
use xds_api::envoy::extensions::filters::http::ext_authz::v3 as http;
use xds_api::envoy::extensions::filters::network::ext_authz::v3 as tcp;
use xds_api::envoy::r#type::matcher::v3 as matcher;
use xds_api::envoy::r#type::v3 as kinds;

use crate::pb;
use crate::provider::{self, Backend};

/// The name of the filters.
pub(crate) const HTTP_FILTER: &str = "envoy.filters.http.ext_authz";
/// The name of the network filter.
pub(crate) const TCP_FILTER: &str = "envoy.filters.network.ext_authz";

/// The prefix of what RBAC notes for `ext_authz`.
pub(super) const SHADOW_PREFIX: &str = "istio_ext_authz_";

/// How long an answer may take where the provider does not say.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct External {
    /// The name of the provider.
    pub provider: String,
    /// How it is asked; nothing if it cannot be: everything is refused.
    pub service: Option<Service>,
}

/// A service that decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    /// Where it is.
    pub backend: Backend,
    /// What it speaks.
    pub protocol: Protocol,
    /// How it is asked.
    pub settings: ExtAuthz,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// Envoy's gRPC service.
    Grpc,
}

/// The provider of a policy; the second value says why it cannot be asked.
pub(super) fn external(mesh: &Mesh, named: Option<&ExtensionProviderRef>) -> (External, Option<String>) {
    let name = named.map(|provider| provider.name.clone()).unwrap_or_default();
    match service(mesh, &name) {
        Ok(service) => (External { provider: name, service: Some(service) }, None),
        Err(why) => (External { provider: name, service: None }, Some(why)),
    }
}

fn service(mesh: &Mesh, name: &str) -> Result<Service, String> {
    let (settings, protocol) = match provider::find(mesh, name) {
        Some(Provider::EnvoyExtAuthzHttp(settings)) => (settings, Protocol::Http),
        Some(Provider::EnvoyExtAuthzGrpc(settings)) => (settings, Protocol::Grpc),
        Some(_) => return Err(format!("the provider {name:?} does not authorize")),
        None => return Err(format!("MeshConfig has no extensionProviders[{name}]")),
    };
    if let Some(why) = provider::ext_authz_error(&settings) {
        return Err(format!("extensionProviders[{name}].{why}"));
    }
    let backend = provider::backend(mesh, &settings.service, settings.port).ok_or_else(|| {
        format!("the mesh has no service {:?} with port {}", settings.service, settings.port)
    })?;
    Ok(Service { backend, protocol, settings })
}

/// The prefix of the names of a provider's policies.
pub(super) fn policy_prefix(provider: &str) -> String {
    format!("istio-ext-authz-{provider}-")
}

/// Refuses everything: nobody can be asked.
pub(super) fn deny_all() -> rbac::Rbac {
    use rbac::permission::Rule;
    use rbac::principal::Identifier;
    let policy = rbac::Policy {
        permissions: vec![super::rule::permission(Rule::Any(true))],
        principals: vec![super::rule::principal(Identifier::Any(true))],
        ..Default::default()
    };
    rbac::Rbac {
        action: rbac::rbac::Action::Deny as i32,
        policies: [("default-deny-all-due-to-bad-CUSTOM-action".to_owned(), policy)].into(),
        ..Default::default()
    }
}

impl External {
    /// The HTTP filter that asks.
    pub(crate) fn http(&self) -> Option<http::ExtAuthz> {
        let service = self.service.as_ref()?;
        let settings = &service.settings;
        let status = provider::status(&settings.status_on_error).unwrap_or(403);
        let allowed =
            settings.include_request_headers_in_check.iter().chain(&settings.include_headers_in_check);
        let body = settings.include_request_body_in_check.as_ref().map(|body| http::BufferSettings {
            max_request_bytes: body.max_request_bytes,
            allow_partial_message: body.allow_partial_message,
            pack_as_bytes: body.pack_as_bytes,
        });
        Some(http::ExtAuthz {
            status_on_error: Some(kinds::HttpStatus { code: status }),
            failure_mode_allow: settings.fail_open,
            transport_api_version: core::ApiVersion::V3 as i32,
            services: Some(match service.protocol {
                Protocol::Grpc => http::ext_authz::Services::GrpcService(service.grpc()),
                Protocol::Http => http::ext_authz::Services::HttpService(service.http()),
            }),
            filter_enabled_metadata: Some(self.matched("envoy.filters.http.rbac")),
            with_request_body: body,
            clear_route_cache: settings.clear_route_cache,
            allowed_headers: match service.protocol {
                Protocol::Http => header_names(allowed),
                Protocol::Grpc => None,
            },
            ..Default::default()
        })
    }

    /// The network filter that asks; nothing if the service cannot be asked about connections.
    pub(crate) fn tcp(&self) -> Option<tcp::ExtAuthz> {
        let service = self.service.as_ref().filter(|service| service.protocol == Protocol::Grpc)?;
        Some(tcp::ExtAuthz {
            stat_prefix: "tcp.".to_owned(),
            failure_mode_allow: service.settings.fail_open,
            transport_api_version: core::ApiVersion::V3 as i32,
            grpc_service: Some(service.grpc()),
            filter_enabled_metadata: Some(self.matched("envoy.filters.network.rbac")),
            ..Default::default()
        })
    }

    /// Whether connections are not its subject: it is asked about requests alone.
    pub(crate) fn is_http_only(&self) -> bool {
        self.service.as_ref().is_some_and(|service| service.protocol == Protocol::Http)
    }

    /// Holds where a policy of this provider matched.
    fn matched(&self, filter: &str) -> matcher::MetadataMatcher {
        use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
        use matcher::value_matcher::MatchPattern;
        let key = Segment::Key(format!("{SHADOW_PREFIX}shadow_effective_policy_id"));
        matcher::MetadataMatcher {
            filter: filter.to_owned(),
            path: vec![PathSegment { segment: Some(key) }],
            value: Some(matcher::ValueMatcher {
                match_pattern: Some(MatchPattern::StringMatch(pb::prefix(&policy_prefix(&self.provider)))),
            }),
            ..Default::default()
        }
    }
}

impl Service {
    fn timeout(&self) -> Option<xds_api::google::protobuf::Duration> {
        pb::duration(self.settings.timeout.unwrap_or(TIMEOUT))
    }

    fn grpc(&self) -> core::GrpcService {
        core::GrpcService { timeout: self.timeout(), ..pb::grpc(&self.backend.cluster, &self.backend.host) }
    }

    fn http(&self) -> http::HttpService {
        let settings = &self.settings;
        let response = http::AuthorizationResponse {
            allowed_upstream_headers: header_names(&settings.headers_to_upstream_on_allow),
            allowed_client_headers: header_names(&settings.headers_to_downstream_on_deny),
            allowed_client_headers_on_success: header_names(&settings.headers_to_downstream_on_allow),
            ..Default::default()
        };
        let added: Vec<core::HeaderValue> = settings
            .include_additional_headers_in_check
            .iter()
            .map(|(key, value)| core::HeaderValue {
                key: key.clone(),
                value: value.clone(),
                ..Default::default()
            })
            .collect();
        http::HttpService {
            path_prefix: settings.path_prefix.clone(),
            server_uri: Some(core::HttpUri {
                uri: format!("http://{}", self.backend.host),
                timeout: self.timeout(),
                http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(
                    self.backend.cluster.clone(),
                )),
            }),
            authorization_response: (response != http::AuthorizationResponse::default()).then_some(response),
            authorization_request: (!added.is_empty())
                .then(|| http::AuthorizationRequest { headers_to_add: added, ..Default::default() }),
            ..Default::default()
        }
    }
}

/// Names of headers, with a wildcard at one end.
fn header_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Option<matcher::ListStringMatcher> {
    let one = |name: &String| {
        let found = if let Some(prefix) = name.strip_suffix('*') {
            pb::prefix(prefix)
        } else if let Some(suffix) = name.strip_prefix('*') {
            pb::suffix(suffix)
        } else {
            pb::exact(name)
        };
        matcher::StringMatcher { ignore_case: true, ..found }
    };
    let patterns: Vec<matcher::StringMatcher> = names.into_iter().map(one).collect();
    (!patterns.is_empty()).then_some(matcher::ListStringMatcher { patterns })
}
