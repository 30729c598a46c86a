//! HTTP routes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Destination, legacy};
use crate::decode::{Decode, Encode, object, take};
use crate::field::Cx;
use crate::number::Percent;
use crate::string_match::StringMatch;

message! {
    legacy(legacy::http_route);
    /// `HTTPRoute`: the first whose match holds decides.
    pub struct HttpRoute {
        name: String,
        /// Any of these; all requests when empty.
        r#match: Vec<HttpMatch>,
        route: Vec<HttpRouteDestination>,
        redirect: Option<Redirect>,
        direct_response: Option<DirectResponse>,
        delegate: Option<Delegate>,
        rewrite: Option<Rewrite>,
        timeout: Option<Duration>,
        retries: Option<Retry>,
        fault: Option<Fault>,
        mirror: Option<Destination>,
        /// Absent: everything is mirrored.
        mirror_percentage: Option<Percent>,
        mirrors: Vec<MirrorPolicy>,
        cors_policy: Option<CorsPolicy>,
        headers: Option<Headers>,
    }
}

/// What an HTTP route does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAction<'a> {
    /// Sends it to one of these.
    Route(&'a [HttpRouteDestination]),
    /// Answers with a redirect.
    Redirect(&'a Redirect),
    /// Answers itself.
    DirectResponse(&'a DirectResponse),
    /// Looks in another VirtualService.
    Delegate(&'a Delegate),
}

impl HttpRoute {
    /// The one action that validation makes sure of.
    pub fn action(&self) -> HttpAction<'_> {
        if let Some(redirect) = &self.redirect {
            return HttpAction::Redirect(redirect);
        }
        if let Some(response) = &self.direct_response {
            return HttpAction::DirectResponse(response);
        }
        match &self.delegate {
            Some(delegate) if self.route.is_empty() => HttpAction::Delegate(delegate),
            _ => HttpAction::Route(&self.route),
        }
    }

    /// `mirror` and `mirrors` as one list.
    pub fn all_mirrors(&self) -> impl Iterator<Item = (&Destination, Percent)> {
        let one = self.mirror.iter().map(|d| (d, self.mirror_percentage.unwrap_or(Percent::HUNDRED)));
        let more = self.mirrors.iter().map(|m| (&m.destination, m.percentage.unwrap_or(Percent::HUNDRED)));
        one.chain(more)
    }
}

message! {
    /// `HTTPMatchRequest`: all that is set must hold.
    pub struct HttpMatch {
        name: String,
        uri: Option<StringMatch>,
        scheme: Option<StringMatch>,
        method: Option<StringMatch>,
        authority: Option<StringMatch>,
        headers: BTreeMap<String, StringMatch>,
        without_headers: BTreeMap<String, StringMatch>,
        query_params: BTreeMap<String, StringMatch>,
        ignore_uri_case: bool,
        port: Option<u16>,
        source_labels: BTreeMap<String, String>,
        source_namespace: String,
        gateways: Vec<String>,
        stat_prefix: String,
    }
}

message! {
    legacy(legacy::http_route_destination);
    /// A weighted destination.
    pub struct HttpRouteDestination {
        destination: Destination,
        weight: i32,
        headers: Option<Headers>,
    }
}

message! {
    /// Header changes on the way there and back.
    pub struct Headers {
        request: HeaderOperations,
        response: HeaderOperations,
    }
}

message! {
    /// Header changes in one direction.
    pub struct HeaderOperations {
        set: BTreeMap<String, String>,
        add: BTreeMap<String, String>,
        remove: Vec<String>,
    }
}

message! {
    /// `HTTPRedirect`.
    pub struct Redirect {
        uri: String,
        prefix_rewrite: String,
        authority: String,
        scheme: String,
        port: Option<u16>,
        derive_port: Option<RedirectPort>,
        /// Absent: 301.
        redirect_code: Option<u32>,
    }
}

enumeration! {
    /// Where the port of a redirect comes from.
    pub enum RedirectPort {
        #[default]
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT" = 0,
        FromRequestPort = "FROM_REQUEST_PORT" = 1,
    }
}

message! {
    /// `HTTPDirectResponse`.
    pub struct DirectResponse {
        status: u32,
        body: Option<DirectResponseBody>,
    }
}

/// The body of a direct response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DirectResponseBody {
    /// Text.
    String(String),
    /// Base64 of bytes.
    Bytes(String),
}

impl Decode for DirectResponseBody {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let mut map = object(value, cx)?.clone();
        let (text, bytes) = (take(&mut map, "string"), take(&mut map, "bytes"));
        for key in map.keys() {
            cx.error_at(key, "unknown field");
        }
        match (text, bytes) {
            (Some(text), None) => cx.field("string", |cx| String::decode(&text, cx)).map(Self::String),
            (None, Some(bytes)) => cx.field("bytes", |cx| String::decode(&bytes, cx)).map(Self::Bytes),
            _ => {
                cx.error("exactly one of string and bytes must be set");
                None
            }
        }
    }
}

impl Encode for DirectResponseBody {
    fn encode(&self) -> Value {
        let (key, text) = match self {
            Self::String(text) => ("string", text),
            Self::Bytes(bytes) => ("bytes", bytes),
        };
        Value::Object(Map::from_iter([(key.to_owned(), Value::String(text.clone()))]))
    }
    fn skip(&self) -> bool {
        false
    }
}

message! {
    /// Another VirtualService that goes on.
    pub struct Delegate {
        name: String,
        namespace: String,
    }
}

message! {
    /// `HTTPRewrite`.
    pub struct Rewrite {
        uri: String,
        authority: String,
        uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// A path rewritten by an RE2 expression.
    pub struct RegexRewrite {
        r#match: String,
        rewrite: String,
    }
}

message! {
    /// `HTTPRetry`.
    pub struct Retry {
        attempts: i32,
        per_try_timeout: Option<Duration>,
        /// Empty: Istio's default conditions.
        retry_on: String,
        retry_remote_localities: Option<bool>,
        retry_ignore_previous_hosts: Option<bool>,
        backoff: Option<Duration>,
    }
}

message! {
    /// `HTTPFaultInjection`.
    pub struct Fault {
        delay: Option<Delay>,
        abort: Option<Abort>,
    }
}

message! {
    legacy(legacy::percentage);
    /// A delay before a share of the requests.
    pub struct Delay {
        fixed_delay: Option<Duration>,
        /// Absent: none.
        percentage: Option<Percent>,
    }
}

/// An error in place of a share of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Abort {
    /// Which error.
    pub code: AbortCode,
    /// Absent: none.
    pub percentage: Option<Percent>,
}

/// Which error an abort gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AbortCode {
    /// An HTTP status.
    Http(u32),
    /// A gRPC status by name.
    Grpc(String),
}

message! {
    legacy(legacy::percentage);
    struct RawAbort {
        http_status: Option<u32>,
        grpc_status: Option<String>,
        http2_error: Option<String>,
        percentage: Option<Percent>,
    }
}

impl Decode for Abort {
    fn decode(value: &Value, cx: &mut Cx) -> Option<Self> {
        let raw = RawAbort::decode(value, cx)?;
        let code = match (raw.http_status, raw.grpc_status, raw.http2_error) {
            (Some(status), None, None) => AbortCode::Http(status),
            (None, Some(status), None) => AbortCode::Grpc(status),
            (_, _, Some(_)) => {
                cx.error_at("http2Error", "HTTP/2 errors cannot be injected: use httpStatus or grpcStatus");
                return None;
            }
            _ => {
                cx.error("exactly one of httpStatus and grpcStatus must be set");
                return None;
            }
        };
        Some(Self { code, percentage: raw.percentage })
    }
}

impl Encode for Abort {
    fn encode(&self) -> Value {
        let mut raw = RawAbort { percentage: self.percentage, ..RawAbort::default() };
        match &self.code {
            AbortCode::Http(status) => raw.http_status = Some(*status),
            AbortCode::Grpc(status) => raw.grpc_status = Some(status.clone()),
        }
        raw.encode()
    }
    fn skip(&self) -> bool {
        false
    }
}

message! {
    /// One of several mirrors.
    pub struct MirrorPolicy {
        destination: Destination,
        /// Absent: everything is mirrored.
        percentage: Option<Percent>,
    }
}

message! {
    legacy(legacy::cors);
    /// `CorsPolicy`.
    pub struct CorsPolicy {
        allow_origins: Vec<StringMatch>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        max_age: Option<Duration>,
        allow_credentials: Option<bool>,
        unmatched_preflights: UnmatchedPreflights,
    }
}

enumeration! {
    /// What happens to preflights that match no origin.
    pub enum UnmatchedPreflights {
        #[default]
        Unspecified = "UNSPECIFIED" = 0,
        Forward = "FORWARD" = 1,
        Ignore = "IGNORE" = 2,
    }
}
