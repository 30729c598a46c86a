//! Where a redirected connection was going before the kernel's NAT table sent it here.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// `IP6T_SO_ORIGINAL_DST`; the same number as for IPv4.
const SO_ORIGINAL_DST: libc::c_int = 80;

/// The destination before redirection. `None` when the connection was not redirected, which the kernel tells either
/// by an error or by the local address itself.
pub(crate) fn original_dst(socket: &impl AsFd, local: SocketAddr) -> Option<SocketAddr> {
    let found = match local {
        SocketAddr::V4(_) => v4(socket).map(SocketAddr::V4),
        // An IPv4 client of a dual-stack socket was translated by the IPv4 table.
        SocketAddr::V6(v6_local) if v6_local.ip().to_ipv4_mapped().is_some() => {
            v4(socket).map(SocketAddr::V4)
        }
        SocketAddr::V6(_) => v6(socket).map(SocketAddr::V6),
    };
    found.ok().filter(|found| found.port() != 0)
}

fn v4(socket: &impl AsFd) -> io::Result<SocketAddrV4> {
    let raw: libc::sockaddr_in = option(socket, libc::SOL_IP)?;
    Ok(SocketAddrV4::new(Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)), u16::from_be(raw.sin_port)))
}

fn v6(socket: &impl AsFd) -> io::Result<SocketAddrV6> {
    let raw: libc::sockaddr_in6 = option(socket, libc::SOL_IPV6)?;
    Ok(SocketAddrV6::new(
        Ipv6Addr::from(raw.sin6_addr.s6_addr),
        u16::from_be(raw.sin6_port),
        0,
        raw.sin6_scope_id,
    ))
}

/// Reads `SO_ORIGINAL_DST` at one level; `T` is the address structure of that level.
#[expect(unsafe_code, reason = "no safe wrapper returns the address of a connection that was not redirected")]
fn option<T: Copy>(socket: &impl AsFd, level: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the buffer is `length` bytes long and outlives the call; the descriptor is borrowed, hence open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            SO_ORIGINAL_DST,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: T is one of the kernel's plain address structures, for which every bit pattern (and zero) is valid.
    Ok(unsafe { value.assume_init() })
}
