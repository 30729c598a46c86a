//! A verb's connection to the daemon.

use std::io::{BufRead, BufReader, ErrorKind, IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::StateDir;
use super::protocol::{Reply, Request, Status};

/// Connects; an error says that no mesh runs.
pub(crate) fn connect(state: &StateDir) -> anyhow::Result<UnixStream> {
    UnixStream::connect(state.socket()).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("no mesh {:?} runs here; start it with `sailctl local up`", state.name())
        }
        _ => anyhow::Error::from(error).context(format!("cannot reach {}", state.socket().display())),
    })
}

/// Asks, and waits for the answer.
pub(crate) fn ask(state: &StateDir, request: &Request) -> anyhow::Result<Reply> {
    let mut stream = connect(state)?;
    send(&mut stream, request)?;
    receive(&mut BufReader::new(stream))
}

/// Asks how the mesh is.
pub(crate) fn status(state: &StateDir) -> anyhow::Result<Status> {
    match ask(state, &Request::Status)? {
        Reply::Status(status) => Ok(*status),
        other => bail!("unexpected answer to a status request: {other:?}"),
    }
}

pub(crate) fn send(stream: &mut UnixStream, request: &Request) -> anyhow::Result<()> {
    stream.write_all(&line(request)?).context("cannot send the request")
}

/// Sends a request together with descriptors.
pub(crate) fn send_with(
    stream: &UnixStream,
    request: &Request,
    fds: &[BorrowedFd<'_>],
) -> anyhow::Result<()> {
    let line = line(request)?;
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&line)], &control, MsgFlags::empty(), None)
        .context("cannot send the request")?;
    let mut stream = stream;
    stream.write_all(&line[sent..]).context("cannot send the request")
}

fn line(request: &Request) -> anyhow::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one reply; a failure becomes an error.
pub(crate) fn receive(reader: &mut impl BufRead) -> anyhow::Result<Reply> {
    const AWAY: &str = "the daemon went away; its log is node.log in the state directory";
    let mut line = String::new();
    reader.read_line(&mut line).context(AWAY)?;
    if line.is_empty() {
        bail!(AWAY);
    }
    match serde_json::from_str(&line)? {
        Reply::Failed(message) => bail!(message),
        reply => Ok(reply),
    }
}
