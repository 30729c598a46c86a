//! The machine's own address, as others may know it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first address of the interfaces that is of this family and not *the* loopback address; where there is none, the
/// loopback address.
pub(crate) fn address(v6: bool) -> IpAddr {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    first(
        v6,
        interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        }),
    )
}

/// Whether this is the loopback address.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    // Others of 127.0.0.0/8 tell something: Envoy takes them as any address.
    address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address == IpAddr::V6(Ipv6Addr::LOCALHOST)
}

fn first(v6: bool, mut all: impl Iterator<Item = IpAddr>) -> IpAddr {
    let none = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    all.find(|address| address.is_ipv6() == v6 && !is_loopback(*address)).unwrap_or(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_family_that_is_not_loopback() {
        let check = |v6, all: &[&str], expect: &str| {
            let all = all.iter().map(|address| address.parse().unwrap());
            assert_eq!(first(v6, all).to_string(), expect);
        };
        let host = ["127.0.0.1", "::1", "fd00::2", "192.0.2.2", "10.0.0.1", "fe80::1"];
        check(false, &host, "192.0.2.2");
        check(true, &host, "fd00::2");
        check(false, &["127.0.0.1", "127.0.0.5", "10.0.0.1"], "127.0.0.5");
        check(false, &["127.0.0.1", "::1"], "127.0.0.1");
        check(true, &[], "::1");
    }
}
