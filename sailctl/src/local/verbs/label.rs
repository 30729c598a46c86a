//! `label`: sets labels (`KEY=VALUE`) and removes them (`KEY-`).

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value};

use super::done;
use crate::local::StateDir;
use crate::local::kind::{Key, Kind};
use crate::local::protocol::Request;

#[derive(Args)]
pub(crate) struct Options {
    /// The kind, or KIND/NAME.
    kind: String,
    /// Name (unless said with the kind), then labels.
    #[arg(required = true)]
    words: Vec<String>,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Change labels that have another value.
    #[arg(long)]
    overwrite: bool,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let mut words = options.words.iter();
    let (kind, name) = match options.kind.split_once('/') {
        Some((kind, name)) => (kind, name),
        None => (options.kind.as_str(), words.next().context("name an object")?.as_str()),
    };
    let mut labels = Map::new();
    for word in words {
        match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => labels.insert(key.into(), value.into()),
            (None, Some(key)) => labels.insert(key.into(), Value::Null),
            (None, None) => bail!("{word}: want KEY=VALUE, or KEY- to remove a label"),
        };
    }
    let key = Key::new(Kind::parse(kind)?, &options.namespace, name);
    let word = done(state, &Request::Label { key: key.clone(), labels, overwrite: options.overwrite })?;
    println!("{key} {word}");
    Ok(ExitCode::SUCCESS)
}
