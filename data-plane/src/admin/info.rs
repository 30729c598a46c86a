//! `/server_info`, `/ready`, `/memory`, `/init_dump`.

use http::StatusCode;
use prost::Message;
use serde_json::json;
use xds_api::envoy::admin::v3::{CommandLineOptions, ServerInfo, command_line_options};
use xds_api::google::protobuf::Duration;

use super::{Page, text};
use crate::bootstrap;
use crate::cli::{DrainStrategy, IpVersion, Mode};
use crate::server::Main;

pub(super) fn ready(main: &Main) -> Page {
    let state = main.state();
    let status = if main.is_live() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(status, format!("{}\n", state.as_str_name()))
}

pub(super) fn memory() -> Page {
    let memory = crate::server::memory();
    super::json(&json!({
        "allocated": memory.resident.to_string(),
        "heap_size": memory.resident.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
        "peak_physical_bytes": memory.peak.to_string(),
    }))
}

pub(super) fn init_dump(main: &Main) -> Page {
    let waiting = main.waiting_for();
    let targets: Vec<_> = waiting.iter().map(|what| json!({ "name": what })).collect();
    super::json(&if targets.is_empty() { json!({}) } else { json!({ "unready_targets_dumps": targets }) })
}

pub(super) async fn server_info(main: &Main) -> Page {
    let uptime = main.started.elapsed();
    let uptime = Duration { seconds: uptime.as_secs() as i64, nanos: 0 };
    let info = ServerInfo {
        version: version(),
        state: main.state() as i32,
        uptime_current_epoch: Some(uptime),
        uptime_all_epochs: Some(uptime),
        hot_restart_version: "disabled".to_owned(),
        hot_restart_initializing: false,
        command_line_options: Some(options(main)),
        node: Some(main.node.clone()),
    };
    let name = "envoy.admin.v3.ServerInfo";
    let written = bootstrap::to_json(name, info.encode_to_vec()).await.map_err(|error| error.to_string());
    let parsed = written.and_then(|body| serde_json::from_str(&body).map_err(|error| error.to_string()));
    match parsed {
        Ok(serde_json::Value::Object(mut body)) => {
            // The state that matters most is the default, which protobuf's JSON leaves out; Envoy writes it.
            body.insert("state".to_owned(), main.state().as_str_name().into());
            let mut body = body.into();
            super::integers(&mut body);
            super::json(&body)
        }
        Ok(other) => super::json(&other),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Envoy's form: revision/version/status/type/TLS library.
fn version() -> String {
    format!("sail-proxy/{}/Clean/RELEASE/rustls", crate::VERSION)
}

fn options(main: &Main) -> CommandLineOptions {
    let cli = &main.cli;
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|p| p.display().to_string()).unwrap_or_default()
    };
    let seconds = |seconds: u32| Some(Duration { seconds: seconds.into(), nanos: 0 });
    let flush = std::time::Duration::from_millis(cli.file_flush_interval_msec);
    CommandLineOptions {
        base_id: cli.base_id.into(),
        concurrency: main.workers as u32,
        config_path: path(&cli.config_path),
        config_yaml: cli.config_yaml.clone().unwrap_or_default(),
        allow_unknown_static_fields: cli.allows_unknown_fields(),
        reject_unknown_dynamic_fields: cli.reject_unknown_dynamic_fields,
        ignore_unknown_dynamic_fields: cli.ignore_unknown_dynamic_fields,
        admin_address_path: path(&cli.admin_address_path),
        local_address_ip_version: match cli.local_address_ip_version {
            IpVersion::V4 => command_line_options::IpVersion::V4 as i32,
            IpVersion::V6 => command_line_options::IpVersion::V6 as i32,
        },
        log_level: cli.log_level.filter().to_owned(),
        component_log_level: cli.component_log_level.clone(),
        log_path: path(&cli.log_path),
        service_cluster: main.node.cluster.clone(),
        service_node: main.node.id.clone(),
        service_zone: cli.service_zone.clone().unwrap_or_default(),
        drain_strategy: match cli.drain_strategy {
            DrainStrategy::Gradual => command_line_options::DrainStrategy::Gradual as i32,
            DrainStrategy::Immediate => command_line_options::DrainStrategy::Immediate as i32,
        },
        drain_time: seconds(cli.drain_time_s),
        parent_shutdown_time: seconds(cli.parent_shutdown_time_s),
        file_flush_interval: Some(Duration {
            seconds: flush.as_secs() as i64,
            nanos: flush.subsec_nanos() as i32,
        }),
        mode: match cli.mode {
            Mode::Serve => command_line_options::Mode::Serve as i32,
            Mode::Validate => command_line_options::Mode::Validate as i32,
            Mode::InitOnly => command_line_options::Mode::InitOnly as i32,
        },
        disable_hot_restart: true,
        restart_epoch: cli.restart_epoch,
        cpuset_threads: cli.cpuset_threads,
        skip_deprecated_logs: cli.skip_deprecated_logs,
        ..CommandLineOptions::default()
    }
}
