//! `Listener` and its filter chains.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sail_proxy_decide::address::Address;
use sail_proxy_decide::filter_chain::{FilterChainIndex, FilterChainMatch, SourceType};

use super::{DrainType, FilterChain, Listener, SocketSettings, TrafficDirection, filter};
use crate::convert::{Cx, address, arc, values};
use crate::pb;
use crate::tls::DownstreamSocket;
use crate::{access_log, network_filter, tls};

const BUFFER_LIMIT: u32 = 1024 * 1024;

/// `Listener`; `version` is a hash of its bytes.
pub(crate) fn listener(cx: &mut Cx<'_>, mut value: pb::listener::Listener, version: u64) -> Option<Listener> {
    let frame = frame(&mut value);
    let pb::listener::Listener {
        name,
        address,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = value;
    cx.refuse("stats_matcher", &stats_matcher);
    cx.option("connection_balance_config", connection_balance_config, balance);
    cx.ignore(
        "max_connections_to_accept_per_socket_event",
        &max_connections_to_accept_per_socket_event,
        "a worker accepts what has come, and serves in between",
    );
    cx.refuse("fcds_config", &fcds_config);
    cx.refuse("filter_chain_matcher", &filter_chain_matcher);
    cx.refuse("per_connection_buffer_high_watermark_timeout", &per_connection_buffer_high_watermark_timeout);
    cx.refuse("udp_listener_config", &udp_listener_config);
    cx.refuse("api_listener", &api_listener);
    cx.refuse("enable_mptcp", &enable_mptcp);
    cx.refuse("listener_specifier", &listener_specifier);
    cx.ignore("reuse_port", &reuse_port, "enable_reuse_port is read in its place");
    let bind_to_port = values::bool_or(
        bind_to_port,
        deprecated_v1.and_then(|old| old.bind_to_port).is_none_or(|value| value.value),
    );
    let addresses = addresses(cx, address, additional_addresses, socket_options, tcp_keepalive);
    let (filter_chains, index) = chains(cx, filter_chains);
    let default_filter_chain = cx.option("default_filter_chain", default_filter_chain, |cx, mut chain| {
        cx.ignore(
            "filter_chain_match",
            &chain.filter_chain_match.take(),
            "the default chain takes what is left",
        );
        self::chain(cx, chain)
    });
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        cx.error("filter_chains", "there is neither a filter chain nor a default one");
    }
    let (addresses, sockets) = addresses?;
    Some(Listener {
        stat_prefix: arc(stat_prefix),
        addresses,
        sockets,
        bind_to_port,
        use_original_dst: values::bool_or(use_original_dst, false),
        transparent: values::bool_or(transparent, false),
        freebind: values::bool_or(freebind, false),
        reuse_port: values::bool_or(enable_reuse_port, true),
        tcp_fast_open_queue_length: tcp_fast_open_queue_length.map(|value| value.value),
        tcp_backlog_size: tcp_backlog_size.map(|value| value.value),
        traffic_direction: match pb::core::TrafficDirection::try_from(traffic_direction) {
            Ok(pb::core::TrafficDirection::Inbound) => TrafficDirection::Inbound,
            Ok(pb::core::TrafficDirection::Outbound) => TrafficDirection::Outbound,
            _ => TrafficDirection::Unspecified,
        },
        listener_filters: cx.each("listener_filters", listener_filters, filter::listener_filter).into(),
        listener_filters_timeout: values::limit(
            cx,
            "listener_filters_timeout",
            listener_filters_timeout,
            Some(Duration::from_secs(15)),
        ),
        continue_on_listener_filters_timeout,
        filter_chains: filter_chains.into(),
        index,
        default_filter_chain: default_filter_chain.map(Arc::new),
        access_logs: access_log::all(cx, "access_log", access_log),
        per_connection_buffer_limit: values::u32_or(per_connection_buffer_limit_bytes, BUFFER_LIMIT),
        drain_type: if drain_type == pb::listener::listener::DrainType::ModifyOnly as i32 {
            DrainType::ModifyOnly
        } else {
            DrainType::Default
        },
        ignore_global_conn_limit,
        bypass_overload_manager,
        metadata: values::metadata(cx, "metadata", metadata),
        version,
        frame,
        name: arc(name),
    })
}

/// A hash of a listener without its filter chains.
fn frame(value: &mut pb::listener::Listener) -> u64 {
    let chains = std::mem::take(&mut value.filter_chains);
    let default = value.default_filter_chain.take();
    let hash = crate::version(&value.encode_to_vec());
    (value.filter_chains, value.default_filter_chain) = (chains, default);
    hash
}

type Addresses = (Box<[Address]>, Box<[SocketSettings]>);

/// The listener's addresses with what is asked of the sockets of each; additional ones have their own options where
/// they give any.
fn addresses(
    cx: &mut Cx<'_>,
    main: Option<pb::core::Address>,
    more: Vec<pb::listener::AdditionalAddress>,
    options: Vec<pb::core::SocketOption>,
    keepalive: Option<pb::core::TcpKeepalive>,
) -> Option<Addresses> {
    let options: Box<[_]> = cx.each("socket_options", options, address::socket_option).into();
    let keepalive = keepalive.map(address::keepalive);
    let settings = |address: &pb::core::Address| SocketSettings {
        options: options.clone(),
        tcp_keepalive: keepalive,
        ..socket_settings(address)
    };
    let mut all = vec![cx.required("address", main, |cx, value| {
        let settings = settings(&value);
        Some((address::resolved(cx, value)?, settings))
    })?];
    all.extend(cx.each("additional_addresses", more, |cx, value| {
        let pb::listener::AdditionalAddress { address, socket_options, tcp_keepalive } = value;
        let overrides = socket_options.map(|list| list.socket_options);
        let overrides =
            overrides.map(|list| cx.each("socket_options.socket_options", list, address::socket_option));
        cx.required("address", address, |cx, value| {
            let mut settings = settings(&value);
            if let Some(overrides) = overrides {
                settings.options = overrides.into();
            }
            settings.tcp_keepalive = tcp_keepalive.map(address::keepalive).or(settings.tcp_keepalive);
            Some((address::resolved(cx, value)?, settings))
        })
    }));
    let (addresses, sockets): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    Some((addresses.into(), sockets.into()))
}

/// What an address itself asks of its sockets.
fn socket_settings(address: &pb::core::Address) -> SocketSettings {
    use pb::core::address::Address as Kind;
    let mut settings = SocketSettings::default();
    match &address.address {
        Some(Kind::SocketAddress(socket)) => settings.ipv4_compat = socket.ipv4_compat,
        Some(Kind::Pipe(pipe)) => settings.mode = (pipe.mode != 0).then_some(pipe.mode & 0o777),
        _ => {}
    }
    settings
}

fn balance(cx: &mut Cx<'_>, value: pb::listener::listener::ConnectionBalanceConfig) -> Option<()> {
    use pb::listener::listener::connection_balance_config::BalanceType;
    match value.balance_type {
        Some(BalanceType::ExactBalance(_)) => {
            cx.warn("exact_balance", "the kernel spreads connections over workers");
        }
        Some(_) => cx.error("", "only exact_balance is supported"),
        None => {}
    }
    Some(())
}

fn chains(
    cx: &mut Cx<'_>,
    values: Vec<pb::listener::FilterChain>,
) -> (Vec<Arc<FilterChain>>, FilterChainIndex) {
    let mut matches = Vec::new();
    let chains = cx.each("filter_chains", values, |cx, mut value| {
        let matching = value.filter_chain_match.take().unwrap_or_default();
        let matching = cx.within("filter_chain_match", |cx| chain_match(cx, matching))?;
        let chain = chain(cx, value)?;
        matches.push(matching);
        Some(Arc::new(chain))
    });
    let index = cx.ok("filter_chains", FilterChainIndex::new(matches)).unwrap_or_default();
    (chains, index)
}

fn chain_match(cx: &mut Cx<'_>, value: pb::listener::FilterChainMatch) -> Option<FilterChainMatch> {
    use pb::listener::filter_chain_match::ConnectionSourceType;
    let pb::listener::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = value;
    cx.refuse("address_suffix", &address_suffix);
    cx.refuse("suffix_len", &suffix_len);
    for (at, name) in server_names.iter().enumerate() {
        if name.contains('*') && !name.starts_with("*.") && name != "*" || name.matches('*').count() > 1 {
            cx.error(
                &format!("server_names[{at}]"),
                format_args!("{name:?}: a wildcard stands only for the leftmost labels"),
            );
        }
    }
    let destination_port = match destination_port {
        Some(value) => Some(values::port(cx, "destination_port", value.value)?),
        None => None,
    };
    Some(FilterChainMatch {
        destination_port,
        prefix_ranges: address::ranges(cx, "prefix_ranges", prefix_ranges),
        server_names: server_names
            .into_iter()
            // `*` alone is any name, which is what no name at all means as well.
            .filter(|name| name != "*")
            .map(|name| name.to_ascii_lowercase().into())
            .collect(),
        transport_protocol: transport_protocol.into(),
        application_protocols: application_protocols.into_iter().map(Box::from).collect(),
        direct_source_prefix_ranges: address::ranges(
            cx,
            "direct_source_prefix_ranges",
            direct_source_prefix_ranges,
        ),
        source_type: match ConnectionSourceType::try_from(source_type) {
            Ok(ConnectionSourceType::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
            Ok(ConnectionSourceType::External) => SourceType::External,
            _ => SourceType::Any,
        },
        source_prefix_ranges: address::ranges(cx, "source_prefix_ranges", source_prefix_ranges),
        source_ports: cx.each("source_ports", source_ports, |cx, port| values::port(cx, "", port)).into(),
    })
}

fn chain(cx: &mut Cx<'_>, value: pb::listener::FilterChain) -> Option<FilterChain> {
    let version = crate::version(&value.encode_to_vec());
    let pb::listener::FilterChain {
        filter_chain_match: _,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = value;
    if values::bool_or(use_proxy_proto, false) {
        cx.error("use_proxy_proto", "it is not supported: use the listener filter proxy_protocol");
    }
    let socket = match transport_socket {
        Some(socket) => cx.within("transport_socket", |cx| tls::downstream_socket(cx, socket)),
        None => Some(DownstreamSocket::Raw),
    };
    let filters = network_filter::chain(cx, filters);
    let metadata = values::metadata(cx, "metadata", metadata);
    let timeout = transport_socket_connect_timeout;
    let timeout = values::limit(cx, "transport_socket_connect_timeout", timeout, None);
    Some(FilterChain {
        name: arc(name),
        socket: socket?,
        transport_socket_connect_timeout: timeout,
        filters,
        metadata,
        version,
    })
}
