//! The command line, as Istio's agent has it.

mod iptables;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use iptables::IptablesArgs;

/// The agent of a pod in the mesh.
#[derive(Debug, Parser)]
#[command(name = "sail-agent", version, about, disable_version_flag = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Log filter of the agent: LEVEL, or SCOPE:LEVEL,... as Istio writes it.
    #[arg(long = "log_output_level", global = true, default_value = "info", value_name = "LEVEL")]
    pub log_output_level: String,
    /// Log as JSON.
    #[arg(long = "log_as_json", global = true)]
    pub log_as_json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs the proxy and what it needs.
    Proxy(ProxyArgs),
    /// Applies the capture rules of this network namespace.
    #[command(name = "istio-iptables")]
    IstioIptables(Box<IptablesArgs>),
    /// Removes the capture rules of this network namespace.
    #[command(name = "istio-clean-iptables")]
    IstioCleanIptables(Box<IptablesArgs>),
    /// Waits until the proxy is ready.
    Wait(WaitArgs),
    /// Sends a request to the proxy's admin interface.
    Request(RequestArgs),
    /// Prints the version.
    Version(VersionArgs),
}

/// The part that a proxy plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Beside an application.
    #[default]
    Sidecar,
    /// A gateway.
    Router,
    /// A waypoint.
    Waypoint,
}

impl Role {
    /// As node ids begin.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
            Self::Waypoint => "waypoint",
        }
    }
}

/// Flags of `proxy`.
#[derive(Clone, Debug, Default, Args)]
pub struct ProxyArgs {
    /// The part that the proxy plays.
    #[arg(value_enum, default_value_t)]
    pub role: Role,
    /// DNS domain of the pod: `<namespace>.svc.<cluster domain>`.
    #[arg(long, default_value = "")]
    pub domain: String,
    /// Log level of the proxy.
    #[arg(long = "proxyLogLevel", default_value = "warning,misc:error", value_name = "LEVEL")]
    pub proxy_log_level: String,
    /// Log levels of the proxy's components.
    #[arg(long = "proxyComponentLogLevel", default_value = "", value_name = "LEVELS")]
    pub proxy_component_log_level: String,
    /// Workers of the proxy; 0 for one a core.
    #[arg(long)]
    pub concurrency: Option<u32>,
    /// The mesh configuration.
    #[arg(long = "meshConfig", default_value = agent_contract::paths::MESH_CONFIG, value_name = "FILE")]
    pub mesh_config: String,
    /// The name of the service in traces and statistics of older tools.
    #[arg(long = "serviceCluster", default_value = "", value_name = "NAME")]
    pub service_cluster: String,
    /// Security token service; not offered.
    #[arg(long = "stsPort", value_name = "PORT")]
    pub sts_port: Option<u16>,
    /// Plugin of the security token service; not offered.
    #[arg(long = "tokenManagerPlugin", value_name = "NAME")]
    pub token_manager_plugin: Option<String>,
    /// Bootstrap template; not offered: bootstraps are overridden instead.
    #[arg(long = "templateFile", value_name = "FILE")]
    pub template_file: Option<String>,
    /// Where the outlier log of the proxy would be written; not offered.
    #[arg(long = "outlierLogPath", value_name = "FILE")]
    pub outlier_log_path: Option<String>,
}

/// Flags of `wait`.
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    /// How long to wait in all, in seconds.
    #[arg(long = "timeoutSeconds", default_value_t = 60, value_name = "SECONDS")]
    pub timeout_seconds: u64,
    /// How long one request may take, in milliseconds.
    #[arg(long = "requestTimeoutMillis", default_value_t = 500, value_name = "MILLIS")]
    pub request_timeout_millis: u64,
    /// How long to wait between requests, in milliseconds.
    #[arg(long = "periodMillis", default_value_t = 500, value_name = "MILLIS")]
    pub period_millis: u64,
    /// What is asked.
    #[arg(long, default_value = "http://localhost:15021/healthz/ready")]
    pub url: String,
}

/// Flags of `request`.
#[derive(Clone, Debug, Args)]
pub struct RequestArgs {
    /// GET, POST …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// What is sent.
    #[arg(default_value = "")]
    pub body: String,
    /// The port on localhost: the proxy's admin interface, or 15020 for the agent.
    #[arg(long = "debug-port", default_value_t = agent_contract::ports::PROXY_ADMIN, value_name = "PORT")]
    pub debug_port: u16,
}

/// Flags of `version`.
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Only the version number.
    #[arg(long, short)]
    pub short: bool,
    /// `yaml` or `json`.
    #[arg(long, short)]
    pub output: Option<String>,
}
