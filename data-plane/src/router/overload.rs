//! Requests that a load assignment asks to be dropped (`policy.drop_overloads`), before a host is chosen.

use http::{HeaderName, HeaderValue, StatusCode};
use sail_proxy_decide::fraction::Fraction;

use crate::cluster::Cluster;
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stream_info::{ResponseFlag, details};

const DROPPED: HeaderName = HeaderName::from_static("x-envoy-drop-overload");
const ALL_DROPPED: HeaderName = HeaderName::from_static("x-envoy-unconditional-drop-overload");

/// The answer to a request that is dropped.
pub(super) fn answer(exchange: &Exchange, cluster: &Cluster) -> Option<LocalReply> {
    let share = cluster.drop_overload()?;
    let (reply, header) = dropped(share, exchange.connection.worker.random())?;
    cluster.count_answer(reply.status.as_u16(), exchange);
    Some(match exchange.connection.manager.sends_envoy_headers() {
        true => reply.header(header, HeaderValue::from_static("true")),
        false => reply,
    })
}

fn dropped(share: Fraction, random: u64) -> Option<(LocalReply, HeaderName)> {
    let reply = |body, details| LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, body, details);
    if share.numerator >= share.denominator {
        let reply = reply("unconditional drop overload", details::UNCONDITIONAL_DROP_OVERLOAD);
        return Some((reply.flag(ResponseFlag::UnconditionalDropOverload), ALL_DROPPED));
    }
    share.hit(random).then(|| {
        let reply = reply("drop overload", details::DROP_OVERLOAD);
        (reply.flag(ResponseFlag::DropOverload), DROPPED)
    })
}
