//! `decompressor`

use std::sync::Arc;

use super::compression::{self, Decompress};
use super::{Entry, Flag, HttpFilterKind, flag};
use crate::convert::{Cx, values};
use crate::pb::filters::http::decompressor::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.decompressor.v3.Decompressor",
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        decompressor(cx, value).map(|config| HttpFilterKind::Decompressor(Arc::new(config)))
    },
    per_route: None,
};

/// `Decompressor`
#[derive(Debug)]
pub struct Decompressor {
    /// What it decompresses with.
    pub codec: Decompress,
    /// The library's name, which stands in statistics.
    pub codec_name: Arc<str>,
    /// For requests.
    pub request: Direction,
    /// Whether the upstream is told that this encoding is welcome.
    pub advertise: bool,
    /// For responses.
    pub response: Direction,
}

/// What is decompressed in one direction.
#[derive(Debug)]
pub struct Direction {
    /// Whether anything is.
    pub enabled: Flag,
    /// Whether `cache-control: no-transform` has no say.
    pub ignore_no_transform: bool,
}

fn direction(value: Option<proto::decompressor::CommonDirectionConfig>) -> Direction {
    let proto::decompressor::CommonDirectionConfig { enabled, ignore_no_transform_header } =
        value.unwrap_or_default();
    Direction { enabled: flag(enabled, true), ignore_no_transform: ignore_no_transform_header }
}

fn decompressor(cx: &mut Cx<'_>, value: proto::Decompressor) -> Option<Decompressor> {
    let proto::Decompressor { decompressor_library, request_direction_config, response_direction_config } =
        value;
    let library = cx.required("decompressor_library", decompressor_library, |_, value| Some(value))?;
    let codec_name = Arc::from(library.name.as_str());
    let proto::decompressor::RequestDirectionConfig { common_config, advertise_accept_encoding } =
        request_direction_config.unwrap_or_default();
    Some(Decompressor {
        codec: cx.within("decompressor_library", |cx| compression::decompress(cx, library))?,
        codec_name,
        request: direction(common_config),
        advertise: values::bool_or(advertise_accept_encoding, true),
        response: direction(response_direction_config.unwrap_or_default().common_config),
    })
}
