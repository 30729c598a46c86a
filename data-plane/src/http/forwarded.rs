//! `x-forwarded-for` and its kin: who the client is when proxies stand between.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::stream_info::DownstreamInfo;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// Headers that only a trusted neighbour may set.
const INTERNAL: [&str; 4] = [
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-decorator-operation",
    "x-envoy-internal",
];

/// How far what a request says of its way is believed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// The connection's peer is the client, and is added to the header.
    pub(crate) use_remote_address: bool,
    /// So many proxies in front are ours.
    pub(crate) trusted_hops: u32,
    /// The header stays as it is.
    pub(crate) skip_append: bool,
}

/// Applies the rules; where the client is not the peer, the request gets downstream information of its own.
pub(crate) fn apply(
    headers: &mut HeaderMap,
    rules: Rules,
    peer: SocketAddr,
    downstream: &mut Rc<DownstreamInfo>,
) {
    let client = if rules.use_remote_address {
        let trusted =
            (rules.trusted_hops > 0).then(|| nth_from_last(headers, rules.trusted_hops - 1)).flatten();
        if !rules.skip_append {
            append(headers, peer.ip());
        }
        if rules.trusted_hops == 0 {
            headers.remove(FORWARDED_PROTO);
            for name in INTERNAL {
                headers.remove(name);
            }
        }
        if let Ok(address) = HeaderValue::from_str(&trusted.unwrap_or(peer.ip()).to_string()) {
            headers.insert(EXTERNAL_ADDRESS, address);
        }
        trusted
    } else {
        nth_from_last(headers, rules.trusted_hops)
    };
    if let Some(client) = client
        && client != peer.ip()
    {
        let info = &**downstream;
        *downstream = Rc::new(DownstreamInfo {
            connection_id: info.connection_id,
            remote_address: SocketAddr::new(client, 0),
            direct_remote_address: info.direct_remote_address,
            local_address: info.local_address,
            server_name: info.server_name.clone(),
            tls: info.tls.clone(),
            transport_failure: info.transport_failure.clone(),
            direction: info.direction,
        });
    }
}

/// The address so many places from the header's end.
fn nth_from_last(headers: &HeaderMap, places: u32) -> Option<IpAddr> {
    let value = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    let text = value.rsplit(',').nth(places as usize)?.trim();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

fn append(headers: &mut HeaderMap, peer: IpAddr) {
    let text = match headers.get(FORWARDED_FOR).map(|value| value.to_str()) {
        Some(Ok(before)) if !before.is_empty() => format!("{before},{peer}"),
        _ => peer.to_string(),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(FORWARDED_FOR, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_the_end() {
        let headers =
            HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static("10.0.0.1, 10.0.0.2,10.0.0.3"))]);
        assert_eq!(nth_from_last(&headers, 0), Some("10.0.0.3".parse().unwrap()));
        assert_eq!(nth_from_last(&headers, 2), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(nth_from_last(&headers, 3), None);
    }

    #[test]
    fn the_peer_is_added() {
        let mut headers = HeaderMap::new();
        append(&mut headers, "192.0.2.1".parse().unwrap());
        append(&mut headers, "192.0.2.2".parse().unwrap());
        assert_eq!(headers[FORWARDED_FOR], "192.0.2.1,192.0.2.2");
    }
}
