//! Logging: one line an event on standard error, as text or JSON, with a filter that may change while running.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("log filter {filter:?} is not of the form LEVEL or TARGET=LEVEL,...")]
    Filter {
        /// As given.
        filter: String,
        /// What the parser said.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// A subscriber stands already.
    #[error("logging is set up already")]
    AlreadySet(#[source] tracing_subscriber::util::TryInitError),
    /// The subscriber is gone.
    #[error("the log filter can no longer be changed")]
    Gone(#[source] reload::Error),
}

/// Changes the filter of a running process.
#[derive(Clone, Debug)]
pub struct Handle(reload::Handle<EnvFilter, Registry>);

impl Handle {
    /// Replaces the filter: `LEVEL` or `TARGET=LEVEL,...`.
    pub fn set_filter(&self, filter: &str) -> Result<(), Error> {
        self.0.reload(parse(filter)?).map_err(Error::Gone)
    }

    /// The filter in force.
    pub fn filter(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// An event, as who writes lines of a form of their own sees it.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// The module that logs it, as a rule.
    pub target: &'a str,
    /// The source file.
    pub file: Option<&'a str>,
    /// The line in it.
    pub line: Option<u32>,
    /// What it says, its fields behind it.
    pub message: &'a str,
}

/// Turns events into lines.
struct Own<F>(F);

impl<S, F> Layer<S> for Own<F>
where
    S: tracing::Subscriber,
    F: Fn(&Event<'_>) -> String + 'static,
{
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let metadata = event.metadata();
        let level = match *metadata.level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "info",
            tracing::Level::DEBUG => "debug",
            tracing::Level::TRACE => "trace",
        };
        let line = (self.0)(&Event {
            level,
            target: metadata.target(),
            file: metadata.file(),
            line: metadata.line(),
            message: &format!("{}{}", said.message, said.fields),
        });
        // Who cannot write to the log cannot say so either.
        let _ = io::Write::write_all(&mut io::stderr().lock(), line.as_bytes());
    }
}

/// An event's message and fields.
#[derive(Default)]
struct Said {
    message: String,
    fields: String,
}

impl tracing::field::Visit for Said {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        // Strings take everything.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// Sets up the process's logging, each line as `line` writes it. To be called once, in the place of [`init`].
pub fn init_with(
    filter: &str,
    line: impl Fn(&Event<'_>) -> String + Send + Sync + 'static,
) -> Result<Handle, Error> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    tracing_subscriber::registry().with(filter).with(Own(line)).try_init().map_err(Error::AlreadySet)?;
    Ok(Handle(handle))
}

/// Sets up the process's logging. To be called once, at the start of `main`.
pub fn init(filter: &str, format: Format) -> Result<Handle, Error> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json()).try_init(),
    }
    .map_err(Error::AlreadySet)?;
    Ok(Handle(handle))
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })
}
