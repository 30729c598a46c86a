//! What the kernel knows of a TCP connection. The C library's `tcp_info` has its beginning alone, so its fields are read
//! by their places in `linux/tcp.h`, which never change; what an older kernel does not have is 0.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Up to the last field that is read, and then some.
const SIZE: usize = 256;

/// A part of `struct tcp_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpInfo {
    pub(crate) unacked: u32,
    pub(crate) rtt: u32,
    pub(crate) rtt_variance: u32,
    pub(crate) total_retransmitted: u32,
    pub(crate) bytes_received: u64,
    pub(crate) segments_out: u32,
    pub(crate) segments_in: u32,
    pub(crate) unsent_bytes: u32,
    pub(crate) data_segments_in: u32,
    pub(crate) data_segments_out: u32,
    pub(crate) bytes_sent: u64,
}

impl TcpInfo {
    /// Asks the kernel; `None`: it is no TCP socket.
    #[expect(unsafe_code, reason = "no safe wrapper returns TCP_INFO")]
    pub(crate) fn of(socket: BorrowedFd<'_>) -> Option<Self> {
        let mut bytes = [0_u8; SIZE];
        let mut length = libc::socklen_t::try_from(SIZE).ok()?;
        // SAFETY: the kernel writes at most `length` bytes, which `bytes` has; the descriptor is borrowed, hence open.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                bytes.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        (result == 0).then(|| Self::read(&bytes))
    }

    fn read(bytes: &[u8; SIZE]) -> Self {
        let int =
            |at: usize| bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map(u32::from_ne_bytes);
        let long =
            |at: usize| bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_ne_bytes);
        let (int, long) = (|at| int(at).unwrap_or(0), |at| long(at).unwrap_or(0));
        Self {
            unacked: int(24),
            rtt: int(68),
            rtt_variance: int(72),
            total_retransmitted: int(100),
            bytes_received: long(128),
            segments_out: int(136),
            segments_in: int(140),
            unsent_bytes: int(144),
            data_segments_in: int(152),
            data_segments_out: int(156),
            bytes_sent: long(200),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_kernel_counts_both_directions() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut bytes = [0; 10];
        for _ in 0..3 {
            client.write_all(&bytes).unwrap();
            server.read_exact(&mut bytes).unwrap();
        }
        server.write_all(b"four").unwrap();
        client.read_exact(&mut bytes[..4]).unwrap();
        let info = TcpInfo::of(client.as_fd()).unwrap();
        // The byte beyond is the handshake's.
        assert!((30..=31).contains(&info.bytes_sent), "{info:?}");
        assert!((4..=5).contains(&info.bytes_received), "{info:?}");
        assert_eq!((info.data_segments_out, info.data_segments_in, info.total_retransmitted), (3, 1, 0));
        assert!(info.segments_out >= 4 && info.segments_in >= 2 && info.rtt > 0, "{info:?}");
        assert_eq!((info.unsent_bytes, info.unacked), (0, 0));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(TcpInfo::of(file.as_fd()), None);
    }
}
