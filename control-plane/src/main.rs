//! saild, the control plane: flags and wiring.

mod build;
mod caller;
mod dump;
mod flags;
mod host;
mod jwks;
mod measure;
mod pages;
mod settings;
mod source;
mod token_review;
mod upkeep;
mod waiting;
mod webhook;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::{Arguments, Command, Discovery};
use crate::settings::Settings;

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Discovery(discovery) => match run(&discovery) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("saild: {error:#}");
                ExitCode::FAILURE
            }
        },
        Command::Version => {
            println!("{}", settings::VERSION);
            ExitCode::SUCCESS
        }
    }
}

fn run(discovery: &Discovery) -> anyhow::Result<()> {
    let log = base::log::init(&discovery.log_filter(), discovery.log_format())?;
    let settings = Settings::resolve(discovery, &environment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("saild")
        .build()
        .context("starting threads")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown_time = settings.shutdown_time;
        let running = tokio::select! {
            running = build::build(settings, log) => running?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        running.shutdown(shutdown_time).await;
        Ok(())
    })
}

#[expect(clippy::disallowed_methods, reason = "this is where saild reads its environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
