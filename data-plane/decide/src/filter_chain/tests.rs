//! The fixed order, step by step.

use super::{Connection, FilterChainIndex, FilterChainMatch, SourceType};

fn connection<'a>() -> Connection<'a> {
    Connection {
        destination: Some(([10, 0, 0, 1].into(), 80)),
        source: Some(([10, 9, 9, 9].into(), 4000)),
        direct_source: Some([10, 9, 9, 9].into()),
        server_name: "",
        transport_protocol: "raw_buffer",
        application_protocols: &[],
    }
}

fn nets(texts: &[&str]) -> Box<[ipnet::IpNet]> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn strings(texts: &[&str]) -> Box<[Box<str>]> {
    texts.iter().map(|text| Box::from(*text)).collect()
}

fn find(chains: Vec<FilterChainMatch>, connection: Connection<'_>) -> Option<usize> {
    FilterChainIndex::new(chains).unwrap().find(&connection)
}

#[test]
fn ports_come_first_and_there_is_no_way_back() {
    let port = FilterChainMatch {
        destination_port: Some(80),
        transport_protocol: "tls".into(),
        ..Default::default()
    };
    let any = FilterChainMatch::default();
    // The port decides for the first chain, which then refuses the transport.
    assert_eq!(find(vec![port.clone(), any.clone()], connection()), None);
    let other = Connection { destination: Some(([10, 0, 0, 1].into(), 81)), ..connection() };
    assert_eq!(find(vec![port, any], other), Some(1));
}

#[test]
fn the_longest_prefix_wins() {
    let with = |ranges: &[&str]| FilterChainMatch { prefix_ranges: nets(ranges), ..Default::default() };
    let chains = vec![with(&[]), with(&["10.0.0.0/8"]), with(&["10.0.0.1/32"]), with(&["11.0.0.0/8"])];
    assert_eq!(find(chains.clone(), connection()), Some(2));
    let other = |ip: [u8; 4]| Connection { destination: Some((ip.into(), 80)), ..connection() };
    assert_eq!(find(chains.clone(), other([10, 1, 0, 1])), Some(1));
    assert_eq!(find(chains, other([12, 1, 0, 1])), Some(0));
}

#[test]
fn names_rank_exact_then_longest_wildcard() {
    let with = |names: &[&str]| FilterChainMatch { server_names: strings(names), ..Default::default() };
    let chains = vec![with(&["*.com"]), with(&["*.example.com"]), with(&["a.example.com"]), with(&[])];
    let check = |server_name, expected| {
        assert_eq!(
            find(chains.clone(), Connection { server_name, ..connection() }),
            expected,
            "{server_name}"
        );
    };
    check("a.example.com", Some(2));
    check("b.example.com", Some(1));
    check("c.b.example.com", Some(1));
    check("example.com", Some(0));
    check("com", Some(3));
    check("", Some(3));
}

#[test]
fn istio_inbound_permissive() {
    let istio = &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
    let chains = vec![
        FilterChainMatch {
            transport_protocol: "tls".into(),
            application_protocols: strings(istio),
            ..Default::default()
        },
        FilterChainMatch { transport_protocol: "tls".into(), ..Default::default() },
        FilterChainMatch {
            transport_protocol: "raw_buffer".into(),
            application_protocols: strings(&["http/1.1", "h2c"]),
            ..Default::default()
        },
        FilterChainMatch { transport_protocol: "raw_buffer".into(), ..Default::default() },
    ];
    let check = |transport_protocol, application_protocols, expected| {
        let connection = Connection { transport_protocol, application_protocols, ..connection() };
        assert_eq!(
            find(chains.clone(), connection),
            Some(expected),
            "{transport_protocol} {application_protocols:?}"
        );
    };
    check("tls", &["istio-h2", "istio", "h2"], 0);
    check("tls", &["h2"], 1);
    check("tls", &[], 1);
    check("raw_buffer", &["http/1.1"], 2);
    check("raw_buffer", &[], 3);
}

#[test]
fn sources() {
    let of = |source_type| FilterChainMatch { source_type, ..Default::default() };
    let chains = vec![of(SourceType::SameIpOrLoopback), of(SourceType::External), of(SourceType::Any)];
    assert_eq!(find(chains.clone(), connection()), Some(1));
    let local = Connection { source: Some(([127, 0, 0, 1].into(), 1)), ..connection() };
    assert_eq!(find(chains, local), Some(0));
    let ports = FilterChainMatch { source_ports: [4000].into(), ..Default::default() };
    assert_eq!(find(vec![FilterChainMatch::default(), ports], connection()), Some(1));
}

#[test]
fn duplicates_are_refused() {
    assert!(FilterChainIndex::new(vec![FilterChainMatch::default(), FilterChainMatch::default()]).is_err());
}

#[test]
fn chains_that_share_a_connection_are_refused() {
    let names = |names: &[&str]| FilterChainMatch { server_names: strings(names), ..Default::default() };
    let overlap = |one: FilterChainMatch, other: FilterChainMatch| {
        let with = FilterChainMatch { destination_port: Some(1), ..Default::default() };
        FilterChainIndex::new(vec![with, one, other]).err()
    };
    assert_eq!(overlap(names(&["a", "b"]), names(&["b", "c"])), Some(super::Overlap { first: 1, second: 2 }));
    assert_eq!(overlap(names(&["a"]), names(&["*.a", "b"])), None);
    assert_eq!(overlap(names(&["a"]), names(&[])), None);
    let tls = FilterChainMatch { transport_protocol: "tls".into(), ..names(&["a"]) };
    assert_eq!(overlap(names(&["a"]), tls), None);
    let alpn = |values: &[&str]| FilterChainMatch { application_protocols: strings(values), ..names(&["a"]) };
    assert_eq!(overlap(alpn(&["h2"]), alpn(&["http/1.1"])), None);
    assert!(overlap(alpn(&["h2", "http/1.1"]), alpn(&["http/1.1"])).is_some());
}
