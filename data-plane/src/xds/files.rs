//! Resources in files (`path_config_source`): read at the start, and again whenever the file is replaced.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use prost::Message;
use tokio::sync::mpsc;
use xds_api::envoy::service::discovery::v3::DiscoveryResponse;
use xds_stream::client::{Client, Names, Protocol, Received};
use xds_stream::wire;

use crate::bootstrap;

/// What a look at a file brought.
pub(super) enum Found {
    /// Other resources than before.
    Resources(Received),
    /// Something that is no set of resources.
    Refused,
    /// Nothing that can be read.
    Nothing,
}

/// Reads the file now and at every change, and hands on what it holds. A file that cannot be read changes nothing.
pub(super) async fn watch(path: String, type_url: &'static str, mut apply: impl FnMut(Found)) {
    let mut client = Client::new(Protocol::Sotw, Default::default());
    client.watch(type_url, Names::All);
    let path = PathBuf::from(path);
    let (send, mut changes) = mpsc::channel(1);
    // A replaced file is a change of its folder; so is a ConfigMap's link, two levels of it.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel already says that something changed.
            let _ = send.try_send(());
        }
    });
    let watcher = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(path = %path.display(), %error, "cannot watch for changes; looking every 10 s");
    }
    let (mut last, mut failed) = (None, None);
    loop {
        // A file that is replaced is looked at, whatever it holds; others in its folder are not.
        let replaced = (identity(&path), read(&path, type_url).await);
        match replaced {
            (identity, Ok(bytes)) if last.as_ref() != Some(&(identity, bytes.clone())) => {
                let response = wire::Response::decode(bytes.as_slice());
                (last, failed) = (Some((identity, bytes)), None);
                match response.map(|response| client.on_sotw(response)) {
                    Ok(Ok(Some(received))) => {
                        client.accept(&received);
                        apply(Found::Resources(received));
                    }
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => refuse(&path, &error, Found::Refused, &mut apply),
                    Err(error) => refuse(&path, &error, Found::Nothing, &mut apply),
                }
            }
            (_, Ok(_)) => {}
            (identity, Err(_)) if failed == Some(identity) => {}
            (identity, Err(error)) => {
                failed = Some(identity);
                refuse(&path, &*error, Found::Nothing, &mut apply);
            }
        }
        match &watcher {
            Ok(_) => {
                let _ = changes.recv().await;
                // Several events make one change.
                tokio::time::sleep(Duration::from_millis(20)).await;
                while changes.try_recv().is_ok() {}
            }
            Err(_) => tokio::time::sleep(Duration::from_secs(10)).await,
        }
    }
}

/// What tells a file from the one that it replaced.
fn identity(path: &Path) -> Option<(u64, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

fn refuse(path: &Path, error: &dyn std::error::Error, found: Found, apply: &mut impl FnMut(Found)) {
    tracing::warn!(path = %path.display(), %error, "cannot read a file's resources");
    apply(found);
}

/// The file as an encoded discovery response: it may be YAML, JSON, or protobuf in binary form (`.pb`).
async fn read(path: &Path, type_url: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    if path.extension().is_some_and(|extension| extension == "pb") {
        return Ok(tokio::fs::read(path).await?);
    }
    let name = <DiscoveryResponse as prost::Name>::full_name();
    let bytes = bootstrap::file_to_message(&name, path).await?;
    let mut response = DiscoveryResponse::decode(bytes.as_slice())?;
    if response.type_url.is_empty() {
        type_url.clone_into(&mut response.type_url);
    }
    if response.type_url != type_url {
        return Err(format!("type_url: {} where {type_url} was expected", response.type_url).into());
    }
    Ok(response.encode_to_vec())
}
