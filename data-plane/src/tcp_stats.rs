//! `envoy.transport_sockets.tcp_stats`: counts what the kernel tells of connections, from time to time and at their end.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use base::task::Supervised;
use sail_proxy_config::tls::TcpStats;

use crate::net::tcp_info::TcpInfo;
use crate::stats::sets::{cluster_tcp_stats, listener_tcp_stats};
use crate::stats::{Counter, Gauge, Histogram, Scope, StatSet};

/// The names of one side's statistics.
pub(crate) struct Names<S> {
    tx_segments: Counter<S>,
    rx_segments: Counter<S>,
    tx_data_segments: Counter<S>,
    rx_data_segments: Counter<S>,
    tx_retransmitted_segments: Counter<S>,
    rx_bytes_received: Counter<S>,
    tx_bytes_sent: Counter<S>,
    tx_unsent_bytes: Gauge<S>,
    tx_unacked_segments: Gauge<S>,
    tx_percent_retransmitted_segments: Histogram<S>,
    rtt_us: Histogram<S>,
    rtt_variance_us: Histogram<S>,
}

/// A side that has these statistics.
pub(crate) trait Side: StatSet + Sized {
    const NAMES: Names<Self>;
}

macro_rules! side {
    ($set:ident) => {
        impl Side for $set::Set {
            const NAMES: Names<Self> = Names {
                tx_segments: $set::cx_tx_segments,
                rx_segments: $set::cx_rx_segments,
                tx_data_segments: $set::cx_tx_data_segments,
                rx_data_segments: $set::cx_rx_data_segments,
                tx_retransmitted_segments: $set::cx_tx_retransmitted_segments,
                rx_bytes_received: $set::cx_rx_bytes_received,
                tx_bytes_sent: $set::cx_tx_bytes_sent,
                tx_unsent_bytes: $set::cx_tx_unsent_bytes,
                tx_unacked_segments: $set::cx_tx_unacked_segments,
                tx_percent_retransmitted_segments: $set::cx_tx_percent_retransmitted_segments,
                rtt_us: $set::cx_rtt_us,
                rtt_variance_us: $set::cx_rtt_variance_us,
            };
        }
    };
}

side!(listener_tcp_stats);
side!(cluster_tcp_stats);

/// A connection that is asked about; its end is this one's, or the socket stays open.
pub(crate) struct Sampled<S: Side> {
    socket: Rc<Socket<S>>,
    _task: Option<Supervised<()>>,
}

struct Socket<S: Side> {
    handle: OwnedFd,
    stats: Scope<S>,
    last: Cell<TcpInfo>,
}

impl<S: Side> std::fmt::Debug for Sampled<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampled").field("last", &self.socket.last).finish_non_exhaustive()
    }
}

impl<S: Side> Sampled<S> {
    /// `None`: nothing is known of this socket.
    pub(crate) fn new(config: TcpStats, socket: BorrowedFd<'_>, stats: Scope<S>) -> Option<Self> {
        TcpInfo::of(socket)?;
        let handle = socket.try_clone_to_owned().ok()?;
        let socket = Rc::new(Socket { handle, stats, last: Cell::default() });
        let asked = Rc::downgrade(&socket);
        let task = config.update_period.map(|period| {
            Supervised::spawn_local(async move {
                loop {
                    tokio::time::sleep(period).await;
                    let Some(socket) = asked.upgrade() else { return };
                    socket.sample();
                }
            })
        });
        Some(Self { socket, _task: task })
    }
}

impl<S: Side> Drop for Sampled<S> {
    fn drop(&mut self) {
        self.socket.sample();
        // Whatever the kernel says: a connection that is gone has nothing left to send.
        let last = self.socket.last.get();
        self.socket.count(&last, &TcpInfo { unsent_bytes: 0, unacked: 0, ..last });
    }
}

impl<S: Side> Socket<S> {
    fn sample(&self) {
        let Some(now) = TcpInfo::of(self.handle.as_fd()) else { return };
        let last = self.last.replace(now);
        let (names, stats) = (S::NAMES, &self.stats);
        if let Some(percent) = retransmitted(&last, &now) {
            stats.record(names.tx_percent_retransmitted_segments, percent);
        }
        self.count(&last, &now);
        stats.record(names.rtt_us, now.rtt.into());
        stats.record(names.rtt_variance_us, now.rtt_variance.into());
    }

    fn count(&self, last: &TcpInfo, now: &TcpInfo) {
        let (names, stats) = (S::NAMES, &self.stats);
        let counted = |counter, before: u64, after: u64| stats.add(counter, after.saturating_sub(before));
        counted(names.tx_segments, last.segments_out.into(), now.segments_out.into());
        counted(names.rx_segments, last.segments_in.into(), now.segments_in.into());
        counted(names.tx_data_segments, last.data_segments_out.into(), now.data_segments_out.into());
        counted(names.rx_data_segments, last.data_segments_in.into(), now.data_segments_in.into());
        let (before, after) = (last.total_retransmitted, now.total_retransmitted);
        counted(names.tx_retransmitted_segments, before.into(), after.into());
        counted(names.rx_bytes_received, last.bytes_received, now.bytes_received);
        counted(names.tx_bytes_sent, last.bytes_sent, now.bytes_sent);
        let moved =
            |gauge, before: u32, after: u32| stats.move_by(gauge, i64::from(after) - i64::from(before));
        moved(names.tx_unsent_bytes, last.unsent_bytes, now.unsent_bytes);
        moved(names.tx_unacked_segments, last.unacked, now.unacked);
    }
}

/// How many of the segments since were sent again, in percent; `None` where none was sent.
fn retransmitted(last: &TcpInfo, now: &TcpInfo) -> Option<u64> {
    let sent = now.data_segments_out.checked_sub(last.data_segments_out).filter(|sent| *sent > 0)?;
    let again = now.total_retransmitted.checked_sub(last.total_retransmitted)?;
    Some(u64::from(again) * 100 / u64::from(sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_is_a_share_of_what_is_sent() {
        let info = |data_segments_out, total_retransmitted| TcpInfo {
            data_segments_out,
            total_retransmitted,
            ..TcpInfo::default()
        };
        let share =
            |from: (u32, u32), to: (u32, u32)| retransmitted(&info(from.0, from.1), &info(to.0, to.1));
        assert_eq!(share((0, 0), (8, 2)), Some(25));
        assert_eq!(share((10, 2), (20, 2)), Some(0));
        assert_eq!(share((10, 2), (10, 3)), None);
    }
}
