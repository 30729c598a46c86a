//! Load balancing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::decode::{Decode, Encode, object, take};
use crate::field::Cx;
use crate::number::Float;

message! {
    /// `LoadBalancerSettings`.
    pub struct LoadBalancer {
        simple: Option<SimpleLb>,
        consistent_hash: Option<ConsistentHash>,
        locality_lb_setting: Option<LocalityLbSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        warmup: Option<Warmup>,
        /// Deprecated: `warmup.duration`.
        warmup_duration_secs: Option<Duration>,
        backend_utilization: Option<BackendUtilization>,
    }
}

enumeration! {
    /// Balancing without affinity.
    pub enum SimpleLb {
        /// Istio's default, which is least request.
        #[default]
        Unspecified = "UNSPECIFIED" = 0,
        /// Deprecated name of least request.
        LeastConn = "LEAST_CONN" = 1,
        Random = "RANDOM" = 2,
        Passthrough = "PASSTHROUGH" = 3,
        RoundRobin = "ROUND_ROBIN" = 4,
        LeastRequest = "LEAST_REQUEST" = 5,
    }
}

/// `ConsistentHashLB`: what is hashed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: ConsistentHashKey,
    /// The algorithm.
    pub algorithm: HashAlgorithm,
}

/// What a consistent hash is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConsistentHashKey {
    /// A request header.
    HttpHeaderName(String),
    /// A cookie, set if absent when it has a TTL.
    HttpCookie(HttpCookie),
    /// The address of the peer.
    UseSourceIp,
    /// A query parameter.
    HttpQueryParameterName(String),
}

/// How a consistent hash picks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// Ketama ring.
    RingHash(RingHash),
    /// Maglev.
    Maglev(MagLev),
}

message! {
    /// Ring of at least so many points.
    pub struct RingHash {
        /// Absent: 1024.
        minimum_ring_size: Option<u64>,
    }
}

message! {
    /// Maglev's table.
    pub struct MagLev {
        /// Absent: 65537.
        table_size: Option<u64>,
    }
}

message! {
    /// The cookie of a session.
    pub struct HttpCookie {
        name: String,
        path: String,
        ttl: Option<Duration>,
        attributes: Vec<CookieAttribute>,
    }
}

message! {
    /// `SameSite=Lax` and its like.
    pub struct CookieAttribute {
        name: String,
        value: String,
    }
}

message! {
    struct RawConsistentHash {
        http_header_name: Option<String>,
        http_cookie: Option<HttpCookie>,
        use_source_ip: Option<bool>,
        http_query_parameter_name: Option<String>,
        ring_hash: Option<RingHash>,
        maglev: Option<MagLev>,
    }
}

impl Decode for ConsistentHash {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let mut map = object(value, cx)?.clone();
        let deprecated_size = take(&mut map, "minimum_ring_size");
        let raw = RawConsistentHash::decode(&Value::Object(map), cx)?;
        let keys: Vec<ConsistentHashKey> = [
            raw.http_header_name.map(ConsistentHashKey::HttpHeaderName),
            raw.http_cookie.map(ConsistentHashKey::HttpCookie),
            raw.use_source_ip.filter(|on| *on).map(|_| ConsistentHashKey::UseSourceIp),
            raw.http_query_parameter_name.map(ConsistentHashKey::HttpQueryParameterName),
        ]
        .into_iter()
        .flatten()
        .collect();
        let [key] = <[_; 1]>::try_from(keys)
            .map_err(|_| {
                cx.error("exactly one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName must be set");
            })
            .ok()?;
        let size = match deprecated_size {
            Some(size) => cx.field("minimumRingSize", |cx| {
                cx.warn("is deprecated: write ringHash: {minimumRingSize: …}");
                Option::<u64>::decode(&size, cx)
            })?,
            None => None,
        };
        let algorithm = match (raw.ring_hash, raw.maglev) {
            (Some(_), Some(_)) => {
                cx.error("only one of ringHash and maglev may be set");
                return None;
            }
            (None, Some(maglev)) => HashAlgorithm::Maglev(maglev),
            (ring, None) => {
                let ring = ring.unwrap_or(RingHash { minimum_ring_size: size });
                HashAlgorithm::RingHash(ring)
            }
        };
        Some(Self { key, algorithm })
    }
}

impl Encode for ConsistentHash {
    fn encode(&self) -> Value {
        let mut raw = RawConsistentHash::default();
        match &self.key {
            ConsistentHashKey::HttpHeaderName(name) => raw.http_header_name = Some(name.clone()),
            ConsistentHashKey::HttpCookie(cookie) => raw.http_cookie = Some(cookie.clone()),
            ConsistentHashKey::UseSourceIp => raw.use_source_ip = Some(true),
            ConsistentHashKey::HttpQueryParameterName(name) => {
                raw.http_query_parameter_name = Some(name.clone())
            }
        }
        match &self.algorithm {
            HashAlgorithm::RingHash(ring) => raw.ring_hash = Some(ring.clone()),
            HashAlgorithm::Maglev(maglev) => raw.maglev = Some(maglev.clone()),
        }
        raw.encode()
    }
    fn skip(&self) -> bool {
        false
    }
}

message! {
    /// `LocalityLoadBalancerSetting`.
    pub struct LocalityLbSetting {
        distribute: Vec<Distribute>,
        failover: Vec<Failover>,
        failover_priority: Vec<String>,
        enabled: Option<bool>,
    }
}

message! {
    /// Weights of localities, seen from one.
    pub struct Distribute {
        from: String,
        to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where a region's traffic goes when it fails.
    pub struct Failover {
        from: String,
        to: String,
    }
}

message! {
    /// `ZoneAwareLoadBalancerSetting`.
    pub struct ZoneAwareLbSetting {
        enabled: Option<bool>,
        failover: Vec<Failover>,
        failover_priority: Vec<String>,
        min_cluster_size: Option<u64>,
    }
}

message! {
    /// Slow start of new endpoints.
    pub struct Warmup {
        duration: Option<Duration>,
        /// Absent: 10.
        minimum_percent: Option<Float>,
        /// Absent: 1.
        aggression: Option<Float>,
    }
}

message! {
    /// Client-side weighted round robin by what the backends report.
    pub struct BackendUtilization {
        error_utilization_penalty_percent: Option<u32>,
        metric_names_for_computing_utilization: Vec<String>,
        blackout_period: Option<Duration>,
        weight_expiration_period: Option<Duration>,
        weight_update_period: Option<Duration>,
    }
}
