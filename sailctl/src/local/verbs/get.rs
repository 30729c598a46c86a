//! `get`: objects as a table, YAML or JSON.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::list;
use crate::local::StateDir;
use crate::local::kind::Kind;
use crate::local::output::{self, Detail};

#[derive(Args)]
pub(crate) struct Options {
    /// The kind, or KIND/NAME.
    kind: String,
    /// Only this object.
    object: Option<String>,
    /// The namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// All namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// The form.
    #[arg(short, long, value_enum)]
    output: Option<Form>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Wide,
    Yaml,
    Json,
}

pub(crate) fn run(state: &StateDir, options: &Options) -> anyhow::Result<ExitCode> {
    let (kind, name) = match options.kind.split_once('/') {
        Some((kind, name)) => (Kind::parse(kind)?, Some(name)),
        None => (Kind::parse(&options.kind)?, options.object.as_deref()),
    };
    let everywhere = options.all_namespaces || !kind.is_namespaced();
    let mut objects = list(state, &kind, (!everywhere).then_some(options.namespace.as_str()))?;
    if let Some(name) = name {
        objects.retain(|object| object["metadata"]["name"] == name);
        if objects.is_empty() {
            bail!("{kind}/{name} not found in namespace {}", options.namespace);
        }
    }
    let single = |objects: Vec<Value>| match (name, objects.as_slice()) {
        (Some(_), [object]) => object.clone(),
        _ => json!({"apiVersion": "v1", "kind": "List", "items": objects}),
    };
    match options.output {
        Some(Form::Yaml) => print!("{}", serde_norway::to_string(&single(objects))?),
        Some(Form::Json) => println!("{:#}", single(objects)),
        Some(Form::Wide) => {
            print!("{}", output::objects(&kind, &objects, Detail::Wide, options.all_namespaces))
        }
        None if objects.is_empty() => eprintln!("no {kind} found"),
        None => print!("{}", output::objects(&kind, &objects, Detail::Short, options.all_namespaces)),
    }
    Ok(ExitCode::SUCCESS)
}
