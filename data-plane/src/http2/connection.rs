//! A connection as both of its ends have it: its streams, windows and settings, what has come and what is to be written.
//!
//! One task drives it: that reads, takes frames apart and writes what a round has gathered. Who serves a stream works on
//! the same state from a task of its own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use http::Request;
use sail_proxy_config::hcm::Http2Limits;
use sail_proxy_http2::frame::{self, HEADER, MIN_MAX_SIZE, PREFACE, Reason, Settings, flag, kind};
use sail_proxy_http2::hpack::{Decoder, Encoder};

use super::broken::Broken;
use super::counts::{Counts, Event};
use super::error::Error;
use super::floods::{Flood, Floods};
use super::leaving::Leaving;
use super::output::Output;
use super::stream::Stream;
use super::streams::Streams;
use super::window::{self, Credit, Window};
use crate::clock;
use crate::http1::Limits;
use crate::net;
use crate::net::input::Input;
use crate::rt::Round;
use crate::stats::Traffic;

/// As much as is read before other tasks have their turn.
const READ_AT_ONCE: usize = 256 * 1024;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Towards a client.
    Server,
    /// Towards an upstream.
    Client,
}

/// How a connection is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// What a stream's sender has to begin with.
    pub(crate) stream_window: u32,
    /// What all streams of a connection have.
    pub(crate) connection_window: u32,
    /// So many streams the peer may open.
    pub(crate) max_streams: Option<u32>,
    /// The size of the HPACK table, for both directions.
    pub(crate) table: u32,
    /// How large a head may be.
    pub(crate) heads: Limits,
    /// How large one of its fields may be.
    pub(crate) max_field: usize,
    /// Clients may ask for other protocols by CONNECT.
    pub(crate) connect: bool,
    /// A malformed message ends its stream alone.
    pub(crate) stream_errors: bool,
    /// Strings are sent in Huffman's code.
    pub(crate) huffman: bool,
    /// A request has a ping before it if nothing came for so long.
    pub(crate) asks_after: Option<Duration>,
    pub(crate) limits: Http2Limits,
}

/// A request that a client has begun.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: u32,
    /// Or why it is none.
    pub(super) request: Result<Request<()>, Error>,
}

/// A head that has not come as a whole.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) stream: u32,
    pub(super) ends: bool,
    pub(super) block: Vec<u8>,
}

/// What a connection's users share.
pub(crate) type Shared = Rc<RefCell<Inner>>;

/// See the module's documentation.
pub(crate) struct Inner {
    pub(super) side: Side,
    pub(super) options: Options,
    pub(super) socket: Option<net::Stream>,
    pub(super) input: Input,
    pub(super) output: Output,
    traffic: Traffic,
    pub(super) counts: Counts,
    /// The client's first words are still to come.
    greets: bool,
    /// So are the peer's settings.
    pub(super) settled: bool,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) unfinished: Option<Unfinished>,
    pub(super) streams: Streams,
    pub(super) broken: Broken,
    /// The peer's last stream.
    pub(super) last: u32,
    /// Our next one.
    pub(super) next: u32,
    pub(super) peer: Peer,
    pub(super) window: Window,
    pub(super) credit: Credit,
    /// Streams that wait for the connection's window, or for room to write to.
    pub(super) queue: VecDeque<u32>,
    /// Those who wait for a stream of their own.
    pub(super) waiting: Vec<Waker>,
    pub(super) accepted: VecDeque<Accepted>,
    pub(super) leaving: Leaving,
    /// The peer opens, or takes, no further stream.
    pub(super) left: bool,
    pub(super) floods: Floods,
    /// The limit that the peer passed.
    flood: Cell<Option<Flood>>,
    /// Why it has ended.
    pub(super) ended: Option<Error>,
    /// The peer has taken our settings.
    pub(super) acknowledged: bool,
    /// A ping has no answer yet.
    pub(super) pinged: bool,
    /// Something came since this was last looked at.
    pub(super) heard: bool,
    /// When something came last; kept where that matters.
    pub(super) last_heard: Instant,
    /// Who watches over pings.
    pub(super) watcher: Option<Waker>,
    round: Round,
    driver: Option<Waker>,
    /// The driver will look at everything, without being told.
    roused: bool,
}

/// What the peer said of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) max_streams: u32,
    pub(super) stream_window: u32,
    pub(super) max_frame: usize,
}

impl Inner {
    /// Without a socket it is fed by [`Self::take_in`].
    pub(super) fn new(
        side: Side,
        socket: Option<net::Stream>,
        options: Options,
        traffic: Traffic,
        counts: Counts,
    ) -> Self {
        let mut inner = Self {
            side,
            options,
            socket,
            input: Input::default(),
            output: Output::default(),
            traffic,
            counts,
            greets: side == Side::Server,
            settled: false,
            decoder: Decoder::new(options.table as usize),
            encoder: Encoder::with_limit(options.table as usize),
            unfinished: None,
            streams: Streams::default(),
            broken: Broken::default(),
            last: 0,
            next: 1,
            peer: Peer {
                // As many as are sure to be allowed, before it says so.
                max_streams: 100,
                stream_window: window::DEFAULT,
                max_frame: MIN_MAX_SIZE as usize,
            },
            window: Window::new(window::DEFAULT),
            credit: Credit::new(window::DEFAULT),
            queue: VecDeque::new(),
            waiting: Vec::new(),
            accepted: VecDeque::new(),
            leaving: Leaving::Not,
            left: false,
            floods: Floods::new(options.limits),
            flood: Cell::new(None),
            ended: None,
            acknowledged: false,
            pinged: false,
            heard: false,
            last_heard: clock::now(),
            watcher: None,
            round: Round::default(),
            driver: None,
            roused: false,
        };
        inner.encoder.huffman(options.huffman);
        inner.greet();
        inner
    }

    /// Says what this end is like.
    fn greet(&mut self) {
        let options = self.options;
        let server = self.side == Side::Server;
        let out = self.output.buffer();
        if !server {
            out.extend_from_slice(PREFACE);
        }
        let settings = Settings {
            header_table_size: Some(options.table).filter(|size| *size != 4096),
            enable_push: (!server).then_some(0),
            max_concurrent_streams: options.max_streams,
            initial_window_size: Some(options.stream_window).filter(|size| *size != window::DEFAULT),
            enable_connect_protocol: (server && options.connect).then_some(1),
            ..Settings::default()
        };
        settings.write(out);
        if let Some(by) = self.credit.widen(options.connection_window) {
            frame::write(out, kind::WINDOW_UPDATE, 0, 0, &by.to_be_bytes());
        }
    }

    /// Reads, works on what has come, and writes what there is; ready at the connection's end.
    pub(super) fn poll_drive(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        super::stream::register(&mut self.driver, context);
        self.roused = true;
        if self.ended.is_none()
            && let Err(error) = self.read(context)
        {
            self.end(error);
        }
        self.roused = false;
        let written = self.poll_write(context);
        if let Poll::Ready(Err(error)) = written {
            self.end(error.into());
        }
        self.ended.map_or(Poll::Pending, Poll::Ready)
    }

    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        let mut read = 0;
        // Also while the peer does not take what we say: were both to wait so, both would wait for ever. What that may
        // cost is bounded by windows, and by the limits on floods.
        loop {
            let Some(socket) = &mut self.socket else { return Err(Error::Closed) };
            let Poll::Ready(count) = self.input.poll_fill(socket, context) else {
                self.input.rest();
                return Ok(());
            };
            let count = count?;
            if count == 0 {
                return Err(Error::Closed);
            }
            self.traffic.received(count as u64);
            self.note_heard();
            self.parse_all()?;
            read += count;
            if read >= READ_AT_ONCE {
                context.waker().wake_by_ref();
                return Ok(());
            }
        }
    }

    /// Works on the frames that have come as a whole; a peer that breaks the rules is told.
    fn parse_all(&mut self) -> Result<(), Error> {
        let waiting = |inner: &Self| inner.floods.check_waiting().map_err(|flood| inner.flooded(flood));
        self.parse().and_then(|()| waiting(self)).map_err(|error| {
            self.refuse(error.reason, error.text);
            self.flood().map_or(Error::Invalid(error.text), Error::Flood)
        })
    }

    /// Takes what has come from elsewhere than a socket.
    pub(super) fn take_in(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        if let Err(error) = self.parse_all() {
            self.end(error);
        }
    }

    /// Works on the frames that have come as a whole.
    fn parse(&mut self) -> Result<(), frame::Error> {
        if self.greets {
            let seen = self.input.len().min(PREFACE.len());
            if self.input[..seen] != PREFACE[..seen] {
                return Err(protocol("no client's first words"));
            }
            if seen < PREFACE.len() {
                return Ok(());
            }
            bytes::Buf::advance(&mut *self.input, PREFACE.len());
            self.greets = false;
        }
        let mut input = std::mem::take(&mut *self.input);
        let parsed = loop {
            let Some(head) = frame::Head::read(&input) else { break Ok(()) };
            if !self.settled && head.kind != kind::SETTINGS {
                break Err(protocol("no settings at the beginning"));
            }
            if head.length > MIN_MAX_SIZE {
                let text = "a frame that is larger than allowed";
                break Err(frame::Error { reason: Reason::FRAME_SIZE_ERROR, text, of_stream: false });
            }
            if input.len() < HEADER + head.length as usize {
                break Ok(());
            }
            if let Err(error) = self.receive(head, &mut input) {
                break Err(error);
            }
        };
        *self.input = input;
        self.input.release();
        parsed
    }

    /// A limit was passed.
    pub(super) fn flooded(&self, flood: Flood) -> frame::Error {
        self.counts.note_flood(flood);
        self.flood.set(Some(flood));
        flood.error()
    }

    /// The limit that was passed.
    pub(super) fn flood(&self) -> Option<Flood> {
        self.flood.get()
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(Ok(())) };
        if !self.output.is_empty() {
            if self.output.has_room() && self.ended.is_none() {
                ready!(self.round.poll(context));
            }
            let traffic = &self.traffic;
            ready!(self.output.poll_write(socket, context, |count| traffic.sent(count as u64)))?;
            self.floods.all_is_written();
        }
        self.unqueue();
        Poll::Ready(Ok(()))
    }

    /// Those who waited for room, or for the connection's window, try again.
    pub(super) fn unqueue(&mut self) {
        if self.window.room() == 0 || !self.output.has_room() {
            return;
        }
        while let Some(id) = self.queue.pop_front() {
            if let Some(stream) = self.streams.get(id) {
                stream.queued = false;
                stream.wake_writer();
            }
        }
    }

    /// Has the driver look at what is new.
    pub(super) fn rouse(&mut self) {
        if !self.roused
            && let Some(driver) = &self.driver
        {
            self.roused = true;
            driver.wake_by_ref();
        }
    }

    /// The connection is over for all.
    pub(super) fn end(&mut self, error: Error) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error);
        self.left = true;
        if error == Error::Silent {
            self.counts.inc(Event::KeepaliveTimeout);
        }
        if error.is_violation() {
            self.counts.note_violation(self.streams.open());
        }
        self.streams.for_each(|stream| {
            // What came as a whole may still be read.
            if !stream.is_over() {
                stream.fail(error);
            }
        });
        self.waiting.drain(..).for_each(Waker::wake);
        self.rouse();
    }

    /// Tells the peer that it broke the rules.
    fn refuse(&mut self, reason: Reason, text: &str) {
        let last = self.last;
        frame::write_goaway(self.output.buffer(), last, reason, text);
        self.leaving = Leaving::Told;
    }

    /// Says that our side of the connection has taken the peer's settings, and follows them.
    pub(super) fn settle(&mut self, settings: &Settings) -> Result<(), frame::Error> {
        if self.side == Side::Client && settings.enable_push == Some(1) {
            return Err(protocol("a server that wants to be pushed to"));
        }
        if let Some(size) = settings.header_table_size {
            self.encoder.set_max_table(size as usize);
        }
        self.peer.max_streams = match settings.max_concurrent_streams {
            Some(count) => count,
            // It said nothing of it at the beginning: there is no limit.
            None if !self.settled => u32::MAX,
            None => self.peer.max_streams,
        };
        if let Some(size) = settings.max_frame_size {
            self.peer.max_frame = size as usize;
        }
        if let Some(size) = settings.initial_window_size {
            let by = i64::from(size) - i64::from(self.peer.stream_window);
            self.peer.stream_window = size;
            let mut fits = true;
            self.streams.for_each(|stream| {
                fits &= stream.window.change(by);
                stream.wake_writer();
            });
            if !fits {
                return Err(frame::Error {
                    reason: Reason::FLOW_CONTROL_ERROR,
                    text: "a window that is too large",
                    of_stream: false,
                });
            }
        }
        let acknowledged_before = std::mem::replace(&mut self.settled, true);
        frame::write(self.output.buffer(), kind::SETTINGS, flag::ACK, 0, &[]);
        if acknowledged_before {
            self.floods.note_sent_control();
        }
        self.waiting.drain(..).for_each(Waker::wake);
        Ok(())
    }

    /// A new stream's state.
    pub(super) fn stream(&self) -> Stream {
        Stream::new(Credit::new(self.options.stream_window), Window::new(self.peer.stream_window))
    }

    /// The socket, to be closed. What is to be written is, as far as the kernel takes it at once.
    pub(super) fn take_socket(&mut self) -> Option<net::Stream> {
        self.push();
        self.socket.take()
    }

    fn push(&mut self) {
        if let Some(socket) = &mut self.socket {
            let traffic = &self.traffic;
            self.output.push(socket, |count| traffic.sent(count as u64));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.counts.move_streams(-(self.streams.open() as i64));
        self.push();
    }
}

pub(super) fn protocol(text: &'static str) -> frame::Error {
    frame::Error { reason: Reason::PROTOCOL_ERROR, text, of_stream: false }
}
