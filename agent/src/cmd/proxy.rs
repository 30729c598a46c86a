//! `proxy`: wires the agent's parts together and runs the proxy.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use agent_contract::paths;
use anyhow::{Context as _, bail};
use base::task::Supervised;
use identity::{Renewal, SpiffeId, TrustDomain};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::bootstrap;
use crate::ca::CaClient;
use crate::cli::ProxyArgs;
use crate::config::proxy_config::Binary;
use crate::config::{AgentConfig, namespace};
use crate::dns::{Forwarder, NameTables, PodDomain, ResolvConf, Server as DnsServer};
use crate::relay::{Modules, Relay};
use crate::secrets::{CertFiles, Issuance, Secrets, SecretsWatch, Source, write_private};
use crate::stats::AgentStats;
use crate::status::{Merge, Readiness, Status};
use crate::supervise::{DrainPolicy, Order, ProxyCommand, Supervisor};
use crate::upstream::{Security, Upstream};
use crate::{relay, sds, secrets, status, unix};

const BOOTSTRAP: &str = "envoy-rev.json";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The control plane's port without TLS.
const PLAINTEXT_SUFFIX: &str = ":15010";

/// Runs until the process is told to end.
pub(super) async fn run(args: ProxyArgs, log: &base::log::Handle) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::load(&args, agent_contract::agent_env::process_vars())?;
    let pod = crate::config::pod_info::PodInfo::read(Path::new(paths::POD_INFO))?;
    if let Some(level) = pod.annotations.get(agent_contract::annotations::AGENT_LOG_LEVEL) {
        log.set_filter(&super::log_filter(level)).context(agent_contract::annotations::AGENT_LOG_LEVEL)?;
    }
    tracing::info!(node = config.node.id, discovery = config.proxy.discovery_address, "starting");
    let stats = Arc::new(AgentStats::default());
    let mut tasks = Vec::new();

    let (sds_socket, secrets) = start_secrets(&config, &stats, &mut tasks).await?;
    let (names, dns) = start_dns(&config, &stats).await?;
    let xds_socket = config.xds_socket();
    let listener = unix::listen(&xds_socket)?;
    let upstream = discovery(&config)?;
    let modules = Modules::new(Path::new(&config.proxy.config_path).join("wasm"));
    let relay = Relay { upstream, names: names.clone(), modules, stats: Arc::clone(&stats) };
    tasks.push(Supervised::spawn(async move {
        if let Err(error) = relay::serve(listener, relay).await {
            tracing::error!(%error, "the xDS relay ended");
        }
    }));

    let (orders, receiver) = mpsc::channel(8);
    let admin = Admin::new(if config.node.is_ipv4() { "127.0.0.1" } else { "::1" }, config.proxy.admin_port);
    let status = Arc::new(Status {
        admin: admin.clone(),
        readiness: Readiness::new(config.env.disable_proxy),
        probers: config.env.app_probers.clone(),
        instance_ip: config.instance_ip(),
        merge: Merge { application: config.env.prometheus.target()?, proxy: !config.env.disable_proxy },
        stats: Arc::clone(&stats),
        secrets,
        names,
        orders: orders.clone(),
    });
    let listener = status::listen(config.proxy.status_port).await?;
    tasks.push(Supervised::spawn(status::serve(listener, Arc::clone(&status))));
    tasks.push(Supervised::spawn(forward_signals(orders)?));

    if config.env.disable_proxy {
        wait_for_end(receiver).await;
    } else {
        let supervisor = Supervisor {
            command: command(&config, sds_socket, xds_socket)?,
            admin,
            drain: drain_policy(&config),
            stats,
        };
        supervisor.run(receiver, || status.readiness.proxy_ended()).await?;
    }
    drop(dns);
    tracing::info!("ended");
    Ok(ExitCode::SUCCESS)
}

/// The socket from which the proxy gets certificates, and the certificates as the agent knows them.
async fn start_secrets(
    config: &AgentConfig,
    stats: &Arc<AgentStats>,
    tasks: &mut Vec<Supervised<()>>,
) -> anyhow::Result<(PathBuf, SecretsWatch)> {
    let socket = config.sds_socket();
    let (publish, secrets) = watch::channel(Secrets::default());
    if unix::is_served(&socket).await {
        tracing::info!(socket = %socket.display(), "certificates come from the socket that is there already");
        // The sender is gone: nothing will ever be published.
        return Ok((socket, secrets));
    }
    let source = source(config)?;
    let listener = unix::listen(&socket)?;
    let served = secrets.clone();
    tasks.push(Supervised::spawn(secrets::keep(source, publish, Arc::clone(stats))));
    tasks.push(Supervised::spawn(async move {
        if let Err(error) = sds::serve(listener, served).await {
            tracing::error!(%error, "the SDS server ended");
        }
    }));
    Ok((socket, secrets))
}

fn source(config: &AgentConfig) -> anyhow::Result<Source> {
    let env = &config.env;
    if env.file_mounted_certs {
        return Ok(Source::Files(CertFiles::below(Path::new(paths::FILE_MOUNTED_CERTS))));
    }
    let provided = CertFiles::below(Path::new(paths::WORKLOAD_CREDENTIALS));
    if provided.exist() {
        tracing::info!(dir = paths::WORKLOAD_CREDENTIALS, "certificates come from files");
        return Ok(Source::Files(provided));
    }
    if env.ca_provider != "Citadel" {
        bail!("CA_PROVIDER={:?} is not offered; Citadel is", env.ca_provider);
    }
    let trust_domain = TrustDomain::new(&env.trust_domain).context("TRUST_DOMAIN")?;
    let id = SpiffeId::new(trust_domain, namespace(env), &env.service_account)?;
    let upstream = Upstream {
        address: config.ca_address().to_owned(),
        security: security(config, config.ca_address(), &env.ca_root_ca),
        server_name: env.istiod_san.clone(),
        token: token(config, config.ca_address()),
        headers: headers(config, &env.ca_headers),
    };
    let signer = env.metadata.get("CERT_SIGNER").cloned().unwrap_or_default();
    Ok(Source::Ca(Box::new(Issuance {
        ca: CaClient::new(upstream, signer),
        id,
        algorithm: env.key_algorithm.parse().context("ECC_CURVE, WORKLOAD_RSA_KEY_SIZE")?,
        ttl: env.secret_ttl,
        renewal: Renewal { grace_ratio: env.secret_grace_ratio, jitter: env.secret_grace_jitter },
        output: (!env.output_certs.is_empty()).then(|| PathBuf::from(&env.output_certs)),
    })))
}

fn discovery(config: &AgentConfig) -> anyhow::Result<Upstream> {
    let env = &config.env;
    if !env.prov_cert.is_empty() {
        tracing::warn!("PROV_CERT has no effect here: the agent authenticates with its token");
    }
    if env.credential_fetcher != "JWT" {
        bail!("CREDENTIAL_FETCHER_TYPE={:?} is not offered; JWT is", env.credential_fetcher);
    }
    let address = config.proxy.discovery_address.clone();
    Ok(Upstream {
        security: security(config, &address, &env.xds_root_ca),
        server_name: env.istiod_san.clone(),
        token: token(config, &address),
        headers: headers(config, &env.xds_headers),
        address,
    })
}

fn security(config: &AgentConfig, address: &str, root: &str) -> Security {
    if !config.proxy.control_plane_tls || address.ends_with(PLAINTEXT_SUFFIX) {
        return Security::Plaintext;
    }
    match root {
        "SYSTEM" => Security::SystemRoots,
        "" => Security::Root(PathBuf::from(paths::ISTIOD_ROOT_CERT)),
        path => Security::Root(PathBuf::from(path)),
    }
}

/// Without TLS the token would be shown to everybody on the way.
fn token(config: &AgentConfig, address: &str) -> Option<PathBuf> {
    let plaintext = security(config, address, "") == Security::Plaintext;
    (!plaintext).then(|| PathBuf::from(paths::TOKEN))
}

fn headers(config: &AgentConfig, own: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    let cluster = config.node.metadata.get("CLUSTER_ID").and_then(serde_json::Value::as_str);
    let cluster = cluster.map(|cluster| ("clusterid".to_owned(), cluster.to_owned()));
    cluster.into_iter().chain(own.iter().map(|(name, value)| (name.clone(), value.clone()))).collect()
}

async fn start_dns(
    config: &AgentConfig,
    stats: &Arc<AgentStats>,
) -> anyhow::Result<(Option<Arc<NameTables>>, Option<DnsServer>)> {
    if !config.env.dns_capture {
        return Ok((None, None));
    }
    let text = tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "{RESOLV_CONF} cannot be read: names outside the mesh will not resolve");
        String::new()
    });
    let own: Vec<_> = tokio::net::lookup_host(&config.env.dns_addr).await.into_iter().flatten().collect();
    let conf = ResolvConf::parse(&text).without(&own);
    let domain = PodDomain::parse(&config.domain, namespace(&config.env));
    let tables = Arc::new(NameTables::new(domain, conf.search));
    let forwarder = Forwarder::new(conf.servers, config.env.dns_forward_parallel);
    let server =
        DnsServer::start(&config.env.dns_addr, Arc::clone(&tables), forwarder, Arc::clone(stats)).await?;
    tracing::info!(addresses = ?server.addresses(), "answering DNS");
    Ok((Some(tables), Some(server)))
}

fn command(config: &AgentConfig, sds: PathBuf, xds: PathBuf) -> anyhow::Result<ProxyCommand> {
    let inputs = bootstrap::Inputs { config, sds_socket: sds, xds_socket: xds };
    let path = Path::new(&config.proxy.config_path).join(BOOTSTRAP);
    let text = format!("{:#}\n", bootstrap::render(&inputs));
    write_private(&path, &text).with_context(|| format!("writing the bootstrap {}", path.display()))?;
    let mut args = command_line(config, &path);
    let over = &config.env.bootstrap_override;
    if !over.is_empty() {
        let text = std::fs::read_to_string(over)
            .with_context(|| format!("reading ISTIO_BOOTSTRAP_OVERRIDE {over}"))?;
        args.extend(["--config-yaml".into(), text.into()]);
    }
    let env = config.proxy.proxy_metadata.iter().map(|(name, value)| (name.clone(), value.clone()));
    Ok(ProxyCommand { program: program(&config.proxy.binary), args, env: env.collect() })
}

/// The proxy's arguments.
pub fn command_line(config: &AgentConfig, bootstrap: &Path) -> Vec<OsString> {
    let drain = config.proxy.drain.as_secs().to_string();
    let version = if config.node.is_ipv4() { "v4" } else { "v6" };
    let mut args: Vec<OsString> = vec![
        "-c".into(),
        bootstrap.into(),
        "--drain-time-s".into(),
        drain.into(),
        "--drain-strategy".into(),
        "immediate".into(),
        "--local-address-ip-version".into(),
        version.into(),
        "--file-flush-interval-msec".into(),
        "1000".into(),
        "--disable-hot-restart".into(),
        "--allow-unknown-static-fields".into(),
        "-l".into(),
        config.proxy_log_level.clone().into(),
    ];
    if !config.proxy_component_log_level.is_empty() {
        args.extend(["--component-log-level".into(), config.proxy_component_log_level.clone().into()]);
    }
    if let Some(workers) = config.concurrency {
        args.extend(["--concurrency".into(), workers.to_string().into()]);
    }
    args
}

fn program(binary: &Binary) -> PathBuf {
    const DEFAULT: &str = "sail-proxy";
    match binary {
        Binary::Named(name) => PathBuf::from(name),
        Binary::Default => std::env::current_exe()
            .ok()
            .and_then(|agent| Some(agent.parent()?.join(DEFAULT)))
            .filter(|beside| beside.exists())
            .unwrap_or_else(|| PathBuf::from(DEFAULT)),
    }
}

fn drain_policy(config: &AgentConfig) -> DrainPolicy {
    let until_idle = config.env.exit_on_zero_connections.then_some(config.env.minimum_drain);
    DrainPolicy { role: config.role, duration: config.proxy.termination_drain, until_idle }
}

fn forward_signals(orders: mpsc::Sender<Order>) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("told to end");
            if orders.send(Order::Terminate).await.is_err() {
                return;
            }
        }
    })
}

async fn wait_for_end(mut orders: mpsc::Receiver<Order>) {
    while orders.recv().await == Some(Order::Drain) {}
}
