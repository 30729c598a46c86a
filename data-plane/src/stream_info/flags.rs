//! Response flags: what went wrong with a stream, in Envoy's spelling.

use std::fmt;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $short:literal, $long:literal;)*) => {
        /// One thing that went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum ResponseFlag {
            $($(#[$doc])* $name,)*
        }

        impl ResponseFlag {
            /// All flags.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As `%RESPONSE_FLAGS%` prints it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $short,)*
                }
            }

            /// As `%RESPONSE_FLAGS_LONG%` prints it.
            pub const fn long(self) -> &'static str {
                match self {
                    $(Self::$name => $long,)*
                }
            }
        }
    };
}

flags! {
    /// The local service failed its health check.
    FailedLocalHealthCheck = "LH", "FailedLocalHealthCheck";
    /// No healthy upstream.
    NoHealthyUpstream = "UH", "NoHealthyUpstream";
    /// The upstream took too long.
    UpstreamRequestTimeout = "UT", "UpstreamRequestTimeout";
    /// The proxy reset the stream.
    LocalReset = "LR", "LocalReset";
    /// The upstream reset the stream.
    UpstreamRemoteReset = "UR", "UpstreamRemoteReset";
    /// No connection to the upstream.
    UpstreamConnectionFailure = "UF", "UpstreamConnectionFailure";
    /// The upstream closed the connection.
    UpstreamConnectionTermination = "UC", "UpstreamConnectionTermination";
    /// A circuit breaker is open.
    UpstreamOverflow = "UO", "UpstreamOverflow";
    /// No route matched; for TCP, no filter chain or cluster.
    NoRouteFound = "NR", "NoRouteFound";
    /// The fault filter delayed it.
    DelayInjected = "DI", "DelayInjected";
    /// The fault filter aborted it.
    FaultInjected = "FI", "FaultInjected";
    /// Rate limited.
    RateLimited = "RL", "RateLimited";
    /// The external authorization service refused it.
    UnauthorizedExternalService = "UAEX", "UnauthorizedExternalService";
    /// The rate limit service failed.
    RateLimitServiceError = "RLSE", "RateLimitServiceError";
    /// The client went away.
    DownstreamConnectionTermination = "DC", "DownstreamConnectionTermination";
    /// Retries are used up, or the connection attempts of TCP.
    UpstreamRetryLimitExceeded = "URX", "UpstreamRetryLimitExceeded";
    /// Nothing moved for too long.
    StreamIdleTimeout = "SI", "StreamIdleTimeout";
    /// An `x-envoy-` header has a bad value.
    InvalidEnvoyRequestHeaders = "IH", "InvalidEnvoyRequestHeaders";
    /// The client broke the protocol.
    DownstreamProtocolError = "DPE", "DownstreamProtocolError";
    /// The upstream broke the protocol.
    UpstreamProtocolError = "UPE", "UpstreamProtocolError";
    /// The upstream's stream lived too long.
    UpstreamMaxStreamDurationReached = "UMSDR", "UpstreamMaxStreamDurationReached";
    /// The answer came from a cache.
    ResponseFromCacheFilter = "RFCF", "ResponseFromCacheFilter";
    /// A filter's configuration has not arrived.
    NoFilterConfigFound = "NFCF", "NoFilterConfigFound";
    /// The stream lived too long.
    DurationTimeout = "DT", "DurationTimeout";
    /// The cluster does not exist.
    NoClusterFound = "NC", "NoClusterFound";
    /// The overload manager ended it.
    OverloadManagerTerminated = "OM", "OverloadManagerTerminated";
    /// The upstream's name did not resolve.
    DnsResolutionFailed = "DF", "DnsResolutionFailed";
    /// The cluster's load assignment had it dropped.
    DropOverload = "DO", "DropOverload";
    /// The client reset the stream.
    DownstreamRemoteReset = "DR", "DownstreamRemoteReset";
    /// The cluster's load assignment has all requests dropped.
    UnconditionalDropOverload = "UDO", "UnconditionalDropOverload";
}

/// What went wrong with a stream, in the order in which it did; usually nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags {
    /// A bit for each flag.
    set: u32,
    /// Five bits for each flag that was set, the first of them lowest; numbers count from 1.
    order: u64,
}

const BITS: u32 = 5;

impl ResponseFlags {
    /// Adds one.
    pub fn set(&mut self, flag: ResponseFlag) {
        if self.has(flag) {
            return;
        }
        // What has no room would be the thirteenth that went wrong.
        let place = BITS * self.set.count_ones();
        if place + BITS <= u64::BITS {
            self.order |= (u64::from(flag as u8) + 1) << place;
        }
        self.set |= 1 << flag as u8;
    }

    /// Whether this one is set.
    pub fn has(self, flag: ResponseFlag) -> bool {
        self.set & 1 << flag as u8 != 0
    }

    /// Whether none is set.
    pub fn is_empty(self) -> bool {
        self.set == 0
    }

    /// Those that are set.
    pub fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        let numbers = std::iter::successors(Some(self.order), |order| Some(order >> BITS));
        numbers
            .map(|order| (order & ((1 << BITS) - 1)) as usize)
            .take_while(|number| *number > 0)
            .filter_map(|number| ResponseFlag::ALL.get(number - 1).copied())
    }
}

/// `-` for none, else the short names with commas.
impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut flags = self.iter();
        f.write_str(flags.next().map_or("-", ResponseFlag::as_str))?;
        flags.try_for_each(|flag| write!(f, ",{}", flag.as_str()))
    }
}
