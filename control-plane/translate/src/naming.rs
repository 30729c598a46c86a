//! Names of listeners, clusters and routes: what users read in statistics, logs and `proxy-config`.

/// The cluster that leads wherever the client wanted.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// The cluster that leads nowhere.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// The cluster for inbound ports that no service names.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// The listener that captured outbound connections come to.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// The listener that captured inbound connections come to.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";

/// `outbound|9080|v1|reviews.default.svc.cluster.local`.
pub fn outbound(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `outbound_.9080_.v1_.reviews.default.svc.cluster.local`: the same, as a server name.
pub fn outbound_sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|9080||`.
pub fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The parts of an outbound cluster's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outbound<'a> {
    /// The service's port.
    pub port: u16,
    /// The subset, or nothing.
    pub subset: &'a str,
    /// The host name.
    pub host: &'a str,
    /// It is written as a server name.
    pub sni: bool,
}

/// Reads the name of an outbound cluster.
pub fn parse_outbound(name: &str) -> Option<Outbound<'_>> {
    let (sni, separator) = if name.starts_with("outbound_.") { (true, "_.") } else { (false, "|") };
    let mut parts = name.splitn(4, separator);
    if parts.next() != Some("outbound") {
        return None;
    }
    let port = parts.next()?.parse().ok()?;
    Some(Outbound { port, subset: parts.next()?, host: parts.next()?, sni })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_they_are_written() {
        let host = "reviews.default.svc.cluster.local";
        let expect = Outbound { port: 9080, subset: "v1", host, sni: false };
        assert_eq!(parse_outbound(&outbound(9080, "v1", host)), Some(expect));
        assert_eq!(parse_outbound(&outbound_sni(9080, "v1", host)), Some(Outbound { sni: true, ..expect }));
        assert_eq!(parse_outbound("inbound|80||"), None);
        assert_eq!(parse_outbound(PASSTHROUGH), None);
    }
}
