//! How an end takes its leave, and the pings that tell when the peer has heard of it, or whether it is there at all.

use sail_proxy_http2::frame::{self, Reason, kind};

use super::connection::Inner;
use super::counts::Event;

/// The id that the first of two GOAWAYs names: streams may still come.
const ANY_STREAM: u32 = frame::MAX_WINDOW;

/// The ping that tells when the peer has seen the first of two GOAWAYs.
const DRAIN_PING: [u8; 8] = *b"goingfar";

/// The ping that asks whether the peer is there.
const ALIVE_PING: [u8; 8] = *b"areyouon";

/// How this end takes its leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    Not,
    /// The peer was told that no stream will be taken soon.
    Announced,
    /// It was told which stream is the last.
    Told,
}

impl Inner {
    /// Takes leave: what is under way goes on, and the peer is told to begin nothing. `Announced` first, since streams
    /// may be on their way that the peer begins before it hears of it.
    pub(super) fn leave(&mut self) {
        if self.leaving != Leaving::Not {
            return;
        }
        self.leaving = Leaving::Announced;
        let out = self.output.buffer();
        frame::write_goaway(out, ANY_STREAM, Reason::NO_ERROR, "");
        frame::write(out, kind::PING, 0, 0, &DRAIN_PING);
        self.rouse();
    }

    /// Tells the peer which stream is the last: it has heard that none is to follow, or has had time to.
    pub(super) fn tell_last(&mut self) {
        if self.leaving != Leaving::Announced {
            return;
        }
        self.leaving = Leaving::Told;
        let last = self.last;
        frame::write_goaway(self.output.buffer(), last, Reason::NO_ERROR, "");
        self.counts.inc(Event::GoAwaySent);
        self.rouse();
    }

    /// Whether nothing is left to do.
    pub(super) fn has_left(&self) -> bool {
        self.leaving == Leaving::Told && self.streams.open() == 0 && self.accepted.is_empty()
    }

    /// Asks whether the peer is there.
    pub(super) fn ping(&mut self) {
        self.pinged = true;
        self.wake_watcher();
        frame::write(self.output.buffer(), kind::PING, 0, 0, &ALIVE_PING);
        self.rouse();
    }

    /// Whoever watches over pings looks at them.
    fn wake_watcher(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.wake();
        }
    }

    /// The peer has answered a ping.
    pub(super) fn note_pong(&mut self, payload: [u8; 8]) {
        if payload == DRAIN_PING {
            self.tell_last();
        } else if payload == ALIVE_PING {
            self.pinged = false;
            self.wake_watcher();
        }
    }

    /// Whether nobody will ask any more, and nothing is under way.
    pub(super) fn is_unused(&self) -> bool {
        self.left && self.streams.open() == 0 && self.waiting.is_empty()
    }
}
