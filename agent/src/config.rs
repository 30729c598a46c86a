//! The agent's configuration: flags, environment, mesh configuration and pod annotations become one [`AgentConfig`].

pub mod node;
pub mod pod_info;
pub mod proxy_config;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use agent_contract::{AgentEnv, annotations, labels, paths};
use serde_json::Value;

use crate::cli::{ProxyArgs, Role};
use node::Node;
use pod_info::PodInfo;
use proxy_config::ProxyConfig;

/// Why the agent cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An environment variable is wrong.
    #[error(transparent)]
    Env(#[from] agent_contract::agent_env::Error),
    /// A file cannot be read.
    #[error("reading {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A text is no YAML.
    #[error("{what} is not valid YAML or JSON")]
    Yaml {
        /// Which text.
        what: String,
        /// Where it is wrong.
        #[source]
        source: serde_norway::Error,
    },
    /// A field is wrong.
    #[error("{what}: {field}: {reason}")]
    Field {
        /// Which text.
        what: String,
        /// Which field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An identity is wrong.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// Something is missing.
    #[error("{0}")]
    Missing(String),
}

/// Everything that `proxy` needs to know.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// What the proxy is.
    pub role: Role,
    /// The environment.
    pub env: AgentEnv,
    /// ProxyConfig, merged from its sources.
    pub proxy: ProxyConfig,
    /// Who the proxy says that it is.
    pub node: Node,
    /// The DNS domain of the pod.
    pub domain: String,
    /// Workers of the proxy; `None` for one a core.
    pub concurrency: Option<u32>,
    /// Log level of the proxy.
    pub proxy_log_level: String,
    /// Log levels of its components.
    pub proxy_component_log_level: String,
}

impl AgentConfig {
    /// Reads everything. `vars` is the process's environment.
    pub fn load(args: &ProxyArgs, mut vars: BTreeMap<String, String>) -> Result<Self, Error> {
        warn_of_ignored(args);
        let pod = PodInfo::read(&PathBuf::from(paths::POD_INFO))?;
        let proxy = Self::proxy_config(args, &vars, &pod)?;
        for (name, value) in &proxy.proxy_metadata {
            vars.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let env = AgentEnv::from_vars(&vars)?;
        if env.pod_namespace.is_empty() && env.instance_ip.is_none() {
            return Err(Error::Missing(
                "POD_NAMESPACE and INSTANCE_IP are not set: the pod's environment must say who it is"
                    .to_owned(),
            ));
        }
        let addresses = node::addresses(env.instance_ip);
        let domain = if args.domain.is_empty() {
            format!("{}.svc.cluster.local", namespace(&env))
        } else {
            args.domain.clone()
        };
        let node = Node::new(args.role, &env, &proxy, &pod, &addresses, &domain);
        let concurrency = match args.concurrency.or(proxy.concurrency) {
            Some(0) => None,
            Some(workers) => Some(workers),
            None => env.cpu_limit.filter(|limit| *limit > 0),
        };
        let (level, components) = split_log_level(args);
        Ok(Self {
            role: args.role,
            env,
            proxy,
            node,
            domain,
            concurrency,
            proxy_log_level: level,
            proxy_component_log_level: components,
        })
    }

    /// The address that the control plane is reached at.
    pub fn ca_address(&self) -> &str {
        if self.env.ca_addr.is_empty() { &self.proxy.discovery_address } else { &self.env.ca_addr }
    }

    /// The address of the pod that probes are sent to.
    pub fn instance_ip(&self) -> Option<IpAddr> {
        self.env.instance_ip
    }

    /// The agent's xDS socket.
    pub fn xds_socket(&self) -> PathBuf {
        PathBuf::from(&self.proxy.config_path).join(paths::XDS_SOCKET)
    }

    /// The workload's SDS socket.
    pub fn sds_socket(&self) -> PathBuf {
        PathBuf::from(paths::WORKLOAD_SOCKET_DIR).join(&self.env.workload_socket_file)
    }

    fn proxy_config(
        args: &ProxyArgs,
        vars: &BTreeMap<String, String>,
        pod: &PodInfo,
    ) -> Result<ProxyConfig, Error> {
        let mut merged = Value::Object(serde_json::Map::new());
        match std::fs::read_to_string(&args.mesh_config) {
            Ok(text) => {
                let mesh = proxy_config::parse_yaml(&args.mesh_config, &text)?;
                if let Some(default) = mesh.get("defaultConfig") {
                    proxy_config::merge(&mut merged, default);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Read { path: args.mesh_config.clone(), source }),
        }
        let from_env = vars.get(agent_contract::env::PROXY_CONFIG.name).map_or("", String::as_str);
        let from_pod = pod.annotations.get(annotations::PROXY_CONFIG).map_or("", String::as_str);
        for (what, text) in [("PROXY_CONFIG", from_env), (annotations::PROXY_CONFIG, from_pod)] {
            if !text.trim().is_empty() {
                proxy_config::merge(&mut merged, &proxy_config::parse_yaml(what, text)?);
            }
        }
        ProxyConfig::from_value(merged)
    }
}

/// The namespace that names are relative to.
pub fn namespace(env: &AgentEnv) -> &str {
    if env.pod_namespace.is_empty() { "default" } else { &env.pod_namespace }
}

/// The locality that a label says: `region.zone.subzone`, or with slashes.
pub fn locality(labels: &BTreeMap<String, String>) -> Option<[String; 3]> {
    let text = labels.get(labels::LOCALITY)?;
    let separator = if text.contains('/') { '/' } else { '.' };
    let mut parts = text.split(separator).map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    Some([next(), next(), next()])
}

/// Istio's flag carries level and components in one: `warning,misc:error`.
fn split_log_level(args: &ProxyArgs) -> (String, String) {
    let mut level = String::new();
    let mut components = Vec::new();
    for part in args.proxy_log_level.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if part.contains(':') { components.push(part) } else { part.clone_into(&mut level) }
    }
    if !args.proxy_component_log_level.is_empty() {
        components = vec![args.proxy_component_log_level.as_str()];
    }
    if level.is_empty() {
        "warning".clone_into(&mut level);
    }
    (level, components.join(","))
}

fn warn_of_ignored(args: &ProxyArgs) {
    let ignored = [
        ("--stsPort", args.sts_port.is_some_and(|port| port != 0)),
        ("--tokenManagerPlugin", args.token_manager_plugin.is_some()),
        ("--templateFile", args.template_file.is_some()),
        ("--outlierLogPath", args.outlier_log_path.is_some()),
    ];
    for (flag, _) in ignored.iter().filter(|(_, given)| *given) {
        tracing::warn!(flag, "this flag has no effect here");
    }
}
