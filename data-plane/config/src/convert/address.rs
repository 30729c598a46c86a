//! Addresses, ranges, socket options.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use sail_proxy_decide::address::{Address, AddressMatch, CidrSet};

use super::{Cx, arc, values};
use crate::listener::{SocketOption, SocketOptionValue, SocketState, TcpKeepalive};
use crate::pb;

/// An address that may still be a name.
pub(crate) enum Named {
    Address(Address),
    Host(String, u16),
}

/// `Address`, with host names let through.
pub(crate) fn named(cx: &mut Cx<'_>, value: pb::core::Address) -> Option<Named> {
    use pb::core::address::Address as Kind;
    match value.address {
        Some(Kind::SocketAddress(value)) => cx.within("socket_address", |cx| socket_address(cx, value)),
        Some(Kind::Pipe(pb::core::Pipe { path, mode: _ })) => {
            if path.is_empty() {
                cx.error("pipe.path", "it must be set");
            }
            Some(Named::Address(Address::Pipe(Arc::from(Path::new(&path)))))
        }
        Some(Kind::EnvoyInternalAddress(value)) => {
            use pb::core::envoy_internal_address::AddressNameSpecifier;
            let pb::core::EnvoyInternalAddress { endpoint_id, address_name_specifier } = value;
            let Some(AddressNameSpecifier::ServerListenerName(name)) = address_name_specifier else {
                cx.error("envoy_internal_address", "it names no listener");
                return None;
            };
            Some(Named::Address(Address::Internal { listener: arc(name), endpoint_id: arc(endpoint_id) }))
        }
        None => {
            cx.error("", "it is empty");
            None
        }
    }
}

/// `Address`, resolved.
pub(crate) fn resolved(cx: &mut Cx<'_>, value: pb::core::Address) -> Option<Address> {
    match named(cx, value)? {
        Named::Address(address) => Some(address),
        Named::Host(host, _) => {
            cx.error("socket_address.address", format_args!("{host:?} is not an IP address"));
            None
        }
    }
}

fn socket_address(cx: &mut Cx<'_>, value: pb::core::SocketAddress) -> Option<Named> {
    use pb::core::socket_address::PortSpecifier;
    let pb::core::SocketAddress {
        protocol,
        address,
        resolver_name,
        // Listening sockets read it; others have no use for it.
        ipv4_compat: _,
        network_namespace_filepath,
        port_specifier,
    } = value;
    if protocol != pb::core::socket_address::Protocol::Tcp as i32 {
        cx.error("protocol", "only TCP is supported");
    }
    cx.refuse("resolver_name", &resolver_name);
    cx.refuse("network_namespace_filepath", &network_namespace_filepath);
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => values::port(cx, "port_value", port)?,
        Some(PortSpecifier::NamedPort(name)) => {
            cx.refuse("named_port", &name);
            0
        }
        None => 0,
    };
    if address.is_empty() {
        cx.error("address", "it must be set");
        return None;
    }
    Some(match address.parse::<IpAddr>() {
        Ok(ip) => Named::Address(SocketAddr::new(ip, port).into()),
        Err(_) => Named::Host(address, port),
    })
}

/// A `SocketAddress` that is an IP address.
pub(crate) fn ip(cx: &mut Cx<'_>, value: pb::core::SocketAddress) -> Option<SocketAddr> {
    match socket_address(cx, value)? {
        Named::Address(address) => address.socket_addr(),
        Named::Host(host, _) => {
            cx.error("address", format_args!("{host:?} is not an IP address"));
            None
        }
    }
}

/// `CidrRange`
pub(crate) fn range(cx: &mut Cx<'_>, value: pb::core::CidrRange) -> Option<IpNet> {
    let pb::core::CidrRange { address_prefix, prefix_len } = value;
    let ip: IpAddr = cx.ok(
        "address_prefix",
        address_prefix.parse().map_err(|_| format!("{address_prefix:?} is not an IP address")),
    )?;
    let length = values::u32_or(prefix_len, 0);
    // Longer prefixes are cut to the address' length, as Envoy does.
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let length = u8::try_from(length.min(most)).unwrap_or(most as u8);
    IpNet::new(ip, length).ok().map(|net| net.trunc())
}

/// `AddressMatcher`
pub(crate) fn matcher(cx: &mut Cx<'_>, value: pb::matcher::AddressMatcher) -> AddressMatch {
    let pb::matcher::AddressMatcher { ranges, invert_match } = value;
    let ranges = cx.each("ranges", ranges, |cx, range| {
        let address_prefix = range.address_prefix;
        self::range(cx, pb::core::CidrRange { address_prefix, prefix_len: range.prefix_len })
    });
    AddressMatch { ranges: CidrSet::new(ranges), invert: invert_match }
}

/// A list of `CidrRange`s.
pub(crate) fn ranges(cx: &mut Cx<'_>, field: &str, values: Vec<pb::core::CidrRange>) -> Box<[IpNet]> {
    cx.each(field, values, range).into()
}

/// One `CidrRange` as a set.
pub(crate) fn set(cx: &mut Cx<'_>, value: pb::core::CidrRange) -> Option<CidrSet> {
    range(cx, value).map(|net| CidrSet::new([net]))
}

/// `TcpKeepalive`
pub(crate) fn keepalive(value: pb::core::TcpKeepalive) -> TcpKeepalive {
    let pb::core::TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = value;
    let seconds = |value: Option<pb::UInt32Value>| {
        value.map(|value| std::time::Duration::from_secs(value.value.into()))
    };
    TcpKeepalive {
        probes: keepalive_probes.map(|value| value.value),
        time: seconds(keepalive_time),
        interval: seconds(keepalive_interval),
    }
}

/// `SocketOption`
pub(crate) fn socket_option(cx: &mut Cx<'_>, value: pb::core::SocketOption) -> Option<SocketOption> {
    use pb::core::socket_option::{SocketState as State, Value};
    let pb::core::SocketOption { description: _, level, name, state, r#type, ip_version, value } = value;
    cx.refuse("type", &r#type);
    cx.refuse("ip_version", &ip_version);
    let number = |cx: &mut Cx<'_>, field: &str, number: i64| cx.ok(field, i32::try_from(number));
    Some(SocketOption {
        level: number(cx, "level", level)?,
        name: number(cx, "name", name)?,
        state: match State::try_from(state) {
            Ok(State::StatePrebind) => SocketState::Prebind,
            Ok(State::StateBound) => SocketState::Bound,
            Ok(State::StateListening) => SocketState::Listening,
            Err(_) => {
                cx.error("state", "it is not known");
                return None;
            }
        },
        value: match value {
            Some(Value::IntValue(value)) => SocketOptionValue::Int(number(cx, "int_value", value)?),
            Some(Value::BufValue(bytes)) => SocketOptionValue::Bytes(bytes),
            None => {
                cx.error("", "it has no value");
                return None;
            }
        },
    })
}
