//! One type for every byte stream: TCP or Unix, plain or TLS, from either side. An enum rather than a trait object,
//! so that the codecs above are compiled once and call without indirection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

use super::prefixed::Prefixed;
use crate::http2::Tunnel;
use crate::tcp::posted::Posted;

/// Up to so many bytes in several pieces are copied together before they are written.
const WORTH_COPYING: usize = 2048;

/// A socket.
#[derive(Debug)]
pub(crate) enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection, possibly through TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Prefixed),
    Server(Box<server::TlsStream<Prefixed>>),
    Client(Box<client::TlsStream<Prefixed>>),
    /// A CONNECT stream of an HTTP/2 connection.
    Tunnel(Box<Tunnel>),
    /// A POST that carries bytes in its bodies.
    Posted(Box<Posted>),
    /// Bytes that were looked at above TLS, and the rest.
    Rewound(Box<Rewound>),
}

/// See [`Stream::rewound`].
#[derive(Debug)]
pub(crate) struct Rewound {
    prefix: Bytes,
    rest: Stream,
}

macro_rules! raw {
    ($self:expr, $io:ident => $call:expr) => {
        match $self {
            Raw::Tcp($io) => $call,
            Raw::Unix($io) => $call,
        }
    };
}

macro_rules! stream {
    ($self:expr, $io:ident => $call:expr) => {
        match $self {
            Stream::Plain($io) => $call,
            Stream::Server($io) => $call,
            Stream::Client($io) => $call,
            Stream::Tunnel($io) => $call,
            Stream::Posted($io) => $call,
            Stream::Rewound(rewound) => {
                let $io = &mut rewound.rest;
                $call
            }
        }
    };
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        raw!(self, io => io.as_fd())
    }
}

impl Stream {
    /// The socket, where bytes pass it as they are and none was read ahead.
    pub(crate) fn bare_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(io) if io.is_drained() => match io.raw() {
                Raw::Tcp(tcp) => Some(tcp),
                Raw::Unix(_) => None,
            },
            _ => None,
        }
    }

    /// The TCP socket below, whatever is above it.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        let prefixed = match self {
            Self::Plain(io) => io,
            Self::Server(tls) => tls.get_ref().0,
            Self::Client(tls) => tls.get_ref().0,
            Self::Rewound(rewound) => return rewound.rest.tcp(),
            Self::Tunnel(_) | Self::Posted(_) => return None,
        };
        match prefixed.raw() {
            Raw::Tcp(tcp) => Some(tcp),
            Raw::Unix(_) => None,
        }
    }

    /// Ends our side, and waits so long for the peer's end, while at most so many bytes are passed over: to close with bytes
    /// of its unread would reset the connection, and it might lose what was said last. Says whether it ended in time.
    pub(crate) fn part(mut self, limit: Duration, mut most: usize) -> Pin<Box<dyn Future<Output = bool>>> {
        // In a box: an idle connection has no need for its space.
        Box::pin(async move {
            let parting = async {
                if self.shutdown().await.is_ok() && !limit.is_zero() {
                    let mut scratch = [0; 4096];
                    while let Ok(count @ 1..) = self.read(&mut scratch).await
                        && let Some(rest) = most.checked_sub(count)
                    {
                        most = rest;
                    }
                }
            };
            tokio::time::timeout(limit, parting).await.is_ok() || limit.is_zero()
        })
    }

    /// The stream with bytes put back that were read from it.
    pub(crate) fn rewound(self, prefix: Bytes) -> Self {
        if prefix.is_empty() {
            return self;
        }
        match self {
            Self::Plain(io) => {
                let (rest, raw) = io.into_parts();
                // What was read came from the prefix first, so a rest of it follows.
                let prefix = if rest.is_empty() { prefix } else { [prefix, rest].concat().into() };
                Self::Plain(Prefixed::new(prefix, raw))
            }
            Self::Rewound(mut rewound) => {
                let rest = std::mem::take(&mut rewound.prefix);
                rewound.prefix = if rest.is_empty() { prefix } else { [prefix, rest].concat().into() };
                Self::Rewound(rewound)
            }
            tls => Self::Rewound(Box::new(Rewound { prefix, rest: tls })),
        }
    }
}

impl AsyncRead for Raw {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        raw!(self.get_mut(), io => Pin::new(io).poll_read(context, buffer))
    }
}

impl AsyncWrite for Raw {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        raw!(self.get_mut(), io => Pin::new(io).poll_write(context, data))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        raw!(self.get_mut(), io => Pin::new(io).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        raw!(self.get_mut(), io => Pin::new(io).poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        // One piece goes by send(2), which costs the kernel less than writev(2), and so do few bytes, once copied.
        if let [one] = data {
            return Pin::new(io).poll_write(context, one);
        }
        if data.iter().map(|piece| piece.len()).sum::<usize>() <= WORTH_COPYING {
            let mut room = [const { MaybeUninit::uninit() }; WORTH_COPYING];
            let mut whole = ReadBuf::uninit(&mut room);
            data.iter().for_each(|piece| whole.put_slice(piece));
            return Pin::new(io).poll_write(context, whole.filled());
        }
        raw!(io, io => Pin::new(io).poll_write_vectored(context, data))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if let Stream::Rewound(rewound) = stream
            && !rewound.prefix.is_empty()
        {
            let count = rewound.prefix.len().min(buffer.remaining());
            buffer.put_slice(&rewound.prefix.split_to(count));
            return Poll::Ready(Ok(()));
        }
        stream!(stream, io => Pin::new(io).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        stream!(self.get_mut(), io => Pin::new(io).poll_write(context, data))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(self.get_mut(), io => Pin::new(io).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        stream!(self.get_mut(), io => Pin::new(io).poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        stream!(self.get_mut(), io => Pin::new(io).poll_write_vectored(context, data))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Server(io) => io.is_write_vectored(),
            Self::Client(io) => io.is_write_vectored(),
            Self::Tunnel(io) => io.is_write_vectored(),
            Self::Posted(io) => io.is_write_vectored(),
            Self::Rewound(rewound) => rewound.rest.is_write_vectored(),
        }
    }
}
