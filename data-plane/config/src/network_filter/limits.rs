//! `connection_limit` and `local_ratelimit`: how many connections, and how many in a time.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::fraction::RuntimeFlag;
use sail_proxy_decide::rate_limit::TokenBucketConfig;

use crate::convert::{Cx, arc, values};
use crate::pb;

/// `ConnectionLimit`
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// How many connections at a time.
    pub max_connections: u64,
    /// How long a refused one is kept.
    pub delay: Option<Duration>,
    /// Whether the filter is on.
    pub enabled: RuntimeFlag,
}

/// The network filter `local_ratelimit`.
#[derive(Clone, Debug)]
pub struct NetworkLocalRateLimit {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// The bucket.
    pub bucket: TokenBucketConfig,
    /// Filters with this key share a bucket; empty: this one has its own.
    pub share_key: Arc<str>,
    /// Whether the filter is on.
    pub enabled: RuntimeFlag,
}

/// `ConnectionLimit`
pub(super) fn connection_limit(
    cx: &mut Cx<'_>,
    value: pb::filters::network::connection_limit::v3::ConnectionLimit,
) -> Option<ConnectionLimit> {
    let pb::filters::network::connection_limit::v3::ConnectionLimit {
        stat_prefix,
        max_connections,
        delay,
        runtime_enabled,
    } = value;
    Some(ConnectionLimit {
        stat_prefix: arc(stat_prefix),
        max_connections: cx.required("max_connections", max_connections, |_, value| Some(value.value))?,
        delay: values::limit(cx, "delay", delay, None),
        enabled: values::feature_flag(runtime_enabled, true),
    })
}

/// `LocalRateLimit`
pub(super) fn local_rate_limit(
    cx: &mut Cx<'_>,
    value: pb::filters::network::local_ratelimit::v3::LocalRateLimit,
) -> Option<NetworkLocalRateLimit> {
    let pb::filters::network::local_ratelimit::v3::LocalRateLimit {
        stat_prefix,
        token_bucket,
        runtime_enabled,
        share_key,
    } = value;
    Some(NetworkLocalRateLimit {
        stat_prefix: arc(stat_prefix),
        bucket: cx.required("token_bucket", token_bucket, self::token_bucket)?,
        share_key: arc(share_key),
        enabled: values::feature_flag(runtime_enabled, true),
    })
}

/// `TokenBucket`
pub(crate) fn token_bucket(cx: &mut Cx<'_>, value: pb::ty::TokenBucket) -> Option<TokenBucketConfig> {
    let pb::ty::TokenBucket { max_tokens, tokens_per_fill, fill_interval } = value;
    if max_tokens == 0 {
        cx.error("max_tokens", "it must be above 0");
    }
    let fill_interval =
        values::duration(cx, "fill_interval", fill_interval).filter(|interval| !interval.is_zero());
    let Some(fill_interval) = fill_interval else {
        cx.error("fill_interval", "it must be above 0");
        return None;
    };
    if fill_interval < Duration::from_millis(50) {
        cx.error("fill_interval", "it must be 50ms or more");
    }
    Some(TokenBucketConfig { max_tokens, tokens_per_fill: values::u32_or(tokens_per_fill, 1), fill_interval })
}
