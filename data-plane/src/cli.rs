//! The command line: Envoy's flags.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// sail-proxy runs Envoy's configuration.
#[derive(Clone, Debug, Parser)]
#[command(name = "sail-proxy", version = crate::VERSION, disable_version_flag = true)]
pub struct Cli {
    /// The bootstrap file, YAML or JSON.
    #[arg(short = 'c', long)]
    pub config_path: Option<PathBuf>,
    /// Bootstrap as text, merged over the file.
    #[arg(long)]
    pub config_yaml: Option<String>,
    /// How many workers; by default as many as there are processors.
    #[arg(long)]
    pub concurrency: Option<usize>,
    /// trace, debug, info, warning, error, critical or off.
    #[arg(short = 'l', long, default_value = "info")]
    pub log_level: LogLevel,
    /// Levels of single components: `upstream:debug,http:trace`.
    #[arg(long, default_value = "")]
    pub component_log_level: String,
    /// The node's id, in place of the bootstrap's.
    #[arg(long)]
    pub service_node: Option<String>,
    /// The node's cluster.
    #[arg(long)]
    pub service_cluster: Option<String>,
    /// The node's zone.
    #[arg(long)]
    pub service_zone: Option<String>,
    /// How long listeners drain, in seconds.
    #[arg(long, default_value_t = 600)]
    pub drain_time_s: u32,
    /// Whether connections are closed at once or bit by bit while draining.
    #[arg(long, default_value = "gradual")]
    pub drain_strategy: DrainStrategy,
    /// How long a parent lives after a hot restart; there is none here.
    #[arg(long, default_value_t = 900)]
    pub parent_shutdown_time_s: u32,
    /// Serve, or check the configuration and exit.
    #[arg(long, default_value = "serve")]
    pub mode: Mode,
    /// The local address's family where the configuration leaves it open.
    #[arg(long, default_value = "v4")]
    pub local_address_ip_version: IpVersion,
    /// How often access logs are written out.
    #[arg(long, default_value_t = 10_000)]
    pub file_flush_interval_msec: u64,
    /// Fields of the bootstrap that are not known are logged in place of being refused.
    #[arg(long)]
    pub allow_unknown_static_fields: bool,
    /// Resources that are discovered and have fields that are not known are refused; this takes some megabytes.
    #[arg(long)]
    pub reject_unknown_dynamic_fields: bool,
    /// Fields of discovered resources that are not known are not logged.
    #[arg(long)]
    pub ignore_unknown_dynamic_fields: bool,
    /// Deprecated fields are not logged.
    #[arg(long)]
    pub skip_deprecated_logs: bool,
    /// Where log lines go, in place of standard error.
    #[arg(long)]
    pub log_path: Option<PathBuf>,
    /// The format of log lines, as spdlog writes it: `[%Y-%m-%d %T.%e][%t][%l][%n] %v`.
    #[arg(long)]
    pub log_format: Option<String>,
    /// Line breaks in what is logged are written as \n.
    #[arg(long)]
    pub log_format_escaped: bool,
    /// A tag of every statistic, `name:value`; may be given often.
    #[arg(long, value_parser = stats_tag)]
    pub stats_tag: Vec<(String, String)>,
    /// Lets the system write core dumps.
    #[arg(long)]
    pub enable_core_dump: bool,
    /// Fields of the bootstrap that are not known are logged in place of being refused; the old name.
    #[arg(long)]
    pub allow_unknown_fields: bool,
    /// Accepted: a stack trace is one line as it is.
    #[arg(long)]
    pub log_stacktrace_single_entry: bool,
    /// Accepted: no lock of the data path is waited for.
    #[arg(long)]
    pub enable_mutex_tracing: bool,
    /// Accepted: access logs are written out by time.
    #[arg(long)]
    pub file_flush_min_size_kb: Option<u32>,
    /// Hot restart is not offered: accepted.
    #[arg(long)]
    pub disable_hot_restart: bool,
    /// Hot restart is not offered: accepted.
    #[arg(long, default_value_t = 0)]
    pub base_id: u32,
    /// Hot restart is not offered: accepted.
    #[arg(long)]
    pub use_dynamic_base_id: bool,
    /// Hot restart is not offered: accepted.
    #[arg(long)]
    pub base_id_path: Option<PathBuf>,
    /// Hot restart is not offered: accepted.
    #[arg(long, default_value = "@envoy_domain_socket")]
    pub socket_path: String,
    /// Hot restart is not offered: accepted.
    #[arg(long, default_value = "600", value_parser = socket_mode)]
    pub socket_mode: u32,
    /// Hot restart is not offered: accepted.
    #[arg(long)]
    pub skip_hot_restart_on_no_parent: bool,
    /// Hot restart is not offered: accepted.
    #[arg(long)]
    pub skip_hot_restart_parent_stats: bool,
    /// Prints the version of hot restarts, and ends.
    #[arg(long)]
    pub hot_restart_version: bool,
    /// Hot restart is not offered: shown in statistics.
    #[arg(long, default_value_t = 0)]
    pub restart_epoch: u32,
    /// Where to write the admin page's address.
    #[arg(long)]
    pub admin_address_path: Option<PathBuf>,
    /// As many workers as the process may use processors.
    #[arg(long)]
    pub cpuset_threads: bool,
    /// Accepted: logging is fine-grained as it is.
    #[arg(long)]
    pub enable_fine_grain_logging: bool,
    /// Prints the version.
    #[arg(long)]
    pub version: bool,
    /// Internal: reads the bootstrap, writes it to standard output in binary form, and exits.
    #[arg(long, hide = true)]
    pub read_bootstrap: bool,
    /// Internal: reads the file as a message of this name and writes it in binary form.
    #[arg(long, hide = true)]
    pub read_message: Option<String>,
    /// Internal: reads an encoded message of this name from standard input and writes its JSON form.
    #[arg(long, hide = true)]
    pub write_json: Option<String>,
}

/// `name:value`
fn stats_tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it is not of the form name:value")?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(format!("the name {name:?} is not made of letters and digits"));
    }
    if value.is_empty() || value.contains('.') {
        return Err(format!("the value {value:?} is empty, or has a dot"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Permissions in octal digits.
fn socket_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("{text:?} is not a file's mode in octal digits"))
}

/// Envoy's log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    #[value(alias = "warn")]
    Warning,
    #[value(alias = "err")]
    Error,
    Critical,
    Off,
}

impl LogLevel {
    /// From Envoy's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::from_str(word, true).ok()
    }

    /// The word of our log filters.
    pub fn filter(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error | Self::Critical => "error",
            Self::Off => "off",
        }
    }
}

/// `--drain-strategy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrainStrategy {
    /// The chance to close a connection grows over the drain time.
    Gradual,
    /// Every response closes its connection.
    Immediate,
}

/// `--mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Run.
    Serve,
    /// Check the configuration.
    Validate,
    /// As `validate`, without side effects; the same here.
    #[value(name = "init_only")]
    InitOnly,
}

/// `--local-address-ip-version`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum IpVersion {
    V4,
    V6,
}

impl Cli {
    /// Whether fields of the bootstrap that are not known are let pass.
    pub fn allows_unknown_fields(&self) -> bool {
        self.allow_unknown_static_fields || self.allow_unknown_fields
    }

    /// How many workers to run.
    pub fn workers(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        // Envoy takes 0 as one worker.
        self.concurrency.map_or_else(processors, |n| n.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_istios_agent_passes() {
        let line = "sail-proxy -c etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate \
                    --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart \
                    --allow-unknown-static-fields -l warning --component-log-level misc:error \
                    --skip-deprecated-logs --concurrency 2";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(cli.workers(), 2);
        assert_eq!(cli.drain_strategy, DrainStrategy::Immediate);
        assert_eq!(cli.log_level, LogLevel::Warning);
        assert_eq!(cli.component_log_level, "misc:error");
    }

    #[test]
    fn tags_and_modes_are_checked() {
        let parse = |line: &str| Cli::try_parse_from(line.split_whitespace());
        let cli = parse("sail-proxy --stats-tag zone:eu-1 --stats-tag a:b:c --socket-mode 0640").unwrap();
        assert_eq!(
            cli.stats_tag,
            [("zone", "eu-1"), ("a", "b:c")].map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
        assert_eq!(cli.socket_mode, 0o640);
        for bad in ["--stats-tag x", "--stats-tag x-y:1", "--stats-tag x:1.2", "--socket-mode 9"] {
            assert!(parse(&format!("sail-proxy {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(Cli::try_parse_from(["sail-proxy", "--no-such-flag"]).is_err());
        // As Envoy has it.
        for bad in ["--drain-time-s", "--parent-shutdown-time-s"] {
            assert!(Cli::try_parse_from(["sail-proxy", bad, "4294967295"]).is_ok());
            assert!(Cli::try_parse_from(["sail-proxy", bad, "4294967296"]).is_err());
        }
    }
}
