//! The verbs, one file each.

mod iptables;
mod proxy;
mod request;
mod version;
mod wait;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::{Cli, Verb};

pub use proxy::command_line;

/// Runs a verb.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let format = if cli.log_as_json { base::log::Format::Json } else { base::log::Format::Text };
    let log = base::log::init(&log_filter(&cli.log_output_level), format).context("--log_output_level")?;
    match cli.verb {
        Verb::Proxy(args) => proxy::run(args, &log).await,
        Verb::IstioIptables(args) => iptables::apply(&args),
        Verb::IstioCleanIptables(args) => iptables::clean(&args),
        Verb::Wait(args) => wait::run(&args).await,
        Verb::Request(args) => request::run(&args).await,
        Verb::Version(args) => version::run(&args),
    }
}

/// `default:info,xds:debug` as Istio writes it becomes `info,sail_agent::relay=debug`.
fn log_filter(level: &str) -> String {
    let part = |part: &str| {
        let (scope, level) = part.split_once(':').unwrap_or(("default", part));
        let level = match level {
            "none" => "off",
            "fatal" => "error",
            "warning" => "warn",
            other => other,
        };
        match scope {
            "default" | "all" => level.to_owned(),
            "dns" => format!("sail_agent::dns={level}"),
            "ads" | "xds" | "xdsproxy" => format!("sail_agent::relay={level}"),
            "sds" => format!("sail_agent::sds={level}"),
            "cache" | "citadelclient" => format!("sail_agent::secrets={level}"),
            other => format!("{other}={level}"),
        }
    };
    level.split(',').map(str::trim).filter(|text| !text.is_empty()).map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::log_filter;

    #[test]
    fn istios_scopes_become_targets() {
        assert_eq!(log_filter("info"), "info");
        assert_eq!(log_filter("default:info,dns:debug"), "info,sail_agent::dns=debug");
        assert_eq!(log_filter("all:none"), "off");
    }
}
