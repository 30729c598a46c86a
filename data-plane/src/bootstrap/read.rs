//! Reads a bootstrap, and writes messages as JSON, in a short-lived child process: the descriptors of all of Envoy's
//! messages take memory that the proxy itself should never have used.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bytes::Bytes;
use xds_api::codec::{self, Codec, UnknownFields};
use xds_api::envoy::config::bootstrap::v3::Bootstrap;
use xds_api::envoy::service::discovery::v3::DiscoveryResponse;

use super::split;
use crate::cli::Cli;

/// Why there is no bootstrap.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither file nor text was given.
    #[error("no configuration: give --config-path or --config-yaml")]
    None,
    /// The file cannot be read.
    #[error("cannot read the bootstrap {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error("{place}")]
    Config {
        /// Its file, or the flag.
        place: String,
        /// What is wrong, with the field's path.
        #[source]
        source: codec::Error,
    },
    /// The child said what is wrong.
    #[error("{0}")]
    Said(String),
    /// A message does not decode.
    #[error("the bootstrap does not decode")]
    Decode(#[from] prost::DecodeError),
    /// The message cannot be written as JSON.
    #[error("cannot write {name} as JSON")]
    Json {
        /// The message.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A bootstrap that was read.
#[derive(Debug)]
pub struct Loaded {
    /// All of it, encoded.
    pub encoded: Bytes,
    /// The message without its clusters.
    pub bootstrap: Bootstrap,
    /// `static_resources.clusters`, each encoded: a part of `encoded`, which takes no memory of its own.
    pub clusters: Vec<Bytes>,
    /// Paths of fields that are not known, where these are allowed.
    pub unknown: Vec<String>,
}

impl Loaded {
    fn new(message: &[u8], unknown: Vec<String>) -> Result<Self, Error> {
        let encoded = Bytes::copy_from_slice(message);
        let (bootstrap, clusters) = split::clusters(&encoded)?;
        Ok(Self { encoded, bootstrap, clusters, unknown })
    }
}

/// Reads the bootstrap that the command line names.
pub fn load(cli: &Cli) -> Result<Loaded, Error> {
    match in_child(cli) {
        Some(result) => result,
        // No child can be started (no /proc, a sandbox): the memory is spent here then.
        None => {
            let read = read(cli)?;
            Loaded::new(&read.message, read.unknown)
        }
    }
}

/// The child's half of [`load`]: writes what it read to standard output.
pub fn child_read(cli: &Cli) -> Result<(), Error> {
    let read = read(cli)?;
    let mut out = io::stdout().lock();
    // A parent that is gone does not need an answer.
    let _ = out.write_all(&(read.message.len() as u64).to_le_bytes());
    let _ = out.write_all(&read.message);
    let _ = out.write_all(read.unknown.join("\n").as_bytes());
    Ok(())
}

/// Writes an encoded message as JSON text, in a child process.
pub async fn to_json(name: &str, bytes: Vec<u8>) -> Result<String, Error> {
    use tokio::io::AsyncWriteExt;
    let failed = |source: io::Error| Error::Json { name: name.to_owned(), source: source.into() };
    let mut child = tokio::process::Command::new("/proc/self/exe")
        .args(["--write-json", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // The child reads all before it writes, so this cannot block on its output.
        stdin.write_all(&bytes).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if !output.status.success() {
        return Err(Error::Said(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    String::from_utf8(output.stdout)
        .map_err(|source| Error::Json { name: name.to_owned(), source: source.into() })
}

/// The child's half of [`to_json`].
pub fn child_write_json(name: &str) -> Result<(), Error> {
    let failed = |source| Error::Json { name: name.to_owned(), source };
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).map_err(|error| failed(error.into()))?;
    let json = Codec::new().bytes_to_json(name, &bytes).map_err(|error| failed(error.into()))?;
    let text = serde_json::to_string_pretty(&json).map_err(|error| failed(error.into()))?;
    let _ = io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

/// Reads a YAML or JSON file as a message of this name, in a child process.
pub async fn file_to_message(name: &str, path: &std::path::Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let output = tokio::process::Command::new("/proc/self/exe")
        .args(["--read-message", name, "--config-path"])
        .arg(path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(failed)?;
    if !output.status.success() {
        return Err(Error::Said(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(output.stdout)
}

/// The child's half of [`file_to_message`].
pub fn child_read_message(name: &str, path: &std::path::Path) -> Result<(), Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let wrong = |source| Error::Config { place: path.display().to_string(), source };
    let read = match name {
        "envoy.service.discovery.v3.DiscoveryResponse" => {
            codec::encode_text::<DiscoveryResponse>(&text, UnknownFields::Reject).map_err(wrong)?
        }
        other => return Err(wrong(codec::Error::Unknown(other.to_owned()))),
    };
    let _ = io::stdout().lock().write_all(&read.message);
    Ok(())
}

fn in_child(cli: &Cli) -> Option<Result<Loaded, Error>> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--read-bootstrap").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(path) = &cli.config_path {
        command.arg("--config-path").arg(path);
    }
    if let Some(text) = &cli.config_yaml {
        command.arg("--config-yaml").arg(text);
    }
    if cli.allows_unknown_fields() {
        command.arg("--allow-unknown-static-fields");
    }
    let output = command.output().ok()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // Killed from outside, without a word: try it here.
        return (!said.is_empty()).then_some(Err(Error::Said(said)));
    }
    let (length, rest) = output.stdout.split_first_chunk::<8>()?;
    let (bytes, unknown) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let unknown = String::from_utf8_lossy(unknown).lines().map(str::to_owned).collect();
    Some(Loaded::new(bytes, unknown))
}

/// The bytes of the bootstrap.
fn read(cli: &Cli) -> Result<codec::Read<Vec<u8>>, Error> {
    let fields = if cli.allows_unknown_fields() { UnknownFields::Allow } else { UnknownFields::Reject };
    let mut whole: Option<codec::Read<Vec<u8>>> = None;
    let mut add = |place: String, text: &str| -> Result<(), Error> {
        let part = codec::encode_text::<Bootstrap>(text, fields)
            .map_err(|source| Error::Config { place, source })?;
        match &mut whole {
            None => whole = Some(part),
            // One message behind the other is both merged: scalars are replaced, lists are appended to.
            Some(whole) => {
                whole.message.extend(part.message);
                whole.unknown.extend(part.unknown);
            }
        }
        Ok(())
    };
    if let Some(path) = &cli.config_path {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source })?;
        add(path.display().to_string(), &text)?;
    }
    if let Some(text) = &cli.config_yaml {
        add("--config-yaml".to_owned(), text)?;
    }
    whole.ok_or(Error::None)
}
