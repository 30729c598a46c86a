//! `delete`: objects by manifest or by name; pods are waited for.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::done;
use crate::local::kind::{Key, Kind};
use crate::local::protocol::Request;
use crate::local::{StateDir, manifest};

#[derive(Args)]
pub(crate) struct Options {
    /// Kind and names, as `pod a b`, or `pod/a`.
    objects: Vec<String>,
    /// A file, a folder, or - for standard input; may be given several times.
    #[arg(short, long = "filename", conflicts_with = "objects")]
    filename: Vec<PathBuf>,
    /// The namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Objects that are not there are no error.
    #[arg(long)]
    ignore_not_found: bool,
    /// Do not wait until pods are gone.
    #[arg(long)]
    no_wait: bool,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let keys = if options.filename.is_empty() {
        named(options)?
    } else {
        let documents = manifest::read(&options.filename, options.namespace.as_deref())?;
        documents.into_iter().rev().map(|document| document.key).collect()
    };
    let mut code = ExitCode::SUCCESS;
    for key in keys {
        match done(state, &Request::Delete { key: key.clone(), wait: !options.no_wait }) {
            Ok(word) => println!("{key} {word}"),
            Err(error) if options.ignore_not_found && error.to_string().ends_with("not found") => {}
            Err(error) => {
                eprintln!("error: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn named(options: &Options) -> anyhow::Result<Vec<Key>> {
    let namespace = options.namespace.as_deref().unwrap_or("default");
    let first = options.objects.first().context("name what to delete: -f FILE, or KIND NAME")?;
    if first.contains('/') {
        return options
            .objects
            .iter()
            .map(|word| {
                let (kind, name) = word.split_once('/').with_context(|| format!("{word}: want KIND/NAME"))?;
                Ok(Key::new(Kind::parse(kind)?, namespace, name))
            })
            .collect();
    }
    let kind = Kind::parse(first)?;
    if options.objects.len() < 2 {
        bail!("name which {first} to delete");
    }
    Ok(options.objects[1..].iter().map(|name| Key::new(kind.clone(), namespace, name)).collect())
}
