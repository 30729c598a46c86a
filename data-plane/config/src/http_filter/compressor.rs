//! `compressor`

use std::sync::Arc;

use sail_proxy_decide::matcher::StringMatcher;
use sail_proxy_decide::route::PerFilterConfig;

use super::compression::{self, Compress};
use super::{Entry, Flag, HttpFilterKind, PerRoute, flag};
use crate::convert::{Cx, matchers};
use crate::pb;
use crate::pb::filters::http::compressor::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.compressor.v3.Compressor",
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        compressor(cx, value).map(|config| HttpFilterKind::Compressor(Arc::new(config)))
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
        convert: read_per_route,
    }),
};

/// Types that are compressed where the configuration names none.
const TYPES: [&str; 8] = [
    "application/javascript",
    "application/json",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/plain",
    "text/xml",
];

/// `Compressor`
#[derive(Debug)]
pub struct Compressor {
    /// What it compresses with.
    pub codec: Compress,
    /// The library's name, which stands in statistics.
    pub codec_name: Arc<str>,
    /// For requests; off unless it is configured.
    pub request: Option<Direction>,
    /// For responses.
    pub response: Direction,
    /// Whether those have a configuration of their own, which shows in the names of statistics.
    pub names_response: bool,
    /// Whether responses with an `etag` are left alone.
    pub disable_on_etag: bool,
    /// Whether a strong `etag` becomes a weak one; else it is removed.
    pub weaken_etag: bool,
    /// Whether the upstream does not see `accept-encoding`.
    pub remove_accept_encoding: bool,
    /// Whether responses tell whether they were compressed, and else why not.
    pub status_header: bool,
    /// Statuses whose responses are left alone.
    pub uncompressible: Box<[u16]>,
    /// Whether it is preferred to others that the client wants as much.
    pub choose_first: bool,
}

/// What is compressed in one direction.
#[derive(Debug)]
pub struct Direction {
    /// Whether anything is.
    pub enabled: Flag,
    /// The least length, where it is known.
    pub min_length: u64,
    /// Media types.
    pub types: Box<[Box<str>]>,
    /// More of them.
    pub type_matchers: Box<[StringMatcher]>,
}

/// `CompressorPerRoute`
#[derive(Debug)]
pub enum CompressorPerRoute {
    /// Nothing is compressed.
    Disabled,
    /// Other settings.
    Overrides {
        /// In place of the filter's.
        remove_accept_encoding: Option<bool>,
        /// In place of the filter's.
        library: Option<Compress>,
    },
}

fn direction(
    cx: &mut Cx<'_>,
    value: Option<proto::compressor::CommonDirectionConfig>,
    default: bool,
) -> Option<Direction> {
    let proto::compressor::CommonDirectionConfig {
        enabled,
        min_content_length,
        content_type,
        content_type_matcher,
    } = value.unwrap_or_default();
    let matchers = cx.each("content_type_matcher", content_type_matcher, matchers::string);
    let types = if content_type.is_empty() && matchers.is_empty() {
        TYPES.iter().map(|name| Box::from(*name)).collect()
    } else {
        content_type.into_iter().map(Box::from).collect()
    };
    Some(Direction {
        enabled: flag(enabled, default),
        min_length: u64::from(min_content_length.map_or(30, |value| value.value)),
        types,
        type_matchers: matchers.into(),
    })
}

fn compressor(cx: &mut Cx<'_>, value: proto::Compressor) -> Option<Compressor> {
    let proto::Compressor {
        content_length,
        content_type,
        disable_on_etag_header,
        remove_accept_encoding_header,
        runtime_enabled,
        compressor_library,
        request_direction_config,
        response_direction_config,
        choose_first,
    } = value;
    let library = cx.required("compressor_library", compressor_library, |_, value| Some(value))?;
    let codec_name = Arc::from(library.name.as_str());
    let library = cx.within("compressor_library", |cx| compression::compress(cx, library))?;
    let request = match request_direction_config {
        None => None,
        Some(proto::compressor::RequestDirectionConfig { common_config }) => {
            cx.within("request_direction_config.common_config", |cx| direction(cx, common_config, false))
        }
    };
    let names_response = response_direction_config.is_some();
    // The fields of old stand for those of the response.
    let proto::compressor::ResponseDirectionConfig {
        common_config,
        disable_on_etag_header,
        weaken_etag_on_compress,
        remove_accept_encoding_header,
        uncompressible_response_codes,
        status_header_enabled,
    } = response_direction_config.unwrap_or(proto::compressor::ResponseDirectionConfig {
        common_config: Some(proto::compressor::CommonDirectionConfig {
            enabled: runtime_enabled,
            min_content_length: content_length,
            content_type,
            ..Default::default()
        }),
        disable_on_etag_header,
        remove_accept_encoding_header,
        ..Default::default()
    });
    Some(Compressor {
        codec: library,
        codec_name,
        request,
        names_response,
        response: cx
            .within("response_direction_config.common_config", |cx| direction(cx, common_config, true))?,
        disable_on_etag: disable_on_etag_header,
        weaken_etag: weaken_etag_on_compress,
        remove_accept_encoding: remove_accept_encoding_header,
        status_header: status_header_enabled,
        uncompressible: uncompressible_response_codes
            .into_iter()
            .filter_map(|code| u16::try_from(code).ok())
            .collect(),
        choose_first,
    })
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::compressor_per_route::Override;
    let proto::CompressorPerRoute { r#override } = cx.unpack(any)?;
    let config = match r#override {
        Some(Override::Disabled(_)) => CompressorPerRoute::Disabled,
        Some(Override::Overrides(proto::CompressorOverrides {
            response_direction_config,
            compressor_library,
        })) => CompressorPerRoute::Overrides {
            remove_accept_encoding: response_direction_config
                .and_then(|value| value.remove_accept_encoding_header)
                .map(|value| value.value),
            library: cx.option("overrides.compressor_library", compressor_library, compression::compress),
        },
        None => {
            cx.error("override", "it must be set");
            return None;
        }
    };
    Some(PerFilterConfig::typed(config))
}
