//! `ip_tagging`

use std::sync::Arc;

use http::HeaderName;
use sail_proxy_decide::address::CidrSet;
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, address, arc};
use crate::pb;
use crate::pb::filters::http::ip_tagging::v3 as proto;

const NAME: &str = "envoy.extensions.filters.http.ip_tagging.v3.IPTagging";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::IpTagging(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute { name: NAME, convert: |cx, any| Some(PerFilterConfig::typed(read(cx, any)?)) }),
};

/// `IPTagging`
#[derive(Debug)]
pub struct IpTagging {
    /// Which requests are tagged.
    pub requests: Requests,
    /// Tags, and whose they are.
    pub tags: Box<[(Arc<str>, CidrSet)]>,
    /// Where tags are written.
    pub header: HeaderName,
    /// Whether what a client wrote there goes.
    pub sanitize: bool,
}

/// `RequestType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// All.
    Both,
    /// Those from inside.
    Internal,
    /// Those from outside.
    External,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<IpTagging> {
    use proto::ip_tagging::ip_tag_header::HeaderAction;
    use proto::ip_tagging::{IpTag, IpTagHeader, RequestType};
    let proto::IpTagging { request_type, ip_tags, ip_tag_header, ip_tags_datasource } = cx.unpack(any)?;
    cx.refuse("ip_tags_datasource", &ip_tags_datasource);
    let requests = match RequestType::try_from(request_type) {
        Ok(RequestType::Both) => Requests::Both,
        Ok(RequestType::Internal) => Requests::Internal,
        Ok(RequestType::External) => Requests::External,
        Err(_) => {
            cx.error("request_type", "it is not known");
            return None;
        }
    };
    let (header, sanitize) = match ip_tag_header {
        None => (HeaderName::from_static("x-envoy-ip-tags"), false),
        Some(IpTagHeader { header, action }) => {
            let header = cx.ok("ip_tag_header.header", HeaderName::try_from(header))?;
            (header, action == HeaderAction::Sanitize as i32)
        }
    };
    let tags = cx.each("ip_tags", ip_tags, |cx, value| {
        let IpTag { ip_tag_name, ip_list } = value;
        let ranges = address::ranges(cx, "ip_list", ip_list);
        Some((arc(ip_tag_name), CidrSet::new(ranges.iter().copied())))
    });
    Some(IpTagging { requests, tags: tags.into(), header, sanitize })
}
