//! The parts of a proxy's settings.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::decode::{Decode, Encode, expected};
use crate::destination_rule::{ClientTls, TcpKeepalive};
use crate::field::Cx;
use crate::number::Float;
use crate::telemetry::CustomTag;

enumeration! {
    /// How the control plane is authenticated.
    pub enum ControlPlaneAuthPolicy {
        None = "NONE" = 0,
        #[default]
        MutualTls = "MUTUAL_TLS" = 1,
        Inherit = "INHERIT" = 1000,
    }
}

message! {
    /// `Tracing`: where spans go, unless a provider is named.
    pub struct TracerConfig {
        zipkin: Option<AddressOnly>,
        lightstep: Option<Value>,
        datadog: Option<AddressOnly>,
        stackdriver: Option<Value>,
        open_census_agent: Option<Value>,
        custom_tags: BTreeMap<String, CustomTag>,
        max_path_tag_length: u32,
        /// In percent; 0 and absent: the control plane's default.
        sampling: Float,
        tls_settings: Option<ClientTls>,
        enable_istio_tags: Option<bool>,
    }
}

message! {
    /// An address.
    pub struct AddressOnly {
        address: String,
    }
}

message! {
    /// A gRPC service outside.
    pub struct RemoteService {
        address: String,
        tls_settings: Option<ClientTls>,
        tcp_keepalive: Option<TcpKeepalive>,
    }
}

/// Where a gateway stands.
pub type GatewayTopology = Topology;

message! {
    /// `Topology`: what stands before this gateway.
    pub struct Topology {
        num_trusted_proxies: u32,
        forward_client_cert_details: ForwardClientCertDetails,
        proxy_protocol: Option<Value>,
    }
}

enumeration! {
    /// What is done with `x-forwarded-client-cert`.
    pub enum ForwardClientCertDetails {
        #[default]
        Undefined = "UNDEFINED" = 0,
        Sanitize = "SANITIZE" = 1,
        ForwardOnly = "FORWARD_ONLY" = 2,
        AppendForward = "APPEND_FORWARD" = 3,
        SanitizeSet = "SANITIZE_SET" = 4,
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY" = 5,
    }
}

message! {
    /// Which stats a proxy keeps beside the standard ones.
    pub struct ProxyStatsMatcher {
        inclusion_prefixes: Vec<String>,
        inclusion_suffixes: Vec<String>,
        inclusion_regexps: Vec<String>,
    }
}

message! {
    /// Hardware that holds keys.
    pub struct PrivateKeyProvider {
        cryptomb: Option<Value>,
        qat: Option<Value>,
    }
}

message! {
    /// Which headers a proxy adds.
    pub struct ProxyHeaders {
        forwarded_client_cert: ForwardClientCertDetails,
        set_current_client_cert_details: Option<Value>,
        request_id: Option<Toggle>,
        server: Option<ServerHeader>,
        attempt_count: Option<Toggle>,
        envoy_debug_headers: Option<Toggle>,
        metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        preserve_http1_header_case: Option<bool>,
        x_forwarded_host: Option<Toggle>,
        x_forwarded_port: Option<Toggle>,
    }
}

/// `{disabled: true}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Toggle {
    /// Whether the header is left out.
    pub disabled: bool,
    /// Whether it is turned on, where off is the default.
    pub enabled: bool,
}

impl Decode for Toggle {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        if let Some(on) = value.as_bool() {
            return Some(Self { disabled: !on, enabled: on });
        }
        let Some(map) = value.as_object() else {
            expected("an object like {disabled: true}", value, cx);
            return None;
        };
        let mut out = Self::default();
        for (key, value) in map.iter().filter(|(_, v)| !v.is_null()) {
            let flag = match key.as_str() {
                "disabled" => &mut out.disabled,
                "enabled" => &mut out.enabled,
                _ => {
                    cx.error_at(key, "unknown field");
                    continue;
                }
            };
            *flag = cx.field(key, |cx| bool::decode(value, cx)).unwrap_or_default();
        }
        Some(out)
    }
}

impl Encode for Toggle {
    fn encode(&self) -> Value {
        let mut map = serde_json::Map::new();
        for (key, on) in [("disabled", self.disabled), ("enabled", self.enabled)] {
            if on {
                map.insert(key.to_owned(), Value::Bool(true));
            }
        }
        Value::Object(map)
    }
    fn skip(&self) -> bool {
        false
    }
}

message! {
    /// The `server` header.
    pub struct ServerHeader {
        disabled: Option<bool>,
        value: String,
    }
}

message! {
    /// Whether peer metadata is exchanged in headers.
    pub struct MetadataExchangeHeaders {
        mode: MetadataExchangeMode,
    }
}

enumeration! {
    /// With whom.
    pub enum MetadataExchangeMode {
        #[default]
        Undefined = "UNDEFINED" = 0,
        InMesh = "IN_MESH" = 1,
    }
}
