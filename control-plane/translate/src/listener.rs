//! Listeners: what is captured, on which ports, and what happens with it.
//!
//! Gathering makes [`ListenerInputs`], which say in a small vocabulary what a listener is to do; building writes that as
//! Envoy's protobufs. So every listener is written by the same code, and two equal ones are one in the cache.

mod build;
mod filters;
mod http;
mod outbound;
mod outbound_chains;
mod tcp;
mod virtual_inbound;
mod virtual_outbound;

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh_api::destination_rule::Tunnel;
use mesh_api::gateway::TlsProtocol;
use saild_model::{Mesh, ProxyType, ProxyView};

pub use build::listener;

use crate::Cache;
use crate::authn::JwtInputs;
use crate::authz::AuthzInputs;
use crate::cluster::Policy;
use crate::resource::NamedResource;
use crate::route::InboundRouteInputs;
use crate::telemetry::access_log::LogInputs;
use crate::telemetry::metrics::MetricsInputs;
use crate::telemetry::tracing::TracingInputs;
use crate::traits::Traits;
use crate::warning::Warning;
use crate::wasm::{self, PluginInputs};

/// What a listener is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerInputs {
    /// Its name.
    pub name: String,
    /// The address it is bound to.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Which way its traffic goes.
    pub direction: Direction,
    /// Nothing is bound: connections come from the listener that captures.
    pub virtual_only: bool,
    /// Connections are handed to the listener of their original destination.
    pub use_original_dst: bool,
    /// TPROXY.
    pub transparent: bool,
    /// What looks at a connection before its chain is chosen.
    pub inspectors: Vec<Inspector>,
    /// How long that may take; absent for Envoy's own limit.
    pub inspection_timeout: Option<Duration>,
    /// The chains.
    pub chains: Vec<Chain>,
    /// The chain of connections that no other is for.
    pub default_chain: Option<Chain>,
    /// Logs of connections that find no chain.
    pub logs: Vec<LogInputs>,
    /// The proxy's kind and abilities.
    pub traits: Traits,
}

/// Which way traffic goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the workload.
    Inbound,
    /// From the workload, or through a gateway.
    Outbound,
}

/// A listener filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Inspector {
    /// Restores the original destination.
    OriginalDst,
    /// Restores the original source.
    OriginalSrc,
    /// Reads the client hello.
    Tls,
    /// Reads the first line of HTTP; not on these ports.
    Http {
        /// Ports whose protocol is declared.
        except: Vec<u16>,
    },
    /// Reads the PROXY header.
    ProxyProtocol,
}

/// A filter chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// The connections that it is for.
    pub matches: ChainMatch,
    /// TLS that it terminates.
    pub tls: Option<Tls>,
    /// What it does.
    pub filters: Filters,
}

/// The connections that a chain is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ChainMatch {
    /// The original port.
    pub port: Option<u16>,
    /// The original address.
    pub networks: Vec<IpNet>,
    /// The server name of TLS.
    pub server_names: Vec<String>,
    /// `tls` or `raw_buffer`.
    pub transport: &'static str,
    /// What is spoken.
    pub alpn: Vec<String>,
    /// Networks that the client may be in.
    pub sources: Vec<IpNet>,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tls {
    /// The mesh's mutual TLS.
    Mesh {
        /// HTTP is spoken inside.
        http: bool,
        /// The trust domain and its aliases.
        trust_domains: Vec<String>,
    },
    /// A server of a Gateway or Sidecar.
    Server(Box<ServerTlsInputs>),
}

/// TLS of a Gateway's server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerTlsInputs {
    /// Where certificates come from: SDS names.
    pub certificates: Vec<SecretRef>,
    /// Where the roots of clients' certificates come from.
    pub roots: Option<SecretRef>,
    /// Whether a client must have a certificate.
    pub require_client_certificate: bool,
    /// The names that clients' certificates may have.
    pub subject_alt_names: Vec<String>,
    /// Prefixes of the mesh's SPIFFE ids that clients may have.
    pub trust_domains: Vec<String>,
    /// Pins by key.
    pub spki: Vec<String>,
    /// Pins by certificate.
    pub hashes: Vec<String>,
    /// ALPN.
    pub alpn: Vec<String>,
    /// The lowest version.
    pub minimum: TlsProtocol,
    /// The highest version.
    pub maximum: TlsProtocol,
    /// Cipher suites; empty for the default.
    pub ciphers: Vec<String>,
    /// Curves; empty for the default.
    pub curves: Vec<String>,
}

/// A secret over SDS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// From the agent's socket.
    Agent(String),
    /// From the control plane.
    ControlPlane(String),
}

/// What a chain does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Filters {
    /// Reads requests.
    Http(Box<HttpInputs>),
    /// Carries bytes.
    Tcp(Box<TcpInputs>),
}

/// Where routes come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Routes {
    /// From the control plane, under this name.
    Rds(String),
    /// The only route of an inbound port.
    Inbound(InboundRouteInputs),
    /// As `PassthroughCluster` is reached by HTTP.
    Passthrough(String),
}

/// Where an HTTP filter chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Before the workload.
    SidecarInbound,
    /// After the workload.
    SidecarOutbound,
    /// In a gateway.
    Gateway,
}

/// How requests are handled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpInputs {
    /// Where it stands.
    pub class: Class,
    /// The prefix of its statistics.
    pub stat_prefix: String,
    /// Its routes.
    pub routes: Routes,
    /// Tokens.
    pub jwt: Option<JwtInputs>,
    /// Policies.
    pub authz: Vec<AuthzInputs>,
    /// WasmPlugins.
    pub wasm: Vec<PluginInputs>,
    /// Logs.
    pub logs: Vec<LogInputs>,
    /// Traces.
    pub tracing: Option<TracingInputs>,
    /// Metrics.
    pub metrics: MetricsInputs,
    /// How paths are made uniform.
    pub normalization: Normalization,
    /// Proxies before a gateway that are believed what they say of the client.
    pub trusted_hops: u32,
    /// HTTP/1.0 is accepted.
    pub http10: bool,
    /// The filter `grpc_web` is needed.
    pub grpc_web: bool,
    /// Clients come in TLS: what their certificates say is passed on.
    pub client_certificates: bool,
}

/// How paths are made uniform before they are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Normalization {
    /// Not at all.
    None,
    /// By RFC 3986.
    Base,
    /// Adjacent slashes become one, too.
    MergeSlashes,
    /// Escaped slashes are unescaped first.
    DecodeAndMergeSlashes,
}

/// How connections are carried.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpInputs {
    /// Where it stands.
    pub class: Class,
    /// The prefix of its statistics.
    pub stat_prefix: String,
    /// Clusters and their shares.
    pub clusters: Vec<(String, u32)>,
    /// Policies.
    pub authz: Vec<AuthzInputs>,
    /// Logs.
    pub logs: Vec<LogInputs>,
    /// Metrics.
    pub metrics: MetricsInputs,
    /// How long a connection may be silent.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may last.
    pub max_duration: Option<Duration>,
    /// Connections of one address go to the same endpoint.
    pub hash_source_ip: bool,
    /// Peers exchange metadata.
    pub exchange: bool,
    /// The HTTP request that connections are carried in.
    pub tunnel: Option<Tunnel>,
}

impl TcpInputs {
    /// Takes over what a destination's policy says of connections.
    pub(crate) fn follow(&mut self, policy: Policy) {
        self.hash_source_ip = policy.is_consistent_hash();
        if let Some(settings) = policy.connection_pool.and_then(|pool| pool.tcp) {
            self.idle_timeout = settings.idle_timeout;
            self.max_duration = settings.max_connection_duration;
        }
        self.tunnel = policy.tunnel;
    }
}

/// Every listener of a proxy.
pub(crate) fn listeners(
    mesh: &Mesh,
    proxy: &ProxyView,
    cache: &Cache,
    warnings: &mut Vec<Warning>,
) -> Vec<Arc<NamedResource>> {
    let inputs = match proxy.kind {
        ProxyType::Sidecar => {
            let common = Common::new(mesh, proxy);
            let mut all = outbound::inputs(mesh, proxy, &common);
            if proxy.interception_mode != saild_model::InterceptionMode::None {
                all.push(virtual_outbound::inputs(mesh, proxy, &common));
            }
            all.extend(virtual_inbound::inputs(mesh, proxy, &common, warnings));
            all
        }
        ProxyType::Router => crate::gateway::listeners(mesh, proxy, warnings),
    };
    inputs
        .into_iter()
        .map(|inputs| {
            let name = inputs.name.clone();
            cache.listeners.get(&name, inputs, listener)
        })
        .collect()
}

/// What all chains of one side of a proxy have in common.
#[derive(Debug, Clone)]
pub(crate) struct SideCommon {
    pub(crate) logs: Vec<LogInputs>,
    pub(crate) tracing: Option<TracingInputs>,
    pub(crate) metrics: MetricsInputs,
}

/// What all listeners of a proxy have in common.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) traits: Traits,
    pub(crate) client: SideCommon,
    pub(crate) server: SideCommon,
    pub(crate) normalization: Normalization,
    pub(crate) http10: bool,
    pub(crate) inspection_timeout: Duration,
    pub(crate) wasm: Vec<wasm::Plugin>,
}

impl Common {
    pub(crate) fn new(mesh: &Mesh, proxy: &ProxyView) -> Self {
        use crate::telemetry::{Side, access_log, metrics, tracing};
        use mesh_api::mesh_config::PathNormalization;
        let side = |side| SideCommon {
            logs: access_log::inputs(mesh, proxy, side),
            tracing: tracing::inputs(mesh, proxy, side),
            metrics: metrics::inputs(mesh, proxy, side),
        };
        let settings = mesh.settings();
        Self {
            traits: Traits::of(proxy),
            client: side(Side::Client),
            server: side(Side::Server),
            normalization: match settings.path_normalization.normalization {
                PathNormalization::None => Normalization::None,
                PathNormalization::MergeSlashes => Normalization::MergeSlashes,
                PathNormalization::DecodeAndMergeSlashes => Normalization::DecodeAndMergeSlashes,
                _ => Normalization::Base,
            },
            http10: proxy.http10,
            inspection_timeout: settings.protocol_detection_timeout,
            wasm: wasm::plugins(mesh, proxy),
        }
    }

    /// The WasmPlugins of a listener.
    pub(crate) fn wasm(&self, class: Class, port: u16) -> Vec<PluginInputs> {
        wasm::of_listener(&self.wasm, class, Some(port))
    }

    /// Handling of requests with nothing but what is common to a side.
    pub(crate) fn http(&self, class: Class, stat_prefix: String, routes: Routes) -> HttpInputs {
        let side = self.side(class);
        HttpInputs {
            class,
            stat_prefix,
            routes,
            jwt: None,
            authz: Vec::new(),
            wasm: wasm::of_listener(&self.wasm, class, None),
            logs: side.logs.clone(),
            tracing: side.tracing.clone(),
            metrics: side.metrics.clone(),
            normalization: self.normalization,
            trusted_hops: 0,
            http10: self.http10,
            grpc_web: false,
            client_certificates: false,
        }
    }

    /// Carrying of bytes with nothing but what is common to a side.
    pub(crate) fn tcp(&self, class: Class, stat_prefix: &str, clusters: Vec<(String, u32)>) -> TcpInputs {
        let side = self.side(class);
        TcpInputs {
            class,
            stat_prefix: stat_prefix.to_owned(),
            clusters,
            authz: Vec::new(),
            logs: side.logs.clone(),
            metrics: side.metrics.clone(),
            idle_timeout: None,
            max_duration: None,
            hash_source_ip: false,
            exchange: self.traits.tcp_exchange && class == Class::SidecarInbound,
            tunnel: None,
        }
    }

    fn side(&self, class: Class) -> &SideCommon {
        match class {
            Class::SidecarInbound => &self.server,
            Class::SidecarOutbound | Class::Gateway => &self.client,
        }
    }
}

impl ListenerInputs {
    /// A listener without chains.
    pub(crate) fn new(name: String, address: &str, port: u16, direction: Direction, common: &Common) -> Self {
        let logs = match direction {
            Direction::Inbound => &common.server.logs,
            Direction::Outbound => &common.client.logs,
        };
        Self {
            name,
            address: address.to_owned(),
            port,
            direction,
            virtual_only: false,
            use_original_dst: false,
            transparent: false,
            inspectors: Vec::new(),
            inspection_timeout: None,
            chains: Vec::new(),
            default_chain: None,
            logs: logs.clone(),
            traits: common.traits,
        }
    }
}
