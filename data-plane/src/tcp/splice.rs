//! Moves bytes from one socket to another through a pipe, without copying them into the process.
//!
//! A pipe belongs to a direction only while something stands in it; in between it lies with the worker, so that as many
//! pipes are open as there are writers that lag behind, not as there are connections.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// As much as a pipe holds, where the system lets it.
const PIPE: usize = 1024 * 1024;

/// As many empty pipes as a worker keeps.
const SPARE: usize = 8;

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn take() -> io::Result<Self> {
        if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A smaller pipe does as well, only slower.
        let _ = nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        Ok(Self { read, write })
    }

    /// Gives an empty pipe back.
    fn put(self) {
        PIPES.with_borrow_mut(|pipes| {
            if pipes.len() < SPARE {
                pipes.push(self);
            }
        });
    }
}

/// What stands between two sockets: a pipe with so many bytes in it, if there are any.
#[derive(Debug, Default)]
pub(super) struct Splice {
    pipe: Option<Pipe>,
    filled: usize,
}

impl Splice {
    /// Moves what there is, at most a pipe full. Ready with the number of bytes that left the reader, 0 at its end.
    /// Nothing more is read while the writer has not taken everything.
    pub(super) fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        reader: &TcpStream,
        writer: &TcpStream,
    ) -> Poll<Result<usize, Failed>> {
        ready!(self.poll_drain(context, writer))?;
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => match Pipe::take() {
                Ok(pipe) => pipe,
                Err(_) => return Poll::Ready(Err(Failed::NoPipe)),
            },
        };
        let count = match poll_fill(context, reader, &pipe) {
            Poll::Ready(Ok(count)) if count > 0 => count,
            other => {
                pipe.put();
                return other.map_err(Failed::Reader);
            }
        };
        self.filled = count;
        self.pipe = Some(pipe);
        match self.poll_drain(context, writer) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What is left is counted already; the next call begins with it.
            _ => Poll::Ready(Ok(count)),
        }
    }

    /// Whether everything that was read has been written.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Writes until the pipe is empty.
    fn poll_drain(&mut self, context: &mut Context<'_>, writer: &TcpStream) -> Poll<Result<(), Failed>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(())) };
        while self.filled > 0 {
            ready!(writer.poll_write_ready(context)).map_err(Failed::Writer)?;
            match writer.try_io(Interest::WRITABLE, || splice(pipe.read.as_fd(), writer.as_fd(), self.filled))
            {
                Ok(0) => return Poll::Ready(Err(Failed::Writer(io::ErrorKind::WriteZero.into()))),
                Ok(count) => self.filled -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(Failed::Writer(error))),
            }
        }
        if let Some(pipe) = self.pipe.take() {
            pipe.put();
        }
        Poll::Ready(Ok(()))
    }
}

/// Fills an empty pipe: only then it is the socket, and not the pipe, that would block.
fn poll_fill(context: &mut Context<'_>, reader: &TcpStream, pipe: &Pipe) -> Poll<io::Result<usize>> {
    loop {
        ready!(reader.poll_read_ready(context))?;
        match reader.try_io(Interest::READABLE, || splice(reader.as_fd(), pipe.write.as_fd(), PIPE)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// What broke.
#[derive(Debug)]
pub(super) enum Failed {
    /// There are no pipes to be had; nothing was moved.
    NoPipe,
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
