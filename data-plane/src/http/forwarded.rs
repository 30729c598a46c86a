//! `x-forwarded-for` and its kin: who the client is when proxies stand between, and which of its headers are believed.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue};
use sail_proxy_config::hcm::ClientAddress;
use sail_proxy_decide::address::CidrSet;

use super::scan::Present;
use crate::net::local::is_loopback;
use crate::stream_info::DownstreamInfo;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// Headers that are taken from requests that come from outside the mesh's edge.
const EDGE: [&str; 5] = [
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-decorator-operation",
    "x-envoy-original-path",
    "x-envoy-original-host",
];

/// Headers by which only internal clients may control the proxy.
const INTERNAL_ONLY: [&str; 14] = [
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
];

/// What the connection tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connected {
    /// Who is at the other end; without an address, so to say, where that is a Unix socket's.
    pub(crate) peer: SocketAddr,
    /// Where it connected to.
    pub(crate) local: SocketAddr,
    /// The address by which this machine is known.
    pub(crate) host: IpAddr,
    pub(crate) tls: bool,
}

/// What becomes of the headers besides `x-forwarded-for`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Further {
    /// `x-forwarded-port` is written.
    pub(crate) append_port: bool,
    /// What the request has.
    pub(crate) present: Present,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// From an internal address.
    pub(crate) internal: bool,
    /// From outside, at the edge.
    pub(crate) edge: bool,
}

/// Applies the configuration; where the client is not the peer, the request gets downstream information of its own.
pub(crate) fn apply(
    headers: &mut HeaderMap,
    config: &ClientAddress,
    further: Further,
    connected: Connected,
    downstream: &mut Rc<DownstreamInfo>,
) -> Origin {
    let peer = connected.peer.ip();
    let (client, trusted) = client(headers, config, further, peer);
    let address = client.unwrap_or(peer);
    let unix = peer.is_unspecified();
    let appends = if config.use_remote_address { !config.skip_xff_append } else { config.append_to_xff };
    if appends && !unix {
        // To whom the request goes, "from the loopback address" would mean from himself.
        append(headers, if is_loopback(peer) { connected.host } else { peer });
    }
    let edge_hop = config.use_remote_address && config.xff_num_trusted_hops == 0;
    if edge_hop || !further.present.forwarded_proto {
        headers
            .insert(FORWARDED_PROTO, HeaderValue::from_static(if connected.tls { "https" } else { "http" }));
    }
    if further.append_port && !unix && (edge_hop || !headers.contains_key(FORWARDED_PORT)) {
        headers.insert(FORWARDED_PORT, HeaderValue::from(connected.local.port()));
    }
    // Nothing but the peer itself is without an address.
    let nameless = unix && client.is_none();
    let internal =
        trusted && if nameless { config.unix_sockets_are_internal } else { is_internal(config, address) };
    let edge = !internal && config.use_remote_address;
    if internal {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else if further.present.control {
        clean(headers, edge);
    }
    if edge
        && !nameless
        && let Ok(value) = HeaderValue::from_str(&address.to_string())
    {
        headers.insert(EXTERNAL_ADDRESS, value);
    }
    if address != peer {
        replace(downstream, address);
    }
    Origin { internal, edge }
}

/// The client's address, if it is not the peer's, and whether it may count as internal.
fn client(
    headers: &HeaderMap,
    config: &ClientAddress,
    further: Further,
    peer: IpAddr,
) -> (Option<IpAddr>, bool) {
    let hops = config.xff_num_trusted_hops;
    if config.use_remote_address {
        let trusted = hops > 0 && further.present.forwarded_for;
        let found = if trusted { nth_from_last(headers, hops - 1) } else { None };
        // What stands before us came through others, whose word on being internal counts for nothing.
        return (found.filter(|address| *address != peer), !further.present.forwarded_for);
    }
    if let Some(name) = &config.custom_header {
        let found = address_in(headers, name);
        return (found, found.is_some() && config.custom_header_is_trusted);
    }
    if !further.present.forwarded_for {
        return (None, false);
    }
    let single = headers.get_all(FORWARDED_FOR).iter().count() == 1
        && headers.get(FORWARDED_FOR).is_some_and(|value| !value.as_bytes().contains(&b','));
    if let Some(trusted) = &config.xff_trusted_cidrs {
        let found = first_untrusted(headers, trusted, peer);
        return (found, found.is_some() && single);
    }
    (nth_from_last(headers, hops), single)
}

fn is_internal(config: &ClientAddress, address: IpAddr) -> bool {
    config.internal.as_ref().is_some_and(|ranges| ranges.contains(address))
}

/// The address that a header names.
pub(crate) fn address_in(headers: &HeaderMap, name: &HeaderName) -> Option<IpAddr> {
    headers.get(name)?.to_str().ok().map(str::trim).and_then(parse)
}

/// Removes what only internal clients may say.
fn clean(headers: &mut HeaderMap, edge: bool) {
    headers.remove(INTERNAL);
    if edge {
        for name in EDGE {
            headers.remove(name);
        }
    }
    for name in INTERNAL_ONLY {
        headers.remove(name);
    }
}

fn replace(downstream: &mut Rc<DownstreamInfo>, client: IpAddr) {
    let info = &**downstream;
    *downstream = Rc::new(DownstreamInfo { remote_address: SocketAddr::new(client, 0), ..info.clone() });
}

/// The address so many places from the header's end.
fn nth_from_last(headers: &HeaderMap, places: u32) -> Option<IpAddr> {
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().ok()).collect::<Option<_>>()?;
    let text = lines.iter().rev().flat_map(|line| line.rsplit(',')).nth(places as usize)?;
    parse(text.trim())
}

/// The last address that is no trusted proxy's, or the first of all; `None` where the peer is none of these proxies.
fn first_untrusted(headers: &HeaderMap, trusted: &CidrSet, peer: IpAddr) -> Option<IpAddr> {
    if !trusted.contains(peer) {
        return None;
    }
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().ok()).collect::<Option<_>>()?;
    let mut last = None;
    for text in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let address = parse(text.trim())?;
        if !trusted.contains(address) {
            return Some(address);
        }
        last = Some(address);
    }
    last
}

fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

fn append(headers: &mut HeaderMap, peer: IpAddr) {
    let before = sail_proxy_decide::head::joined(headers, &FORWARDED_FOR);
    let text = match before.as_deref().map(std::str::from_utf8) {
        Some(Ok(before)) if !before.is_empty() => format!("{before},{peer}"),
        _ => peer.to_string(),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(FORWARDED_FOR, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        config: &ClientAddress,
        pairs: &[(&'static str, &'static str)],
        peer: &str,
    ) -> (HeaderMap, Origin, IpAddr) {
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let connected = Connected {
            peer: SocketAddr::new(peer.parse().unwrap(), 1),
            local: "10.0.0.2:8080".parse().unwrap(),
            host: "10.0.0.9".parse().unwrap(),
            tls: false,
        };
        let mut downstream = crate::access_log::tests::downstream();
        let further = Further { append_port: true, present: Present::of(&headers) };
        let origin = apply(&mut headers, config, further, connected, &mut downstream);
        (headers, origin, downstream.remote_address.ip())
    }

    fn private() -> ClientAddress {
        let ranges = sail_proxy_decide::address::CidrSet::new(["10.0.0.0/8".parse().unwrap()]);
        ClientAddress { internal: Some(ranges), ..ClientAddress::default() }
    }

    fn edge(hops: u32) -> ClientAddress {
        ClientAddress { use_remote_address: true, xff_num_trusted_hops: hops, ..private() }
    }

    #[test]
    fn at_the_edge_nobody_is_believed() {
        let sent = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-envoy-max-retries", "9"),
            ("x-envoy-internal", "true"),
            ("x-envoy-decorator-operation", "o"),
        ];
        let (headers, origin, _) = run(&edge(0), &sent, "192.0.2.1");
        assert_eq!(origin, Origin { internal: false, edge: true });
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1,192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-port"], "8080");
        assert_eq!(headers["x-envoy-external-address"], "192.0.2.1");
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn internal_clients_are_marked() {
        let (headers, origin, _) = run(&edge(0), &[("x-envoy-max-retries", "9")], "10.1.2.3");
        assert_eq!(origin, Origin { internal: true, edge: false });
        assert_eq!(
            (&headers["x-envoy-internal"], &headers["x-envoy-max-retries"]),
            (&"true".parse().unwrap(), &"9".parse().unwrap())
        );
        let none = private();
        assert!(run(&none, &[("x-forwarded-for", "10.9.9.9")], "192.0.2.1").1.internal);
        assert!(!run(&none, &[("x-forwarded-for", "10.9.9.9,10.1.1.1")], "192.0.2.1").1.internal);
    }

    #[test]
    fn a_loopback_address_is_told_as_the_machines() {
        for (peer, expect) in [("127.0.0.1", "10.0.0.9"), ("::1", "10.0.0.9"), ("127.0.0.2", "127.0.0.2")] {
            let (headers, ..) = run(&edge(0), &[], peer);
            assert_eq!(headers["x-forwarded-for"], expect);
            assert_eq!(headers["x-envoy-external-address"], peer);
        }
    }

    /// What Envoy does with requests that come over a Unix socket.
    #[test]
    fn a_unix_socket_has_no_address_to_tell() {
        let open = sail_proxy_decide::address::CidrSet::new(["0.0.0.0/0".parse().unwrap()]);
        let config =
            |unix| ClientAddress { unix_sockets_are_internal: unix, internal: Some(open.clone()), ..edge(0) };
        let (headers, origin, _) = run(&config(false), &[], "0.0.0.0");
        assert_eq!(origin, Origin { internal: false, edge: true });
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-forwarded-proto"]);
        let (headers, origin, _) = run(&config(true), &[], "0.0.0.0");
        assert!(origin.internal);
        assert_eq!(headers["x-envoy-internal"], "true");
        let (headers, origin, _) = run(&config(true), &[("x-forwarded-for", "10.1.1.1")], "0.0.0.0");
        assert!(!origin.internal);
        assert_eq!(headers["x-forwarded-for"], "10.1.1.1");
        assert!(!headers.contains_key("x-envoy-external-address"));
    }

    #[test]
    fn places_are_counted_from_the_end() {
        let check = |config: &ClientAddress, expect: &str| {
            let sent = [("x-forwarded-for", "10.0.0.1, 10.0.0.2,10.0.0.3")];
            assert_eq!(run(config, &sent, "192.0.2.1").2.to_string(), expect);
        };
        let behind = |hops| ClientAddress { xff_num_trusted_hops: hops, ..ClientAddress::default() };
        check(&behind(0), "10.0.0.3");
        check(&behind(2), "10.0.0.1");
        check(&edge(1), "10.0.0.3");
        check(&edge(2), "10.0.0.2");
    }
}
