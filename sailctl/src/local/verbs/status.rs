//! `status`: pods, whether their sidecars are synced, and where the gateway is.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::local::{StateDir, client, output};

#[derive(Args)]
pub(crate) struct Options {
    /// The form.
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Json,
    Yaml,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let status = client::status(state)?;
    match options.output {
        Some(Form::Json) => println!("{}", serde_json::to_string_pretty(&status)?),
        Some(Form::Yaml) => print!("{}", serde_norway::to_string(&status)?),
        None => {
            if !status.ready {
                println!("waiting for: {}\n", status.waiting_for.join(", "));
            }
            print!("{}", output::summary(&status));
        }
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
