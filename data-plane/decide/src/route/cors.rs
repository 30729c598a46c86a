//! CORS: which origins may ask, and what they are told.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderValue};

use crate::fraction::{Runtime, RuntimeFraction};
use crate::head::RequestHead;
use crate::matcher::{StringMatch, StringMatcher};

/// `CorsPolicy`
#[derive(Debug)]
pub struct CorsPolicy {
    /// Origins that may ask.
    pub allow_origin: Box<[StringMatcher]>,
    /// `access-control-allow-methods`
    pub allow_methods: Option<HeaderValue>,
    /// `access-control-allow-headers`
    pub allow_headers: Option<HeaderValue>,
    /// `access-control-expose-headers`
    pub expose_headers: Option<HeaderValue>,
    /// `access-control-max-age`
    pub max_age: Option<HeaderValue>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// Whether pages outside may ask into a private network.
    pub allow_private_network_access: bool,
    /// Whether preflights from other origins go upstream, rather than being answered.
    pub forward_not_matching_preflights: bool,
    /// For how many requests it holds.
    pub enabled: RuntimeFraction,
    /// For how many it is only counted.
    pub shadow: RuntimeFraction,
}

/// What CORS makes of a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It is no cross-origin request, or the policy is off.
    Pass,
    /// The policy is only counted: whether the origin is allowed.
    Counted {
        /// Whether it is.
        allowed: bool,
    },
    /// A preflight: answered with 200 and these headers.
    Preflight(Box<HeaderMap>),
    /// A cross-origin request from an allowed origin: its response gets headers.
    Allowed(Origin),
    /// A request from an origin that is not allowed; it goes on without headers.
    Refused,
}

/// An allowed origin and the policy that allows it.
#[derive(Clone, Debug)]
pub struct Origin {
    policy: Arc<CorsPolicy>,
    origin: HeaderValue,
}

impl CorsPolicy {
    /// Decides on a request.
    pub fn decide(self: &Arc<Self>, head: &RequestHead<'_>, random: u64, runtime: &dyn Runtime) -> Decision {
        let Some(origin) = head.headers.get(ORIGIN).filter(|origin| !origin.is_empty()) else {
            return Decision::Pass;
        };
        if !self.enabled.hit(random, runtime) {
            return match self.shadow.hit(random, runtime) {
                true => Decision::Counted { allowed: self.allows(origin) },
                false => Decision::Pass,
            };
        }
        let allowed = self.allows(origin);
        let preflight = head.method == "OPTIONS" && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let matched = Origin { policy: Arc::clone(self), origin: origin.clone() };
        match (allowed, preflight) {
            (true, true) => {
                let private = head
                    .headers
                    .get("access-control-request-private-network")
                    .is_some_and(|value| value == "true");
                Decision::Preflight(Box::new(matched.preflight(private)))
            }
            (true, false) => Decision::Allowed(matched),
            (false, true) if !self.forward_not_matching_preflights => Decision::Preflight(Box::default()),
            (false, _) => Decision::Refused,
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.allow_origin.iter().any(|matcher| {
            // `*` as an exact match is every origin.
            matches!(&matcher.pattern, StringMatch::Exact(text) if &**text == "*")
                || matcher.is_match(origin.as_bytes())
        })
    }
}

impl Origin {
    fn preflight(&self, private: bool) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.common(&mut headers);
        let policy = &self.policy;
        let optional = [
            (ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods),
            (ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers),
            (ACCESS_CONTROL_MAX_AGE, &policy.max_age),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        if private && policy.allow_private_network_access {
            headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
        }
        headers
    }

    /// Writes what the origin must be told into the response.
    pub fn respond(&self, headers: &mut HeaderMap) {
        self.common(headers);
        if let Some(value) = &self.policy.expose_headers {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value.clone());
        }
    }

    fn common(&self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        if self.policy.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}
