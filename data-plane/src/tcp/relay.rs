//! Moves bytes both ways between two streams until both ends have ended.
//!
//! A connection at rest holds no buffer: reads go to the worker's scratch space, and only what the other side does not
//! take at once is kept. While something is kept nothing more is read, so a peer that stops reading stops the other.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::splice::{Failed, Splice};
use crate::clock;
use crate::net::Stream;

const SCRATCH: usize = 64 * 1024;

/// A read of this size is a sign of bulk.
const SPLICE_FROM: usize = 32 * 1024;

/// So many smaller ones in a row are a sign that it is over.
const SPLICE_UNTIL: u8 = 8;

/// As much as a connection moves one way before the worker's others have their turn: some 100 µs, so that with dozens of
/// bulk connections a worker comes round in milliseconds, and still a hundred times what going round costs.
const TURN: usize = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// What a relay did so far; read by timers and logs while it runs.
#[derive(Debug)]
pub(crate) struct Progress {
    /// From downstream to upstream.
    pub(crate) received: Cell<u64>,
    /// From upstream to downstream.
    pub(crate) sent: Cell<u64>,
    /// When the last byte moved.
    pub(crate) moved: Cell<Instant>,
    /// Whether the upstream had ended when the client did.
    pub(crate) upstream_first: Cell<bool>,
}

impl Progress {
    /// So many bytes were received before.
    pub(crate) fn new(received: u64) -> Rc<Self> {
        Rc::new(Self {
            received: Cell::new(received),
            sent: Cell::new(0),
            moved: Cell::new(clock::now()),
            upstream_first: Cell::new(false),
        })
    }
}

/// What becomes of a relay when the client has nothing more to say. Where it is `None`, both sides end on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientEnd {
    /// It is all over.
    Ends,
    /// The upstream is told, and may go on.
    IsTold,
    /// The upstream has no way to be told, and goes on.
    IsKept,
}

/// How a relay ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides finished in order.
    Finished,
    /// A side broke.
    Downstream(io::Error),
    /// The other did.
    Upstream(io::Error),
}

#[derive(Default)]
struct Direction {
    kept: Vec<u8>,
    start: usize,
    state: State,
    unflushed: bool,
    /// The reader's end is not passed on.
    keeps_end: bool,
    splice: Splice,
    /// Small moves that the kernel may still do before copying is cheaper; 0 while bytes are copied.
    bulk: u8,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The reader's end was seen; what is kept is still to be written.
    Ending,
    Done,
}

enum Side {
    Reader(io::Error),
    Writer(io::Error),
}

/// Relays until the end; what was received before goes first.
pub(crate) async fn relay(
    downstream: &mut Stream,
    upstream: &mut Stream,
    early: Vec<u8>,
    progress: &Progress,
) -> End {
    relay_until(downstream, upstream, early, progress, None).await
}

/// As [`relay`]; where `client_end` says something, the upstream's end is the end.
pub(crate) async fn relay_until(
    downstream: &mut Stream,
    upstream: &mut Stream,
    early: Vec<u8>,
    progress: &Progress,
    client_end: Option<ClientEnd>,
) -> End {
    let mut up = Direction { unflushed: !early.is_empty(), kept: early, ..Direction::default() };
    up.keeps_end = client_end.is_some_and(|end| end != ClientEnd::IsTold);
    // Whether it is a reset that a client gets is known only once all is over.
    let mut down = Direction { keeps_end: client_end.is_some(), ..Direction::default() };
    std::future::poll_fn(|context| {
        let first = up.poll(context, downstream, upstream, &progress.received, &progress.moved);
        match first {
            Poll::Ready(Err(Side::Reader(error))) => return Poll::Ready(End::Downstream(error)),
            Poll::Ready(Err(Side::Writer(error))) => return Poll::Ready(End::Upstream(error)),
            _ => {}
        }
        let second = down.poll(context, upstream, downstream, &progress.sent, &progress.moved);
        match second {
            Poll::Ready(Err(Side::Reader(error))) => return Poll::Ready(End::Upstream(error)),
            Poll::Ready(Err(Side::Writer(error))) => return Poll::Ready(End::Downstream(error)),
            _ => {}
        }
        if down.state != State::Open && up.state == State::Open {
            progress.upstream_first.set(true);
        }
        let ends = match client_end {
            None => first.is_ready() && second.is_ready(),
            Some(end) => second.is_ready() || (first.is_ready() && end == ClientEnd::Ends),
        };
        if ends { Poll::Ready(End::Finished) } else { Poll::Pending }
    })
    .await
}

impl Direction {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut Stream,
        writer: &mut Stream,
        count: &Cell<u64>,
        moved: &Cell<Instant>,
    ) -> Poll<Result<(), Side>> {
        let mut turn = TURN;
        loop {
            if self.state == State::Done {
                return Poll::Ready(Ok(()));
            }
            if self.start < self.kept.len() {
                ready!(self.poll_write_kept(context, writer)).map_err(Side::Writer)?;
                moved.set(clock::now());
            }
            if self.state == State::Ending {
                let told = match self.keeps_end {
                    true => ready!(Pin::new(&mut *writer).poll_flush(context)),
                    false => ready!(Pin::new(&mut *writer).poll_shutdown(context)),
                };
                told.map_err(Side::Writer)?;
                self.state = State::Done;
                return Poll::Ready(Ok(()));
            }
            let moving = if self.bulk > 0 {
                self.poll_splice(context, reader, writer)?
            } else {
                self.poll_move(context, reader, writer)?
            };
            match moving {
                Poll::Ready(0) => self.state = State::Ending,
                Poll::Ready(bytes) => {
                    count.set(count.get() + bytes as u64);
                    moved.set(clock::now());
                    // After a short move there will hardly be more yet; later there is, in one piece.
                    let short = self.bulk > 0 && bytes < SPLICE_FROM;
                    turn = if short { 0 } else { turn.saturating_sub(bytes) };
                    if turn == 0 {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *writer).poll_flush(context)).map_err(Side::Writer)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// The same through a pipe.
    fn poll_splice(
        &mut self,
        context: &mut Context<'_>,
        reader_stream: &mut Stream,
        writer_stream: &mut Stream,
    ) -> Result<Poll<usize>, Side> {
        let (Some(reader), Some(writer)) = (reader_stream.bare_tcp(), writer_stream.bare_tcp()) else {
            return Ok(Poll::Pending);
        };
        match self.splice.poll_move(context, reader, writer) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(count)) => {
                self.bulk = if count < SPLICE_FROM { self.bulk - 1 } else { SPLICE_UNTIL };
                if self.bulk == 0 && !self.splice.is_empty() {
                    // The rest goes the same way.
                    self.bulk = 1;
                }
                Ok(Poll::Ready(count))
            }
            Poll::Ready(Err(Failed::NoPipe)) => {
                self.bulk = 0;
                self.poll_move(context, reader_stream, writer_stream)
            }
            Poll::Ready(Err(Failed::Reader(error))) => Err(Side::Reader(error)),
            Poll::Ready(Err(Failed::Writer(error))) => Err(Side::Writer(error)),
        }
    }

    /// One read, and as much of a write as goes.
    fn poll_move(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut Stream,
        writer: &mut Stream,
    ) -> Result<Poll<usize>, Side> {
        let bare = reader.bare_tcp().is_some() && writer.bare_tcp().is_some();
        BUFFER
            .with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(reader).poll_read(context, &mut buffer) {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(result) => result.map_err(Side::Reader)?,
                }
                let data = buffer.filled();
                let mut written = 0;
                while written < data.len() {
                    match Pin::new(&mut *writer).poll_write(context, &data[written..]) {
                        Poll::Ready(Ok(0)) => return Err(Side::Writer(io::ErrorKind::WriteZero.into())),
                        Poll::Ready(Ok(count)) => written += count,
                        Poll::Ready(Err(error)) => return Err(Side::Writer(error)),
                        Poll::Pending => {
                            self.kept.clear();
                            self.kept.extend_from_slice(&data[written..]);
                            self.start = 0;
                            break;
                        }
                    }
                }
                self.unflushed = !data.is_empty();
                Ok(Poll::Ready(data.len()))
            })
            .inspect(|moved| {
                // Much at a time: from here on the kernel moves it, if both ends are bare sockets.
                let much = matches!(moved, Poll::Ready(count) if *count >= SPLICE_FROM);
                if much && self.kept.is_empty() && bare {
                    self.bulk = SPLICE_UNTIL;
                }
            })
    }

    fn poll_write_kept(&mut self, context: &mut Context<'_>, writer: &mut Stream) -> Poll<io::Result<()>> {
        while self.start < self.kept.len() {
            let count = ready!(Pin::new(&mut *writer).poll_write(context, &self.kept[self.start..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += count;
        }
        self.kept = Vec::new();
        self.start = 0;
        Poll::Ready(Ok(()))
    }
}
