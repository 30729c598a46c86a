//! `grpc_stats`

use std::sync::Arc;

use super::{Entry, HttpFilterKind};
use crate::pb::filters::http::grpc_stats::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    convert: |cx, any| Some(HttpFilterKind::GrpcStats(Arc::new(grpc_stats(cx.unpack(any)?)))),
    per_route: None,
};

/// `grpc_stats`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcStats {
    /// Whether message counts go into filter state.
    pub emit_filter_state: bool,
    /// Whether upstream times are counted.
    pub enable_upstream_stats: bool,
    /// Whether dots in services' names become underscores in the statistics'.
    pub replace_dots: bool,
    /// Which methods have statistics of their own.
    pub methods: GrpcMethods,
}

/// A gRPC service and methods of it.
pub type GrpcService = (Box<str>, Box<[Box<str>]>);

/// Which gRPC methods have statistics of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GrpcMethods {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These, by service.
    Listed(Box<[GrpcService]>),
}

fn grpc_stats(value: proto::FilterConfig) -> GrpcStats {
    use proto::filter_config::PerMethodStatSpecifier as Kind;
    let proto::FilterConfig {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots_in_grpc_service_name,
        per_method_stat_specifier,
    } = value;
    let methods = match per_method_stat_specifier {
        None => GrpcMethods::None,
        Some(Kind::StatsForAllMethods(value)) if value.value => GrpcMethods::All,
        Some(Kind::StatsForAllMethods(_)) => GrpcMethods::None,
        Some(Kind::IndividualMethodStatsAllowlist(list)) => GrpcMethods::Listed(
            list.services
                .into_iter()
                .map(|service| {
                    (service.name.into(), service.method_names.into_iter().map(Box::from).collect())
                })
                .collect(),
        ),
    };
    GrpcStats {
        emit_filter_state,
        enable_upstream_stats,
        replace_dots: replace_dots_in_grpc_service_name,
        methods,
    }
}
