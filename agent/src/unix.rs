//! Unix sockets that the agent serves on.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why a socket cannot be served on.
#[derive(Debug, thiserror::Error)]
#[error("listening on the Unix socket {}", path.display())]
pub struct Error {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Whether somebody answers at a socket.
pub async fn is_served(path: &Path) -> bool {
    path.exists() && UnixStream::connect(path).await.is_ok()
}

/// Listens on a socket. A file that a former agent left there is replaced; it is never taken from a living one,
/// which the caller has asked about with [`is_served`].
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let refuse = |source| Error { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(refuse)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refuse(error)),
        _ => {}
    }
    UnixListener::bind(path).map_err(refuse)
}
