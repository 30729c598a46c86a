//! Start to end: reads the bootstrap, wires the main thread's parts, waits.

use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base::task::Supervised;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use xds_api::envoy::config::bootstrap::v3::{Admin, Bootstrap};
use xds_api::envoy::config::core::v3::{address, socket_address::PortSpecifier};

use crate::access_log::Sinks;
use crate::cli::{Cli, IpVersion, Mode};
use crate::dial::Targets;
use crate::logging::{Levels, lines as log_lines};
use crate::observe::{Environment, Observers};
use crate::runtime::Runtime;
use crate::server::{Main, Setup};
use crate::stats::{Rules, TagRule};
use crate::trace::Exporters;
use crate::worker::Workers;
use crate::xds::{Around, Manager, Parts};
use crate::{admin, bootstrap, net, overload, resident, trace, worker};

/// Runs what the command line asks for.
pub fn run(cli: Cli, environment: Environment) -> anyhow::Result<()> {
    // The allocator asks for huge pages; a small proxy would hold megabytes that it never uses. Without leave to say so
    // it merely costs that memory.
    let _ = nix::sys::prctl::set_thp_disable(true);
    if cli.version {
        println!("sail-proxy  version: {}", crate::VERSION);
        return Ok(());
    }
    if cli.hot_restart_version {
        println!("disabled");
        return Ok(());
    }
    if cli.read_bootstrap {
        return Ok(bootstrap::child_read(&cli)?);
    }
    if let Some(name) = &cli.write_json {
        return Ok(bootstrap::child_write_json(name)?);
    }
    if let (Some(name), Some(path)) = (&cli.read_message, &cli.config_path) {
        return Ok(bootstrap::child_read_message(name, path)?);
    }
    if let Some(path) = &cli.log_path {
        log_to(path).with_context(|| format!("--log-path: cannot write {}", path.display()))?;
    }
    let levels = Levels::new(cli.log_level, &cli.component_log_level)?;
    let log = if cli.log_format.is_some() || cli.log_format_escaped {
        let pattern = cli.log_format.as_deref().unwrap_or(log_lines::DEFAULT);
        let lines = log_lines::Lines::parse(pattern, cli.log_format_escaped)
            .map_err(|problem| anyhow::anyhow!("--log-format: {problem}"))?;
        base::log::init_with(&levels.filter(), move |event| lines.write(event))?
    } else {
        base::log::init(&levels.filter(), base::log::Format::Text)?
    };
    if cli.enable_core_dump {
        enable_core_dump();
    }
    raise_file_limit();
    let loaded = bootstrap::load(&cli)?;
    resident::forget_startup();
    for field in &loaded.unknown {
        tracing::warn!(field, "the bootstrap has a field that is not known; it has no effect");
    }
    let place =
        cli.config_path.as_ref().map_or("--config-yaml".to_owned(), |path| path.display().to_string());
    crate::rt::local()?
        .block_on(serve(cli, environment, loaded, levels, log))
        .with_context(|| format!("cannot run {place}"))
}

/// The rules of statistics' names, with the command line's tags.
fn stats_rules(cli: &Cli, bootstrap: &Bootstrap) -> anyhow::Result<Rules> {
    let mut rules = bootstrap::stats_rules(bootstrap.stats_config.as_ref()).map_err(anyhow::Error::msg)?;
    let mut seen = std::collections::HashSet::new();
    for (name, value) in &cli.stats_tag {
        if !seen.insert(name) {
            bail!("--stats-tag: {name} has more than one value");
        }
        rules.tags.push(TagRule::Fixed(name.clone(), value.clone()));
    }
    Ok(rules)
}

/// Every connection is a file, and what the process is given at first is often 1024: it takes what it may.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Lets the system write a core dump, as large as may be.
fn enable_core_dump() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    let dumpable = nix::sys::prctl::set_dumpable(true);
    let limited = dumpable.and_then(|()| setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY));
    if let Err(error) = limited {
        tracing::warn!(%error, "--enable-core-dump: the limit of core dumps cannot be raised");
    }
}

/// Has the log, which goes to standard error, written to a file.
fn log_to(path: &Path) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    nix::unistd::dup2_stderr(&file)?;
    Ok(())
}

async fn serve(
    cli: Cli,
    environment: Environment,
    loaded: bootstrap::Loaded,
    levels: Levels,
    log: base::log::Handle,
) -> anyhow::Result<()> {
    let mode = cli.mode;
    let bootstrap::Loaded { encoded, mut bootstrap, clusters, .. } = loaded;
    bootstrap::check_fields(&bootstrap).map_err(anyhow::Error::msg)?;
    let main = Main::new(Setup {
        node: bootstrap::complete_node(bootstrap.node.take(), &cli),
        rules: stats_rules(&cli, &bootstrap)?,
        runtime: Runtime::new(bootstrap.layered_runtime.as_ref()).map_err(anyhow::Error::msg)?,
        bootstrap: encoded,
        levels,
        log: Some(log),
        cli,
    });
    #[cfg(feature = "wasm")]
    crate::wasm::announce(&main.node);
    crate::access_log::set_local_zone(environment.get("TZ").map(String::as_str));
    let values = main.runtime.borrow().values().clone();
    let interval = Duration::from_millis(main.cli.file_flush_interval_msec.max(1));
    let labels =
        [("zone_name", zone(&main.node)), ("cluster_name", &main.node.cluster), ("node_name", &main.node.id)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.into())).to_vec();
    let (sinks, log_services) = Sinks::start(&main.stats, interval, values.clone(), labels)?;
    let local_address = net::local::address(main.cli.local_address_ip_version == IpVersion::V6);
    let (exporters, started) = Exporters::new(main.stats.clone(), Some(local_address));
    let observers = Observers::new(main.stats.clone(), sinks.clone(), exporters, main.node.clone());
    let overload = overload::read(bootstrap.overload_manager.as_ref()).map_err(anyhow::Error::msg)?;
    let flags = overload::Flags::new(&overload);
    let options = worker::Options {
        concurrency: main.workers,
        drain_time: Duration::from_secs(main.cli.drain_time_s.into()),
        drain_gradually: main.cli.drain_strategy == crate::cli::DrainStrategy::Gradual,
        node_metadata: main.node.metadata.clone().unwrap_or_default(),
        node_id: main.node.id.clone(),
        node_cluster: main.node.cluster.clone(),
        local_address,
        observers,
        runtime: values,
        overload: flags.clone(),
    };
    let workers = Workers::start(options, main.stats.clone(), &Arc::default())?;
    let tracer = bootstrap::tracer(&bootstrap);
    let store = main.stats.clone();
    let manager = Manager::new(&main, &bootstrap, clusters, |changed| {
        Parts::new(store, workers, Around { environment, tracer }, changed)
    })?;
    resident::forget_startup();
    if mode != Mode::Serve {
        println!("configuration OK");
        return Ok(());
    }
    let admin = bind_admin(&main, bootstrap.admin.as_ref()).await?;
    let _admin = admin.map(|listener| Supervised::spawn_local(admin::serve(main.clone(), listener)));
    drop(bootstrap);
    main.discovery.set(manager.clone()).map_err(|_| anyhow::anyhow!("discovery is set up already"))?;
    let target = manager.clone();
    let target: Targets = Rc::new(move |cluster: &str| target.target(cluster));
    let node = main.node.clone();
    let _logs = Supervised::spawn_local(crate::access_log::run_all(log_services, node, target.clone()));
    let _exporters = Supervised::spawn_local(trace::run_all(started, target));
    let _overload = Supervised::spawn_local(overload::run(main.clone(), overload, flags));
    let _discovery = Supervised::spawn_local(manager.run());
    let ended = wait(&main, &sinks).await;
    sinks.flush();
    ended
}

fn zone(node: &xds_api::envoy::config::core::v3::Node) -> &str {
    node.locality.as_ref().map(|locality| locality.zone.as_str()).unwrap_or_default()
}

/// Until somebody ends the process.
async fn wait(main: &Rc<Main>, sinks: &Sinks) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("terminated");
                tokio::select! {
                    () = main.last_drain() => {}
                    // Who says it twice means at once.
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                break;
            }
            _ = interrupt.recv() => break tracing::info!("interrupted"),
            failure = main.quitting() => match failure {
                Some(reason) => bail!(reason),
                None => break tracing::info!("asked to quit"),
            },
            // Envoy passes over it.
            _ = hangup.recv() => {}
            _ = reopen.recv() => sinks.reopen(),
        }
    }
    Ok(())
}

async fn bind_admin(main: &Main, admin: Option<&Admin>) -> anyhow::Result<Option<admin::Listener>> {
    let Some(address) = admin.and_then(|admin| admin.address.as_ref()).and_then(|a| a.address.as_ref())
    else {
        return Ok(None);
    };
    let listener = match address {
        address::Address::SocketAddress(socket) => {
            let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else {
                bail!("admin.address.socket_address.port_value: required");
            };
            let port = u16::try_from(port).context("admin.address.socket_address.port_value: not a port")?;
            let bound = TcpListener::bind((socket.address.as_str(), port)).await;
            admin::Listener::Tcp(bound.with_context(|| {
                format!(
                    "admin.address: cannot listen on {}:{port}; is another process there?",
                    socket.address
                )
            })?)
        }
        address::Address::Pipe(pipe) => {
            // Left behind by a process that was killed.
            let _ = std::fs::remove_file(&pipe.path);
            let bound = UnixListener::bind(&pipe.path);
            admin::Listener::Unix(
                bound.with_context(|| format!("admin.address: cannot listen on {}", pipe.path))?,
            )
        }
        address::Address::EnvoyInternalAddress(_) => {
            bail!("admin.address.envoy_internal_address: not supported")
        }
    };
    if let (Some(path), Some(address)) = (&main.cli.admin_address_path, listener.address()) {
        let mut file = std::fs::File::create(path)
            .with_context(|| format!("--admin-address-path: cannot write {}", path.display()))?;
        write!(file, "{address}")?;
    }
    Ok(Some(listener))
}
