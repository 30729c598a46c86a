//! Flags and environment, resolved: every value read and checked, before anything starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use mesh_api::MeshConfig;
use saild_ca::RootKey;
use saild_ca::authority::Lifetimes;
use saild_serve::debounce::Delays;
use saild_serve::transport::parse_address;

use crate::flags::{Discovery, Registry};
use crate::jwks::Timing;

/// This release.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Addresses to listen on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) secure_grpc: SocketAddr,
    pub(crate) monitoring: SocketAddr,
}

/// How service accounts' tokens are verified.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) keys: PathBuf,
    pub(crate) issuer: String,
}

/// Where the mesh's objects come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A directory of manifests.
    Directory(PathBuf),
    /// The API server that the environment names.
    Kubernetes,
}

/// All that saild runs by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listen: Listen,
    pub(crate) source: Source,
    pub(crate) state_dir: PathBuf,
    pub(crate) cacerts: PathBuf,
    pub(crate) mesh_config: Arc<MeshConfig>,
    pub(crate) domain: String,
    pub(crate) cluster_id: String,
    pub(crate) revision: String,
    pub(crate) system_namespace: String,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) root_key: RootKey,
    pub(crate) root_life: Duration,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) delays: Delays,
    pub(crate) concurrent_pushes: Option<usize>,
    /// Streams that may be opened in a second.
    pub(crate) streams_per_second: Option<usize>,
    pub(crate) check_identity: bool,
    pub(crate) check_debug_access: bool,
    pub(crate) max_stream_age: Option<Duration>,
    pub(crate) shutdown_time: Duration,
    pub(crate) jwks_timing: Timing,
    /// Networks in which no issuer is asked for keys.
    pub(crate) jwks_blocked: Vec<IpNet>,
}

/// Reads one environment variable.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Settings {
    /// Checks the flags, and reads the environment under Istio's names.
    pub(crate) fn resolve(flags: &Discovery, lookup: Lookup<'_>) -> anyhow::Result<Self> {
        let environment = Environment(lookup);
        let source = source(flags)?;
        let defaults = Lifetimes::default();
        let tokens = flags
            .token_jwks
            .as_ref()
            .map(|keys| Tokens { keys: keys.clone(), issuer: flags.token_issuer.clone() });
        let max_age = duration("--keepaliveMaxServerConnectionAge", &flags.max_connection_age)?;
        Ok(Self {
            listen: Listen {
                http: parse_address("--httpAddr", &flags.http_addr)?,
                https: parse_address("--httpsAddr", &flags.https_addr)?,
                grpc: parse_address("--grpcAddr", &flags.grpc_addr)?,
                secure_grpc: parse_address("--secureGRPCAddr", &flags.secure_grpc_addr)?,
                monitoring: parse_address("--monitoringAddr", &flags.monitoring_addr)?,
            },
            source,
            state_dir: flags.state_dir.clone(),
            cacerts: environment.text("ROOT_CA_DIR").map_or_else(|| "./etc/cacerts".into(), PathBuf::from),
            mesh_config: Arc::new(mesh_config(&flags.mesh_config)?),
            domain: flags.domain.clone(),
            cluster_id: flags
                .cluster_id
                .clone()
                .or_else(|| environment.text("CLUSTER_ID"))
                .unwrap_or_else(|| "Kubernetes".to_owned()),
            revision: environment.text("REVISION").unwrap_or_default(),
            system_namespace: environment.text("POD_NAMESPACE").unwrap_or_else(|| "istio-system".to_owned()),
            tokens,
            root_key: flags.root_key.parse().with_context(|| format!("--root-key {}", flags.root_key))?,
            root_life: environment
                .duration("CITADEL_SELF_SIGNED_CA_CERT_TTL", Duration::from_secs(10 * 365 * 24 * 3600))?,
            lifetimes: Lifetimes {
                default: environment.duration("DEFAULT_WORKLOAD_CERT_TTL", defaults.default)?,
                max: environment.duration("MAX_WORKLOAD_CERT_TTL", defaults.max)?,
            },
            delays: Delays {
                quiet: environment.duration("PILOT_DEBOUNCE_AFTER", Delays::default().quiet)?,
                max: environment.duration("PILOT_DEBOUNCE_MAX", Delays::default().max)?,
            },
            concurrent_pushes: environment.number("PILOT_PUSH_THROTTLE")?.filter(|count| *count > 0),
            streams_per_second: environment
                .number("PILOT_MAX_REQUESTS_PER_SECOND")?
                .filter(|count| *count > 0),
            check_identity: environment.flag("PILOT_ENABLE_XDS_IDENTITY_CHECK", true)?,
            check_debug_access: environment.flag("ENABLE_DEBUG_ENDPOINT_AUTH", true)?,
            max_stream_age: (!max_age.is_zero()).then_some(max_age),
            shutdown_time: duration("--shutdownDuration", &flags.shutdown_duration)?,
            jwks_timing: Timing {
                refresh: environment
                    .duration("PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", Timing::default().refresh)?
                    .max(Duration::from_secs(1)),
                ..Timing::default()
            },
            jwks_blocked: environment.networks("BLOCKED_CIDRS_IN_JWKS_URIS")?,
        })
    }
}

fn source(flags: &Discovery) -> anyhow::Result<Source> {
    match (flags.registries, &flags.registry_dir) {
        (Some(Registry::Kubernetes), None) => Ok(Source::Kubernetes),
        (Some(Registry::Kubernetes), Some(_)) => {
            bail!("--registry-dir is for --registries Directory: leave out one of the two")
        }
        (_, Some(dir)) if dir.is_dir() => Ok(Source::Directory(dir.clone())),
        (_, Some(dir)) => {
            bail!("--registry-dir {} is not a directory: create it, or name another", dir.display())
        }
        (_, None) => {
            bail!("nothing to serve: give --registry-dir DIR with manifests, or --registries Kubernetes")
        }
    }
}

fn mesh_config(path: &Path) -> anyhow::Result<MeshConfig> {
    match std::fs::read_to_string(path) {
        Ok(text) => MeshConfig::from_yaml(&text).with_context(|| format!("--meshConfig {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(MeshConfig::default()),
        Err(error) => Err(error).with_context(|| format!("--meshConfig {}", path.display())),
    }
}

fn duration(name: &str, text: &str) -> anyhow::Result<Duration> {
    mesh_api::duration::parse(text).map_err(|reason| anyhow::anyhow!("{name}={text}: {reason}"))
}

struct Environment<'a>(Lookup<'a>);

impl Environment<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| !text.is_empty())
    }

    fn duration(&self, name: &str, default: Duration) -> anyhow::Result<Duration> {
        self.text(name).map_or(Ok(default), |text| duration(name, &text))
    }

    fn number(&self, name: &str) -> anyhow::Result<Option<usize>> {
        let parse = |text: String| text.parse().with_context(|| format!("{name}={text} is not a number"));
        self.text(name).map(parse).transpose()
    }

    fn networks(&self, name: &str) -> anyhow::Result<Vec<IpNet>> {
        let text = self.text(name).unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().with_context(|| format!("{name}: {part} is not a network"))).collect()
    }

    fn flag(&self, name: &str, default: bool) -> anyhow::Result<bool> {
        match self.text(name).map(|text| text.to_ascii_lowercase()).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "t") => Ok(true),
            Some("false" | "0" | "f") => Ok(false),
            Some(other) => bail!("{name}={other} is neither true nor false"),
        }
    }
}
