//! Headers by which a request controls the router, and whether their values are such as the router understands.

use http::HeaderMap;

use super::retry::RetryOn;

/// A header whose value may be checked strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlHeader {
    /// `x-envoy-upstream-rq-timeout-ms`
    Timeout,
    /// `x-envoy-upstream-rq-per-try-timeout-ms`
    PerTryTimeout,
    /// `x-envoy-max-retries`
    MaxRetries,
    /// `x-envoy-retry-on`
    RetryOn,
    /// `x-envoy-retry-grpc-on`
    RetryGrpcOn,
}

impl ControlHeader {
    /// Each of them.
    pub const ALL: [Self; 5] =
        [Self::Timeout, Self::PerTryTimeout, Self::MaxRetries, Self::RetryOn, Self::RetryGrpcOn];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "x-envoy-upstream-rq-timeout-ms",
            Self::PerTryTimeout => "x-envoy-upstream-rq-per-try-timeout-ms",
            Self::MaxRetries => "x-envoy-max-retries",
            Self::RetryOn => "x-envoy-retry-on",
            Self::RetryGrpcOn => "x-envoy-retry-grpc-on",
        }
    }

    /// What the request has in it, if the router does not understand that.
    pub fn misunderstood(self, headers: &HeaderMap) -> Option<String> {
        let value = headers.get(self.name())?;
        let text = value.to_str().unwrap_or_default();
        let good = match self {
            Self::Timeout | Self::PerTryTimeout | Self::MaxRetries => text.parse::<u64>().is_ok(),
            Self::RetryOn | Self::RetryGrpcOn => RetryOn::parse(text).1.is_none(),
        };
        (!good).then(|| String::from_utf8_lossy(value.as_bytes()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_or_condition_is_misunderstood() {
        let check = |header: ControlHeader, value: &'static str, expect: Option<&str>| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static(header.name()),
                http::HeaderValue::from_static(value),
            )]);
            assert_eq!(header.misunderstood(&headers).as_deref(), expect, "{value}");
        };
        check(ControlHeader::Timeout, "15", None);
        check(ControlHeader::Timeout, "15s", Some("15s"));
        check(ControlHeader::RetryOn, "5xx,reset", None);
        check(ControlHeader::RetryOn, "5xx,sometimes", Some("5xx,sometimes"));
    }
}
