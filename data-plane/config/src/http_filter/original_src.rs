//! `original_src`

use super::{Entry, HttpFilterKind};
use crate::pb::filters::http::original_src::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.original_src.v3.OriginalSrc",
    convert: |cx, any| {
        let proto::OriginalSrc { mark } = cx.unpack(any)?;
        Some(HttpFilterKind::OriginalSrc(mark))
    },
    per_route: None,
};
