//! Which filter chain takes a connection: Envoy's match in its fixed order.
//!
//! The order is destination port, destination address, server name, transport protocol, application protocol, directly
//! connected address, source type, source address, source port. Each step keeps the chains whose criterion matches most
//! specifically and goes on with those alone: there is no way back, exactly as in Envoy.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// What a filter chain asks of a connection; empty criteria match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// The port that was connected to.
    pub destination_port: Option<u16>,
    /// Where the connection goes.
    pub prefix_ranges: Box<[IpNet]>,
    /// The SNI: `a.example.com`, or `*.example.com` for all below it; lower-case.
    pub server_names: Box<[Box<str>]>,
    /// `tls`, `raw_buffer`; empty for any.
    pub transport_protocol: Box<str>,
    /// ALPN values, offered in TLS or found by the HTTP inspector.
    pub application_protocols: Box<[Box<str>]>,
    /// Where the TCP connection comes from, before PROXY protocol.
    pub direct_source_prefix_ranges: Box<[IpNet]>,
    /// Whether the peer is this host.
    pub source_type: SourceType,
    /// Where the connection comes from.
    pub source_prefix_ranges: Box<[IpNet]>,
    /// The port it comes from.
    pub source_ports: Box<[u16]>,
}

/// `FilterChainMatch.ConnectionSourceType`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceType {
    /// Any source.
    #[default]
    Any,
    /// From this host: a loopback address, or source and destination are the same.
    SameIpOrLoopback,
    /// From elsewhere.
    External,
}

/// A connection as matching sees it, after its listener filters ran.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// The destination, restored by `original_dst` where there is one; `None` for Unix sockets.
    pub destination: Option<(IpAddr, u16)>,
    /// The source; `None` for Unix sockets.
    pub source: Option<(IpAddr, u16)>,
    /// The source before PROXY protocol.
    pub direct_source: Option<IpAddr>,
    /// The SNI, lower-case; empty for none.
    pub server_name: &'a str,
    /// `tls` if the TLS inspector found it, else `raw_buffer`; empty if no inspector ran.
    pub transport_protocol: &'a str,
    /// ALPN values.
    pub application_protocols: &'a [&'a str],
}

/// The matches of a listener's chains, ready for look-up. A chain is named by its index in the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterChainIndex {
    matches: Box<[FilterChainMatch]>,
    /// Chains sorted by destination port, those without one at the end: a listener like Istio's inbound one has a set
    /// of chains for each port, and only one set needs to be looked at.
    by_port: Box<[(u16, usize)]>,
    any_port: Box<[usize]>,
}

/// Two chains ask the same of some connections, and nothing says which of them takes those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter chains {first} and {second} match the same connections")]
pub struct Overlap {
    /// The first.
    pub first: usize,
    /// The second.
    pub second: usize,
}

/// Whether the chains of each connection can be told apart, as Envoy has it: two chains overlap if they share a value of
/// every criterion.
fn check(matches: &[FilterChainMatch]) -> Result<(), Overlap> {
    // Most are told apart by these two, and a gateway may have thousands.
    let mut by_name: HashMap<(Option<u16>, &str), Vec<usize>> = HashMap::new();
    for (second, entry) in matches.iter().enumerate() {
        let names = entry.server_names.iter().map(|name| &**name);
        let none = entry.server_names.is_empty().then_some("");
        for name in names.chain(none) {
            let earlier = by_name.entry((entry.destination_port, name)).or_default();
            if let Some(first) = earlier.iter().find(|first| entry.shares_the_rest_with(&matches[**first])) {
                return Err(Overlap { first: *first, second });
            }
            earlier.push(second);
        }
    }
    Ok(())
}

impl FilterChainMatch {
    /// Whether there is a common value of each criterion but port and server name.
    fn shares_the_rest_with(&self, other: &Self) -> bool {
        shares(&self.prefix_ranges, &other.prefix_ranges)
            && self.transport_protocol == other.transport_protocol
            && shares(&self.application_protocols, &other.application_protocols)
            && shares(&self.direct_source_prefix_ranges, &other.direct_source_prefix_ranges)
            && self.source_type == other.source_type
            && shares(&self.source_prefix_ranges, &other.source_prefix_ranges)
            && shares(&self.source_ports, &other.source_ports)
    }
}

/// Whether two criteria have a value in common; that nothing is asked is a value, too.
fn shares<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    (one.is_empty() && other.is_empty()) || one.iter().any(|value| other.contains(value))
}

impl FilterChainIndex {
    /// Indexes the matches.
    ///
    /// # Errors
    /// Two of them overlap.
    pub fn new(matches: Vec<FilterChainMatch>) -> Result<Self, Overlap> {
        check(&matches)?;
        let mut by_port: Vec<_> = matches
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| Some((entry.destination_port?, index)))
            .collect();
        by_port.sort_unstable();
        let any_port = matches.iter().enumerate().filter(|(_, entry)| entry.destination_port.is_none());
        Ok(Self {
            any_port: any_port.map(|(index, _)| index).collect(),
            by_port: by_port.into(),
            matches: matches.into(),
        })
    }

    /// The chain for a connection; `None` leaves it to the default chain.
    pub fn find(&self, connection: &Connection<'_>) -> Option<usize> {
        let port = connection.destination.map(|(_, port)| port);
        let of_port = port.map_or(&[][..], |port| {
            let start = self.by_port.partition_point(|(candidate, _)| *candidate < port);
            let end = self.by_port.partition_point(|(candidate, _)| *candidate <= port);
            &self.by_port[start..end]
        });
        let mut chains: smallvec::SmallVec<[usize; 16]> = if of_port.is_empty() {
            self.any_port.iter().copied().collect()
        } else {
            of_port.iter().map(|(_, index)| *index).collect()
        };
        let destination = connection.destination.map(|(ip, _)| ip.to_canonical());
        let source = connection.source.map(|(ip, _)| ip.to_canonical());
        let keep = |chains: &mut smallvec::SmallVec<[usize; 16]>,
                    rank: &dyn Fn(&FilterChainMatch) -> Option<u32>| {
            let best = chains.iter().filter_map(|index| rank(&self.matches[*index])).max();
            chains.retain(|index| best.is_some() && rank(&self.matches[*index]) == best);
        };
        keep(&mut chains, &|entry| prefix_rank(&entry.prefix_ranges, destination));
        keep(&mut chains, &|entry| name_rank(&entry.server_names, connection.server_name));
        keep(&mut chains, &|entry| protocol_rank(&entry.transport_protocol, connection.transport_protocol));
        keep(&mut chains, &|entry| alpn_rank(&entry.application_protocols, connection.application_protocols));
        keep(&mut chains, &|entry| {
            prefix_rank(
                &entry.direct_source_prefix_ranges,
                connection.direct_source.map(|ip| ip.to_canonical()),
            )
        });
        keep(&mut chains, &|entry| source_type_rank(entry.source_type, source, destination));
        keep(&mut chains, &|entry| prefix_rank(&entry.source_prefix_ranges, source));
        keep(&mut chains, &|entry| port_rank(&entry.source_ports, connection.source.map(|(_, port)| port)));
        chains.first().copied()
    }

    /// The matches, in the listener's order.
    pub fn matches(&self) -> &[FilterChainMatch] {
        &self.matches
    }
}

/// The longest prefix that holds the address; a chain without prefixes holds every address, at the lowest rank.
fn prefix_rank(prefixes: &[IpNet], ip: Option<IpAddr>) -> Option<u32> {
    if prefixes.is_empty() {
        return Some(0);
    }
    let ip = ip?;
    prefixes
        .iter()
        .filter(|prefix| prefix.contains(&ip))
        .map(|prefix| u32::from(prefix.prefix_len()) + 1)
        .max()
}

/// An exact name ranks above every wildcard, a longer wildcard above a shorter one, no name at the bottom.
fn name_rank(names: &[Box<str>], sni: &str) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    names.iter().filter_map(|name| name_matches(name, sni)).max()
}

fn name_matches(name: &str, sni: &str) -> Option<u32> {
    match name.strip_prefix('*') {
        None => (name == sni).then_some(u32::MAX),
        Some(suffix) => {
            let below = sni.len() > suffix.len() && sni.ends_with(suffix);
            below.then(|| u32::try_from(suffix.len()).unwrap_or(u32::MAX - 1).max(1))
        }
    }
}

fn protocol_rank(wanted: &str, found: &str) -> Option<u32> {
    if wanted.is_empty() { Some(0) } else { (wanted == found).then_some(1) }
}

/// Envoy goes through the connection's protocols in their order and takes the first that any chain names.
fn alpn_rank(wanted: &[Box<str>], offered: &[&str]) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let position = offered.iter().position(|offer| wanted.iter().any(|name| **name == **offer))?;
    Some(u32::MAX - u32::try_from(position).unwrap_or(u32::MAX - 1))
}

fn source_type_rank(wanted: SourceType, source: Option<IpAddr>, destination: Option<IpAddr>) -> Option<u32> {
    let local = match source {
        Some(ip) => ip.is_loopback() || destination == Some(ip),
        // Unix sockets come from this host.
        None => true,
    };
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    }
}

fn port_rank(wanted: &[u16], found: Option<u16>) -> Option<u32> {
    if wanted.is_empty() { Some(0) } else { found.is_some_and(|port| wanted.contains(&port)).then_some(1) }
}

#[cfg(test)]
mod tests;
