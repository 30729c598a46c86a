//! `csrf`

use std::sync::Arc;

use sail_proxy_decide::csrf::CsrfPolicy;
use sail_proxy_decide::fraction::{Fraction, RuntimeFraction};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, matchers, values};
use crate::pb;
use crate::pb::filters::http::csrf::v3 as proto;

const NAME: &str = "envoy.extensions.filters.http.csrf.v3.CsrfPolicy";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::Csrf(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute { name: NAME, convert: |cx, any| Some(PerFilterConfig::typed(read(cx, any)?)) }),
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<CsrfPolicy> {
    let proto::CsrfPolicy { filter_enabled, shadow_enabled, additional_origins } = cx.unpack(any)?;
    let shadow = cx.option("shadow_enabled", shadow_enabled, values::runtime_fraction);
    Some(CsrfPolicy {
        enabled: cx.required("filter_enabled", filter_enabled, values::runtime_fraction)?,
        shadow: shadow.unwrap_or_else(|| RuntimeFraction::fixed(Fraction::NEVER)),
        additional_origins: cx.each("additional_origins", additional_origins, matchers::string).into(),
    })
}
