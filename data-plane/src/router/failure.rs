//! Why a try brought no response, and what that means: for retries, for logs, for the client.

use std::rc::Rc;

use http::StatusCode;
use sail_proxy_decide::route::retry::Reset;
use sail_proxy_http2::frame::Reason;

use crate::http::body::BodyError;
use crate::http::local_reply::LocalReply;
use crate::pool::PoolError;
use crate::stream_info::{ResponseFlag, details};
use crate::{http1, http2};

/// The ways a try can fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No host is fit to be asked.
    NoHealthyHost,
    /// A circuit breaker is open.
    Overflow,
    /// No connection came about.
    Connect(Rc<str>),
    ConnectTimeout,
    /// The connection ended before the response. `started`: a byte of the request may have reached the upstream.
    Terminated {
        started: bool,
    },
    /// The upstream reset the stream.
    Reset,
    /// The upstream refused the stream before working on it.
    Refused,
    /// What came was no HTTP.
    Protocol,
    /// This try, or the request as a whole, ran out of time.
    PerTryTimeout,
    /// The upstream was silent for too long.
    PerTryIdleTimeout,
    /// The stream may not last longer.
    MaxDuration,
    Timeout,
    /// The request's own body broke off.
    Downstream,
    /// The authority cannot be written as HTTP/2 asks.
    BadAuthority,
    /// One of the try's own filters answers.
    Answered(Answer),
}

/// What a filter of a try says.
#[derive(Clone, Debug)]
pub(crate) struct Answer(pub(super) Rc<LocalReply>);

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Answer {}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Overflow => Self::Overflow,
            PoolError::Connect(reason) => Self::Connect(reason),
            PoolError::Timeout => Self::ConnectTimeout,
        }
    }
}

impl Failure {
    /// What the codec's error says.
    pub(crate) fn of_codec(error: &BodyError, unsent: bool) -> Self {
        match error {
            BodyError::Http1(http1::Error::Invalid(_) | http1::Error::Partial) => Self::Protocol,
            BodyError::Http1(http1::Error::Body(_)) | BodyError::Request(_) => Self::Downstream,
            BodyError::Http2(http2::Error::Reset(Reason::PROTOCOL_ERROR)) => Self::Protocol,
            BodyError::Http2(http2::Error::Reset(_) | http2::Error::TooLarge | http2::Error::TooMany) => {
                Self::Reset
            }
            BodyError::Http2(http2::Error::Refused) => Self::Refused,
            BodyError::Http2(error) if error.is_violation() => Self::Protocol,
            BodyError::Http2(http2::Error::Unfinished) => Self::Downstream,
            BodyError::Http1(_) | BodyError::Http2(_) | BodyError::Reset(_) | BodyError::Unflushed => {
                Self::Terminated { started: !unsent }
            }
        }
    }

    /// As the retry decision takes it; `None` is never tried again.
    pub(crate) fn reset(&self) -> Option<Reset> {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => Some(Reset::ConnectFailure),
            Self::Terminated { .. } | Self::Reset | Self::Protocol | Self::MaxDuration => Some(Reset::Remote),
            Self::Refused => Some(Reset::RefusedStream),
            Self::PerTryTimeout | Self::PerTryIdleTimeout => Some(Reset::PerTryTimeout),
            Self::Overflow => Some(Reset::Overflow),
            Self::NoHealthyHost
            | Self::Timeout
            | Self::Downstream
            | Self::BadAuthority
            | Self::Answered(_) => None,
        }
    }

    /// Whether a byte of the request may have reached the upstream.
    pub(crate) fn started(&self) -> bool {
        !matches!(
            self,
            Self::Connect(_)
                | Self::ConnectTimeout
                | Self::Refused
                | Self::Overflow
                | Self::Terminated { started: false }
        )
    }

    /// Whether it is the upstream's fault.
    pub(crate) fn is_upstreams(&self) -> bool {
        !matches!(
            self,
            Self::NoHealthyHost | Self::Overflow | Self::Downstream | Self::BadAuthority | Self::Answered(_)
        )
    }

    /// Whether the upstream took too long to answer.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout | Self::PerTryTimeout | Self::PerTryIdleTimeout)
    }

    /// The response flag.
    pub(crate) fn flag(&self) -> Option<ResponseFlag> {
        Some(match self {
            Self::NoHealthyHost => ResponseFlag::NoHealthyUpstream,
            Self::Overflow => ResponseFlag::UpstreamOverflow,
            Self::Connect(_) | Self::ConnectTimeout => ResponseFlag::UpstreamConnectionFailure,
            Self::Terminated { .. } => ResponseFlag::UpstreamConnectionTermination,
            Self::Reset | Self::Refused => ResponseFlag::UpstreamRemoteReset,
            Self::Protocol => ResponseFlag::UpstreamProtocolError,
            Self::PerTryTimeout | Self::PerTryIdleTimeout | Self::Timeout => {
                ResponseFlag::UpstreamRequestTimeout
            }
            Self::MaxDuration => ResponseFlag::UpstreamMaxStreamDurationReached,
            Self::Downstream => ResponseFlag::DownstreamConnectionTermination,
            Self::BadAuthority => ResponseFlag::DownstreamProtocolError,
            Self::Answered(answer) => return answer.0.flag,
        })
    }

    /// The reason of a reset, as details have it, for what comes while a response is under way.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Reset => details::reset::REMOTE_RESET,
            Self::Refused => details::reset::REMOTE_REFUSED_STREAM,
            Self::Protocol => details::reset::PROTOCOL_ERROR,
            _ => details::reset::CONNECTION_TERMINATION,
        }
    }

    /// What the client is told after so many tries. The cause is for the operator: logs have it.
    pub(crate) fn reply(&self, tries: u32) -> LocalReply {
        let reset = |reason: &'static str, words: &str, cause: Option<&str>| {
            let retried = if tries > 1 { "retried and the latest " } else { "" };
            let mut reply = LocalReply::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "",
                details::upstream_reset(reason, false, cause),
            );
            reply.body = format!(
                "upstream connect error or disconnect/reset before headers. {retried}reset reason: {words}"
            )
            .into();
            reply
        };
        use details::reset as reason;
        let reply = match self {
            Self::NoHealthyHost => LocalReply::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no healthy upstream",
                details::NO_HEALTHY_UPSTREAM,
            ),
            Self::Overflow => reset(reason::OVERFLOW, "overflow", None).header(
                http::HeaderName::from_static("x-envoy-overloaded"),
                http::HeaderValue::from_static("true"),
            ),
            Self::Connect(cause) => {
                reset(reason::REMOTE_CONNECTION_FAILURE, "remote connection failure", Some(cause))
            }
            Self::ConnectTimeout => reset(reason::CONNECTION_TIMEOUT, "connection timeout", None),
            Self::Terminated { .. } => reset(reason::CONNECTION_TERMINATION, "connection termination", None),
            Self::Reset => reset(reason::REMOTE_RESET, "remote reset", None),
            Self::Refused => reset(reason::REMOTE_REFUSED_STREAM, "remote refused stream reset", None),
            Self::Protocol => LocalReply {
                status: StatusCode::BAD_GATEWAY,
                ..reset(reason::PROTOCOL_ERROR, "protocol error", None)
            },
            Self::Timeout => LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream request timeout",
                details::RESPONSE_TIMEOUT,
            ),
            Self::PerTryTimeout => LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream request timeout",
                details::UPSTREAM_PER_TRY_TIMEOUT,
            ),
            Self::PerTryIdleTimeout => LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream request timeout",
                details::UPSTREAM_PER_TRY_IDLE_TIMEOUT,
            ),
            Self::MaxDuration => LocalReply::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream max stream duration reached",
                details::UPSTREAM_MAX_STREAM_DURATION_REACHED,
            ),
            Self::Downstream => {
                LocalReply::new(StatusCode::BAD_REQUEST, "", details::DOWNSTREAM_REMOTE_DISCONNECT)
            }
            Self::BadAuthority => LocalReply::new(StatusCode::BAD_REQUEST, "", details::HTTP1_PROTOCOL_ERROR),
            Self::Answered(answer) => LocalReply::clone(&answer.0),
        };
        LocalReply { flag: self.flag(), ..reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_read_envoys_words() {
        let refused = Failure::Connect("delayed connect error: Connection refused".into());
        let reply = refused.reply(1);
        assert_eq!(
            reply.body,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        );
        assert_eq!(
            refused.reply(2).body,
            "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: \
             remote connection failure"
        );
        assert_eq!(reply.flag, Some(ResponseFlag::UpstreamConnectionFailure));
        assert_eq!(Failure::NoHealthyHost.reply(1).body, "no healthy upstream");
        assert_eq!(Failure::Timeout.reply(1).status, StatusCode::GATEWAY_TIMEOUT);
    }
}
