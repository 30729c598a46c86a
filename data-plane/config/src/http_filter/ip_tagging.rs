//! `ip_tagging`

use std::sync::Arc;

use http::HeaderName;
use sail_proxy_decide::address::CidrSet;
use sail_proxy_decide::route::PerFilterConfig;
use serde_json::Value;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, address, arc, values};
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

/// `IPTags`, written as YAML or JSON.
fn listed(cx: &mut Cx<'_>, source: pb::core::DataSource) -> Option<Vec<proto::ip_tagging::IpTag>> {
    use proto::ip_tagging::IpTag;
    let text = values::text(cx, source)?;
    let value = cx.ok("", xds_api::codec::parse(&text))?;
    let field = |value: &Value, names: [&str; 2]| names.iter().find_map(|name| value.get(name).cloned());
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let list = |value: Option<Value>| match value {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(all)) => Some(all),
        Some(_) => None,
    };
    let range = |value: &Value| {
        let prefix_len = match field(value, ["prefix_len", "prefixLen"]) {
            None => None,
            Some(length) => Some(pb::UInt32Value { value: u32::try_from(length.as_u64()?).ok()? }),
        };
        let address_prefix = text(field(value, ["address_prefix", "addressPrefix"]))?;
        Some(pb::core::CidrRange { address_prefix, prefix_len })
    };
    let tag = |value: &Value| {
        let ip_tag_name = text(field(value, ["ip_tag_name", "ipTagName"]))?;
        let ranges = list(field(value, ["ip_list", "ipList"]))?;
        Some(IpTag { ip_tag_name, ip_list: ranges.iter().map(range).collect::<Option<_>>()? })
    };
    let tags = list(field(&value, ["ip_tags", "ipTags"]));
    let tags = tags.and_then(|tags| tags.iter().map(tag).collect::<Option<Vec<_>>>());
    if tags.is_none() {
        cx.error("", "it is no list of tags: ip_tags, each with ip_tag_name and ip_list");
    }
    tags
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<IpTagging> {
    use proto::ip_tagging::ip_tag_header::HeaderAction;
    use proto::ip_tagging::{IpTag, IpTagHeader, RequestType};
    let proto::IpTagging { request_type, ip_tags, ip_tag_header, ip_tags_datasource } = cx.unpack(any)?;
    let ip_tags = match ip_tags_datasource {
        None => ip_tags,
        Some(source) => {
            if !ip_tags.is_empty() {
                cx.error("ip_tags_datasource", "it and ip_tags exclude each other");
            }
            cx.within("ip_tags_datasource", |cx| listed(cx, source))?
        }
    };
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
