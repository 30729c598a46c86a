//! The command line, as written: Istio's names, and what a mesh without Kubernetes needs.

use std::path::PathBuf;

use base::log::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// The control plane of an Ironsail mesh.
#[derive(Debug, Parser)]
#[command(name = "saild", version = crate::settings::VERSION)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve configuration and certificates to the mesh.
    Discovery(Box<Discovery>),
    /// Print the version.
    Version,
}

/// Where the mesh's objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Registry {
    /// A Kubernetes API server.
    #[value(name = "Kubernetes")]
    Kubernetes,
    /// A directory of manifests.
    #[value(name = "Directory")]
    Directory,
}

/// Flags of `saild discovery`. Camel case where Istio has it.
#[derive(Debug, Args)]
pub(crate) struct Discovery {
    /// Debug pages and readiness.
    #[arg(long = "httpAddr", default_value = ":8080", value_name = "ADDR")]
    pub(crate) http_addr: String,
    /// Webhooks, over TLS.
    #[arg(long = "httpsAddr", default_value = ":15017", value_name = "ADDR")]
    pub(crate) https_addr: String,
    /// xDS and certificates without encryption.
    #[arg(long = "grpcAddr", default_value = ":15010", value_name = "ADDR")]
    pub(crate) grpc_addr: String,
    /// xDS and certificates over TLS.
    #[arg(long = "secureGRPCAddr", alias = "secureGrpcAddr", default_value = ":15012", value_name = "ADDR")]
    pub(crate) secure_grpc_addr: String,
    /// Metrics and version.
    #[arg(long = "monitoringAddr", default_value = ":15014", value_name = "ADDR")]
    pub(crate) monitoring_addr: String,
    /// MeshConfig where no ConfigMap `istio` has it.
    #[arg(long = "meshConfig", default_value = "./etc/istio/config/mesh", value_name = "FILE")]
    pub(crate) mesh_config: PathBuf,
    /// The domain of services.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) domain: String,
    /// The cluster that the registry is of [default: $CLUSTER_ID or Kubernetes].
    #[arg(long = "clusterID", value_name = "ID")]
    pub(crate) cluster_id: Option<String>,
    /// Where the mesh's objects come from [default: Directory if --registry-dir is given].
    #[arg(long, value_enum)]
    pub(crate) registries: Option<Registry>,
    /// The directory of manifests of the registry Directory.
    #[arg(long = "registry-dir", value_name = "DIR")]
    pub(crate) registry_dir: Option<PathBuf>,
    /// What survives a restart: the authority's root and key.
    #[arg(long = "state-dir", default_value = "./var/lib/saild", value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// Public keys (a JSON Web Key Set) by which service accounts' tokens are verified.
    #[arg(long = "token-jwks", value_name = "FILE")]
    pub(crate) token_jwks: Option<PathBuf>,
    /// The issuer of service accounts' tokens.
    #[arg(
        long = "token-issuer",
        default_value = "https://kubernetes.default.svc.cluster.local",
        value_name = "ISS"
    )]
    pub(crate) token_issuer: String,
    /// The key of a root that is made here: ECDSA or RSA2048, RSA3072, RSA4096.
    #[arg(long = "root-key", default_value = "ECDSA", value_name = "KIND")]
    pub(crate) root_key: String,
    /// How long to wait for streams and requests to end.
    #[arg(long = "shutdownDuration", default_value = "10s", value_name = "TIME")]
    pub(crate) shutdown_duration: String,
    /// Streams are ended after this time, so that proxies spread over replicas.
    #[arg(long = "keepaliveMaxServerConnectionAge", default_value = "30m", value_name = "TIME")]
    pub(crate) max_connection_age: String,
    /// Levels as `default:info,ads:debug`, or `LEVEL`, or `TARGET=LEVEL,...`.
    #[arg(long = "log_output_level", default_value = "info", value_name = "LEVELS")]
    pub(crate) log_output_level: String,
    /// Log as JSON.
    #[arg(long = "log_as_json")]
    pub(crate) log_as_json: bool,
}

impl Discovery {
    /// Levels in the form of the logging library. Istio's scopes other than `default` have no counterpart here but the
    /// crate of the same word.
    pub(crate) fn log_filter(&self) -> String {
        let items = self.log_output_level.split(',').map(str::trim).filter(|item| !item.is_empty());
        let items: Vec<String> = items
            .map(|item| match item.split_once(':') {
                Some(("default" | "all", level)) => level.to_owned(),
                Some((scope, level)) => format!("{scope}={level}"),
                None => item.to_owned(),
            })
            .collect();
        items.join(",").replace("none", "off")
    }

    pub(crate) fn log_format(&self) -> Format {
        if self.log_as_json { Format::Json } else { Format::Text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Discovery {
        let arguments = ["saild", "discovery"].iter().chain(more);
        match Arguments::try_parse_from(arguments).unwrap().command {
            Command::Discovery(discovery) => *discovery,
            Command::Version => panic!("discovery was asked for"),
        }
    }

    #[test]
    fn takes_istios_flags() {
        let flags = parse(&[
            "--httpAddr",
            ":1",
            "--grpcAddr",
            "127.0.0.1:2",
            "--secureGRPCAddr",
            ":3",
            "--monitoringAddr",
            ":4",
            "--httpsAddr",
            ":5",
            "--meshConfig",
            "/m",
            "--domain",
            "d",
            "--clusterID",
            "c",
            "--registries",
            "Directory",
        ]);
        assert_eq!(flags.secure_grpc_addr, ":3");
        assert_eq!(flags.registries, Some(Registry::Directory));
    }

    #[test]
    fn reads_levels_as_istio_writes_them() {
        assert_eq!(
            parse(&["--log_output_level", "default:debug,saild_serve:trace"]).log_filter(),
            "debug,saild_serve=trace"
        );
        assert_eq!(parse(&[]).log_filter(), "info");
    }
}
