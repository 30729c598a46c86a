//! Moves bytes from one socket to another through a pipe, without copying them into the process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// As much as a pipe holds, where the system lets it.
const PIPE: usize = 256 * 1024;

/// A pipe between two sockets, and what stands in it.
#[derive(Debug)]
pub(super) struct Splice {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
    ended: bool,
}

impl Splice {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A smaller pipe does as well, only slower.
        let _ = nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        Ok(Self { read, write, filled: 0, ended: false })
    }

    /// Moves what there is. Ready with the number of bytes written; 0 at the reader's end.
    pub(super) fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        reader: &TcpStream,
        writer: &TcpStream,
    ) -> Poll<Result<usize, Failed>> {
        if self.filled == 0 {
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            let count = ready!(self.poll_fill(context, reader)).map_err(Failed::Reader)?;
            self.filled = count;
            self.ended = count == 0;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let count = ready!(self.poll_drain(context, writer)).map_err(Failed::Writer)?;
        if count == 0 {
            return Poll::Ready(Err(Failed::Writer(io::ErrorKind::WriteZero.into())));
        }
        self.filled -= count;
        Poll::Ready(Ok(count))
    }

    fn poll_fill(&self, context: &mut Context<'_>, reader: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(reader.poll_read_ready(context))?;
            match reader.try_io(Interest::READABLE, || splice(reader.as_fd(), self.write.as_fd(), PIPE)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_drain(&self, context: &mut Context<'_>, writer: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(writer.poll_write_ready(context))?;
            match writer.try_io(Interest::WRITABLE, || splice(self.read.as_fd(), writer.as_fd(), self.filled))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

/// Which side broke.
#[derive(Debug)]
pub(super) enum Failed {
    Reader(io::Error),
    Writer(io::Error),
}

#[expect(unsafe_code, reason = "the safe wrapper stands behind a feature that nothing else needs")]
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: usize) -> io::Result<usize> {
    // SAFETY: both descriptors are borrowed, hence open; no memory is handed over, since offsets are null.
    let moved = unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            length,
            libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
        )
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}
