//! What HTTP/2 connections count in: those of clients in `http2.`, those of a cluster in `cluster.<name>.http2.`.

use super::floods::Flood;
use crate::stats::sets::{cluster, cluster_http2, http2};

/// See the module's documentation.
#[derive(Clone)]
pub(crate) enum Counts {
    OfClients(http2::Scope),
    OfCluster { http2: cluster_http2::Scope, cluster: cluster::Scope },
}

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident = $counter:ident,)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Event {
            $($(#[$doc])* $event,)*
        }

        impl Counts {
            pub(super) fn inc(&self, event: Event) {
                match self {
                    Self::OfClients(stats) => match event {
                        $(Event::$event => stats.inc(http2::$counter),)*
                    },
                    Self::OfCluster { http2, .. } => match event {
                        $(Event::$event => http2.inc(cluster_http2::$counter),)*
                    },
                }
            }
        }
    };
}

events! {
    /// The peer reset a stream.
    ResetReceived = rx_reset,
    /// We did.
    ResetSent = tx_reset,
    /// A request had trailers.
    Trailers = trailers,
    /// A message broke the rules.
    BadMessage = rx_messaging_error,
    /// A head had too many fields.
    TooManyFields = header_overflow,
    /// A head was too large.
    HeadTooLarge = header_list_size_too_large,
    /// There was no place for a stream.
    StreamRefused = stream_refused_errors,
    /// The peer was told of the last stream.
    GoAwaySent = goaway_sent,
    /// A ping had no answer.
    KeepaliveTimeout = keepalive_timeout,
    EmptyFramesFlood = inbound_empty_frames_flood,
    PriorityFlood = inbound_priority_frames_flood,
    WindowUpdateFlood = inbound_window_update_frames_flood,
    OutboundControlFlood = outbound_control_flood,
    OutboundFlood = outbound_flood,
    /// A peer did not take a body's end.
    FlushTimeout = tx_flush_timeout,
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}

impl Counts {
    /// We gave up what an upstream was asked.
    pub(super) fn note_reset_sent(&self) {
        self.inc(Event::ResetSent);
        if let Self::OfCluster { cluster, .. } = self {
            cluster.inc(cluster::upstream_rq_tx_reset);
        }
    }

    /// An upstream takes its leave.
    pub(super) fn note_goaway(&self) {
        if let Self::OfCluster { cluster, .. } = self {
            cluster.inc(cluster::upstream_cx_close_notify);
        }
    }

    /// An upstream broke the rules while so many streams were open.
    pub(super) fn note_violation(&self, open: usize) {
        if let Self::OfCluster { cluster, .. } = self {
            cluster.inc(cluster::upstream_cx_protocol_error);
            cluster.add(cluster::upstream_rq_tx_reset, open as u64);
        }
    }

    /// The peer begins or ends a stream, or we do.
    pub(super) fn move_streams(&self, by: i64) {
        match self {
            Self::OfClients(stats) => stats.move_by(http2::streams_active, by),
            Self::OfCluster { http2, .. } => http2.move_by(cluster_http2::streams_active, by),
        }
    }

    /// A limit was passed.
    pub(super) fn note_flood(&self, flood: Flood) {
        match flood {
            Flood::Outbound => self.inc(Event::OutboundFlood),
            Flood::OutboundControl => self.inc(Event::OutboundControlFlood),
            Flood::Empty => self.inc(Event::EmptyFramesFlood),
            Flood::Priorities => self.inc(Event::PriorityFlood),
            Flood::Updates => self.inc(Event::WindowUpdateFlood),
            // They have counters elsewhere, or none.
            Flood::Resets | Flood::PrematureResets => {}
        }
    }
}
