//! Black-box tests: they drive the binaries as a user does, and assert on what a client sees.
//!
//! Each file in `tests/` is one process with one local mesh; its tests take turns, since a mesh's policies are shared.

mod client;
mod mesh;

pub use client::{Answer, get, get_with};
pub use mesh::{Mesh, Summary, Turn, command};

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a change may take to reach every proxy on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Tries until `attempt` succeeds; panics with its last word when [`PATIENCE`] is over.
#[track_caller]
pub fn eventually<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => panic!("still not after {PATIENCE:?}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// An error unless `condition` holds, for [`eventually`].
pub fn ensure(condition: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(reason()) }
}
