//! sail-proxy, the sidecar and gateway proxy that runs Envoy's configuration.

use std::process::ExitCode;

use clap::Parser;
use sail_proxy::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(unsafe_code, reason = "the allocator's crate declares it only with features that cost more")]
unsafe extern "C" {
    /// Gives free memory back to the system.
    fn mi_collect(force: bool);
}

fn trim() {
    // SAFETY: it may be called at any time, from any thread; it touches free memory only.
    #[expect(unsafe_code, reason = "as above")]
    unsafe {
        mi_collect(true);
    }
}

fn main() -> ExitCode {
    sail_proxy::trim_with(trim);
    // This is where the environment is read, once.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match sail_proxy::run(Cli::parse(), environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
