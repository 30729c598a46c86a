//! `dynamic_forward_proxy`

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::cluster::{DnsCache, dns_cache};
use crate::convert::{Cx, headers, values};
use crate::pb;
use crate::pb::filters::http::dynamic_forward_proxy::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
    convert: read,
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig",
        convert: read_per_route,
    }),
};

/// `PerRouteConfig`: the name that is resolved, in place of the request's host.
#[derive(Clone, Debug)]
pub enum ForwardHost {
    /// This one.
    Literal(HeaderValue),
    /// The one in this header.
    Header(HeaderName),
}

/// `FilterConfig`
#[derive(Clone, Debug)]
pub struct ForwardProxy {
    /// Where names are resolved.
    pub names: ForwardNames,
    /// Whether the address is kept in filter state.
    pub save_upstream_address: bool,
    /// Whether filter state may name another host or port than the request.
    pub host_from_filter_state: bool,
}

/// Where names are resolved.
#[derive(Clone, Debug)]
pub enum ForwardNames {
    /// In this cache.
    Cache(Arc<DnsCache>),
    /// In that of the cluster, whose names are clusters; so long a request waits.
    SubClusters(Duration),
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    use proto::filter_config::ImplementationSpecifier as Kind;
    let proto::FilterConfig {
        save_upstream_address,
        allow_dynamic_host_from_filter_state,
        implementation_specifier,
    } = cx.unpack(any)?;
    let names = match implementation_specifier {
        Some(Kind::DnsCacheConfig(cache)) => {
            ForwardNames::Cache(Arc::new(cx.within("dns_cache_config", |cx| dns_cache(cx, cache))?))
        }
        Some(Kind::SubClusterConfig(proto::SubClusterConfig { cluster_init_timeout })) => {
            let limit = values::duration(cx, "sub_cluster_config.cluster_init_timeout", cluster_init_timeout);
            ForwardNames::SubClusters(limit.unwrap_or(Duration::from_secs(5)))
        }
        None => {
            cx.error("dns_cache_config", "it must be set");
            return None;
        }
    };
    Some(HttpFilterKind::DynamicForwardProxy(Arc::new(ForwardProxy {
        names,
        save_upstream_address,
        host_from_filter_state: allow_dynamic_host_from_filter_state,
    })))
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::per_route_config::HostRewriteSpecifier as Rewrite;
    let proto::PerRouteConfig { host_rewrite_specifier } = cx.unpack(any)?;
    let host = match host_rewrite_specifier {
        Some(Rewrite::HostRewriteLiteral(text)) => {
            ForwardHost::Literal(headers::value(cx, "host_rewrite_literal", &text)?)
        }
        Some(Rewrite::HostRewriteHeader(name)) => {
            ForwardHost::Header(headers::name(cx, "host_rewrite_header", &name)?)
        }
        None => {
            cx.error("host_rewrite_specifier", "it must be set");
            return None;
        }
    };
    Some(PerFilterConfig::typed(host))
}
