//! What a peer may make us do for nothing, with Envoy's limits.

use std::time::Instant;

use sail_proxy_config::hcm::Http2Limits;
use sail_proxy_http2::frame::{Error, Frame, Reason};

use crate::clock;

/// So many streams, or half of them given up, show what a peer is like: `overload.premature_reset_total_stream_count`.
const MANY_STREAMS: u64 = 500;

/// Which limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flood {
    Outbound,
    OutboundControl,
    Empty,
    Priorities,
    Updates,
    Resets,
    PrematureResets,
}

impl Flood {
    /// What logs say of it.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Self::Outbound => "codec_error:Too_many_frames_in_the_outbound_queue.",
            Self::OutboundControl => "codec_error:Too_many_control_frames_in_the_outbound_queue.",
            Self::Empty => "http2.inbound_empty_frames_flood",
            Self::Priorities => "codec_error:Too_many_PRIORITY_frames",
            Self::Updates => "codec_error:Too_many_WINDOW_UPDATE_frames",
            Self::Resets => "codec_error:Too_many_RST_STREAM_frames",
            Self::PrematureResets => "overload_error:Too_many_premature_resets",
        }
    }

    /// What the peer is told.
    pub(super) fn error(self) -> Error {
        let text = match self {
            Self::Outbound => "too many frames wait for you",
            Self::OutboundControl => "too many control frames wait for you",
            Self::Empty => "too many empty frames",
            Self::Priorities => "too many PRIORITY frames",
            Self::Updates => "too many WINDOW_UPDATE frames",
            Self::Resets => "too many RST_STREAM frames",
            Self::PrematureResets => "too many streams given up",
        };
        Error { reason: Reason::ENHANCE_YOUR_CALM, text, of_stream: false }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Floods {
    limits: Http2Limits,
    /// Frames that wait to be written.
    waiting: u32,
    waiting_control: u32,
    /// Empty frames in a row.
    empty: u32,
    priorities: u64,
    updates: u64,
    /// DATA frames that were sent.
    data: u64,
    /// Streams that were begun.
    streams: u64,
    /// Those of them that were given up before they were answered.
    premature: u64,
    resets: Bucket,
}

/// So many at once, and so many a second.
#[derive(Debug)]
struct Bucket {
    left: u64,
    filled: Instant,
}

impl Floods {
    pub(super) fn new(limits: Http2Limits) -> Self {
        Self {
            limits,
            waiting: 0,
            waiting_control: 0,
            empty: 0,
            priorities: 0,
            updates: 0,
            data: 0,
            streams: 0,
            premature: 0,
            resets: Bucket { left: limits.reset_burst, filled: clock::now() },
        }
    }

    /// Counts a frame that has come, whose payload is so long, while so many streams are open.
    ///
    /// # Errors
    /// There were too many of its kind.
    pub(super) fn note(&mut self, frame: &Frame, length: u32, open: usize) -> Result<(), Flood> {
        let (limits, open) = (self.limits, open as u64);
        match frame {
            Frame::Data { data, ends: false } if data.is_empty() => self.note_empty()?,
            Frame::Headers { block, ends: false, .. } if block.is_empty() => self.note_empty()?,
            Frame::Continuation { whole: false } if length == 0 => self.note_empty()?,
            Frame::Data { .. } | Frame::Headers { .. } | Frame::Continuation { .. } => self.empty = 0,
            Frame::Priority => {
                self.priorities += 1;
                if self.priorities > u64::from(limits.priorities) * (1 + open) {
                    return Err(Flood::Priorities);
                }
            }
            Frame::WindowUpdate(_) => {
                self.updates += 1;
                if self.updates > 5 + 2 * (open + u64::from(limits.updates) * self.data) {
                    return Err(Flood::Updates);
                }
            }
            Frame::Reset(_) => self.resets.take(limits)?,
            _ => {}
        }
        Ok(())
    }

    fn note_empty(&mut self) -> Result<(), Flood> {
        self.empty += 1;
        if self.empty > self.limits.empty { Err(Flood::Empty) } else { Ok(()) }
    }

    /// The peer begins a stream.
    pub(super) fn note_stream(&mut self) {
        self.streams += 1;
    }

    /// The peer gives a stream up before it was answered.
    ///
    /// # Errors
    /// It does that mostly, and has done it often: work is asked for that nobody wants.
    pub(super) fn note_premature_reset(&mut self) -> Result<(), Flood> {
        self.premature += 1;
        let most = self.streams.max(MANY_STREAMS);
        if self.premature * 2 > most { Err(Flood::PrematureResets) } else { Ok(()) }
    }

    /// A frame is to be written.
    pub(super) fn note_sent(&mut self) {
        self.waiting += 1;
    }

    /// So is one that answers the peer, or ends a stream.
    pub(super) fn note_sent_control(&mut self) {
        self.waiting += 1;
        self.waiting_control += 1;
    }

    pub(super) fn note_sent_data(&mut self) {
        self.waiting += 1;
        self.data += 1;
    }

    pub(super) fn all_is_written(&mut self) {
        self.waiting = 0;
        self.waiting_control = 0;
    }

    /// Whether a peer that does not read has had enough.
    ///
    /// # Errors
    /// Too much waits for it.
    pub(super) fn check_waiting(&self) -> Result<(), Flood> {
        if self.waiting_control > self.limits.outbound_control {
            return Err(Flood::OutboundControl);
        }
        if self.waiting > self.limits.outbound { Err(Flood::Outbound) } else { Ok(()) }
    }
}

impl Bucket {
    fn take(&mut self, limits: Http2Limits) -> Result<(), Flood> {
        if self.left == 0 {
            let now = clock::now();
            let seconds = now.saturating_duration_since(self.filled).as_secs();
            if seconds > 0 {
                self.filled = now;
                self.left = seconds.saturating_mul(limits.reset_rate).min(limits.reset_burst);
            }
        }
        self.left = self.left.checked_sub(1).ok_or(Flood::Resets)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_envoys() {
        let data = |count, ends| Frame::Data { data: 0..count, ends };
        let mut floods = Floods::new(Http2Limits::default());
        assert_eq!(floods.note(&data(0, false), 0, 1), Ok(()));
        assert_eq!(floods.note(&data(1, false), 1, 1), Ok(()));
        assert_eq!(floods.note(&data(0, false), 0, 1), Ok(()));
        assert_eq!(floods.note(&data(0, true), 0, 1), Ok(()));
        assert_eq!(floods.note(&data(0, false), 0, 1), Ok(()));
        assert_eq!(floods.note(&data(0, false), 0, 1), Err(Flood::Empty));

        let mut floods = Floods::new(Http2Limits::default());
        for _ in 0..25 {
            floods.note_sent_data();
        }
        let update = Frame::WindowUpdate(1);
        let taken = (0..1000).take_while(|_| floods.note(&update, 4, 1).is_ok()).count();
        assert_eq!(taken, 5 + 2 * (1 + 10 * 25));
        let taken = (0..1000).take_while(|_| floods.note(&Frame::Priority, 5, 1).is_ok()).count();
        assert_eq!(taken, 200);
        let reset = Frame::Reset(Reason::CANCEL);
        let taken = (0..2000).take_while(|_| floods.note(&reset, 4, 1).is_ok()).count();
        assert_eq!(taken, 1000);
        let taken = (0..1000).take_while(|_| floods.note_premature_reset().is_ok()).count();
        assert_eq!(taken, 250);
    }

    #[test]
    fn what_waits_is_bounded_until_it_is_written() {
        let mut floods = Floods::new(Http2Limits { outbound_control: 2, ..Http2Limits::default() });
        for _ in 0..2 {
            floods.note_sent_control();
        }
        assert_eq!(floods.check_waiting(), Ok(()));
        floods.note_sent_control();
        assert_eq!(floods.check_waiting(), Err(Flood::OutboundControl));
        floods.all_is_written();
        assert_eq!(floods.check_waiting(), Ok(()));
    }
}
