//! Network filters from their `Any`s.

use std::sync::Arc;

use super::{NetworkFilter, ext_authz, filter_state, limits, rate_limit, rbac, sni_forward, tcp_proxy};
use crate::convert::{Cx, type_name, values};
use crate::{discovered, hcm, pb};

const CONNECTION_LIMIT: &str = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
const DIRECT_RESPONSE: &str = "envoy.extensions.filters.network.direct_response.v3.Config";
const ECHO: &str = "envoy.extensions.filters.network.echo.v3.Echo";
const EXT_AUTHZ: &str = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz";
const HTTP_CONNECTION_MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const LOCAL_RATE_LIMIT: &str = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
const METADATA_EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";
const MONGO_PROXY: &str = "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy";
const RATE_LIMIT: &str = "envoy.extensions.filters.network.ratelimit.v3.RateLimit";
const RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
const SET_FILTER_STATE: &str = "envoy.extensions.filters.network.set_filter_state.v3.Config";
const SNI_CLUSTER: &str = "envoy.extensions.filters.network.sni_cluster.v3.SniCluster";
const SNI_FORWARD: &str = "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig";
const STATS: &str = "stats.PluginConfig";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Types of network filters that there are.
pub const KNOWN: &[&str] = &[
    CONNECTION_LIMIT,
    DIRECT_RESPONSE,
    ECHO,
    EXT_AUTHZ,
    HTTP_CONNECTION_MANAGER,
    LOCAL_RATE_LIMIT,
    METADATA_EXCHANGE,
    MONGO_PROXY,
    RATE_LIMIT,
    RBAC,
    SET_FILTER_STATE,
    SNI_CLUSTER,
    SNI_FORWARD,
    STATS,
    TCP_PROXY,
];

/// All filters of a chain; the last one must end it.
pub(crate) fn chain(cx: &mut Cx<'_>, values: Vec<pb::listener::Filter>) -> Box<[NetworkFilter]> {
    let last = values.len().checked_sub(1);
    let mut at = 0;
    let filters = cx.each("filters", values, |cx, value| {
        let filter = filter(cx, value);
        if let Some(filter) = &filter
            && ends(filter) != (Some(at) == last)
        {
            let problem = if ends(filter) {
                "a filter that ends a chain must be the last"
            } else {
                "the last filter must end the chain"
            };
            cx.error("", problem);
        }
        at += 1;
        filter
    });
    filters.into()
}

fn ends(filter: &NetworkFilter) -> bool {
    matches!(
        filter,
        NetworkFilter::HttpConnectionManager(_)
            | NetworkFilter::TcpProxy(_)
            | NetworkFilter::DirectResponse(_)
            | NetworkFilter::Echo
    )
}

fn filter(cx: &mut Cx<'_>, value: pb::listener::Filter) -> Option<NetworkFilter> {
    use pb::listener::filter::ConfigType;
    let pb::listener::Filter { name, config_type } = value;
    match config_type {
        Some(ConfigType::TypedConfig(any)) => cx.within("typed_config", |cx| typed(cx, &any)),
        Some(ConfigType::ConfigDiscovery(source)) => {
            let found =
                cx.within("config_discovery", |cx| discovered::discovered(cx, &name, source, discoverable))?;
            Some(NetworkFilter::Discovered(Arc::new(found)))
        }
        None => {
            cx.error("typed_config", format_args!("the filter {name:?} has no configuration"));
            None
        }
    }
}

/// Whether discovery may bring filters of this type: those that end chains, and those that are looked for when a chain
/// is set up, stand in their listener.
pub(crate) fn is_discoverable(name: &str) -> bool {
    let fixed = [DIRECT_RESPONSE, ECHO, HTTP_CONNECTION_MANAGER, MONGO_PROXY, STATS, TCP_PROXY];
    KNOWN.contains(&name) && !fixed.contains(&name)
}

/// A filter that discovery may bring.
pub(crate) fn discoverable(cx: &mut Cx<'_>, any: &pb::Any) -> Option<NetworkFilter> {
    if !is_discoverable(type_name(any)) {
        cx.error("", format_args!("{:?} is not found by discovery: give it as typed_config", type_name(any)));
        return None;
    }
    typed(cx, any)
}

fn typed(cx: &mut Cx<'_>, any: &pb::Any) -> Option<NetworkFilter> {
    Some(match type_name(any) {
        HTTP_CONNECTION_MANAGER => {
            let value = cx.unpack(any)?;
            NetworkFilter::HttpConnectionManager(Arc::new(hcm::convert::manager(cx, value)?))
        }
        TCP_PROXY => {
            let value = cx.unpack(any)?;
            NetworkFilter::TcpProxy(Arc::new(tcp_proxy::tcp_proxy(cx, value)?))
        }
        RBAC => {
            let value = cx.unpack(any)?;
            NetworkFilter::Rbac(Arc::new(rbac::network_rbac(cx, value)?))
        }
        DIRECT_RESPONSE => {
            let pb::filters::network::direct_response::v3::Config { response } = cx.unpack(any)?;
            let response = cx.option("response", response, values::data).map(|(bytes, _)| bytes);
            NetworkFilter::DirectResponse(response.unwrap_or_default().into())
        }
        ECHO => NetworkFilter::Echo,
        EXT_AUTHZ => {
            let value = cx.unpack(any)?;
            NetworkFilter::ExtAuthz(Arc::new(ext_authz::ext_authz(cx, value)?))
        }
        SET_FILTER_STATE => {
            let value = cx.unpack(any)?;
            NetworkFilter::SetFilterState(Arc::new(filter_state::set_filter_state(cx, value)))
        }
        SNI_CLUSTER => NetworkFilter::SniCluster,
        SNI_FORWARD => {
            let value = cx.unpack(any)?;
            NetworkFilter::SniForward(Arc::new(sni_forward::sni_forward(cx, value)?))
        }
        RATE_LIMIT => {
            let value = cx.unpack(any)?;
            NetworkFilter::RateLimit(Arc::new(rate_limit::rate_limit(cx, value)?))
        }
        CONNECTION_LIMIT => {
            let value = cx.unpack(any)?;
            NetworkFilter::ConnectionLimit(Arc::new(limits::connection_limit(cx, value)?))
        }
        LOCAL_RATE_LIMIT => {
            let value = cx.unpack(any)?;
            NetworkFilter::LocalRateLimit(Arc::new(limits::local_rate_limit(cx, value)?))
        }
        STATS => NetworkFilter::IstioStats(Arc::new(cx.unpack(any)?)),
        METADATA_EXCHANGE => NetworkFilter::MetadataExchange(Arc::new(cx.unpack(any)?)),
        MONGO_PROXY => {
            let value = cx.unpack(any)?;
            mongo_proxy(cx, value);
            NetworkFilter::MongoProxy
        }
        other => {
            cx.error("", format_args!("there is no network filter {other:?}"));
            return None;
        }
    })
}

/// It looks at what passes, and changes nothing of it. What is only counted there is not counted here.
fn mongo_proxy(cx: &mut Cx<'_>, value: pb::filters::network::mongo_proxy::v3::MongoProxy) {
    let pb::filters::network::mongo_proxy::v3::MongoProxy {
        stat_prefix,
        access_log,
        delay,
        emit_dynamic_metadata,
        commands,
        max_bson_depth,
    } = value;
    let why = "there are no statistics of MongoDB: its bytes pass unread";
    cx.ignore("stat_prefix", &stat_prefix, why);
    cx.ignore("commands", &commands, why);
    cx.ignore("max_bson_depth", &max_bson_depth, why);
    cx.refuse("access_log", &access_log);
    cx.refuse("delay", &delay);
    cx.refuse("emit_dynamic_metadata", &emit_dynamic_metadata);
}
