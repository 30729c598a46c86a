//! `VirtualService`: where requests to a host go.

mod http;
mod l4;
mod legacy;
mod validate;

pub use http::{
    Abort, AbortCode, CorsPolicy, Delay, Delegate, DirectResponse, DirectResponseBody, Fault,
    HeaderOperations, Headers, HttpAction, HttpMatch, HttpRoute, HttpRouteDestination, MirrorPolicy,
    Redirect, RedirectPort, RegexRewrite, Retry, Rewrite, UnmatchedPreflights,
};
pub use l4::{L4Match, RouteDestination, TcpRoute, TlsMatch, TlsRoute};

use crate::decode::{Decode, has, take};
use crate::field::Cx;
use crate::kind::Kind;
use crate::object::{ObjectMeta, Spec};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The gateway name that stands for all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

message! {
    /// `networking.istio.io/VirtualService`.
    pub struct VirtualService {
        hosts: Vec<String>,
        /// Empty: `mesh`. See [`VirtualService::gateways_or_mesh`].
        gateways: Vec<String>,
        http: Vec<HttpRoute>,
        tls: Vec<TlsRoute>,
        tcp: Vec<TcpRoute>,
        export_to: Vec<String>,
    }
}

impl VirtualService {
    /// The gateways that this applies to: `mesh` when none is named.
    pub fn gateways_or_mesh(&self) -> impl Iterator<Item = &str> {
        let default = self.gateways.is_empty().then_some(MESH_GATEWAY);
        self.gateways.iter().map(String::as_str).chain(default)
    }
}

impl Spec for VirtualService {
    const KIND: Kind = Kind::VirtualService;
    fn validate(&self, meta: &ObjectMeta, cx: &mut Cx) {
        validate::virtual_service(self, meta, cx);
    }
}

message! {
    legacy(port_selector_of_destination);
    /// A service (and subset of it) by its host name.
    pub struct Destination {
        /// A full name, or a short one that is completed with the namespace of the VirtualService.
        host: String,
        /// Empty: the whole service.
        subset: String,
        /// May be absent when the service has one port.
        port: Option<u16>,
    }
}

/// `port: {number: 80}` reads as `port: 80`.
pub(crate) fn port_selector_of_destination<'a>(
    mut map: Cow<'a, Map<String, Value>>,
    cx: &mut Cx,
) -> Cow<'a, Map<String, Value>> {
    if has(&map, "port") {
        port_selector(map.to_mut(), cx);
    }
    map
}

/// Replaces a `PortSelector` object in `map.port` by its number.
pub(crate) fn port_selector(map: &mut Map<String, Value>, cx: &mut Cx) {
    let Some(selector) = take(map, "port") else { return };
    let number = cx.field("port", |cx| match selector {
        Value::Object(mut fields) => {
            let number = take(&mut fields, "number");
            if let Some((key, _)) = fields.iter().next() {
                let hint = if key == "name" { "ports are selected by number" } else { "unknown field" };
                cx.error_at(key, hint);
            }
            number.and_then(|n| cx.field("number", |cx| u16::decode(&n, cx)))
        }
        other => {
            crate::decode::expected("an object like {number: 80}", &other, cx);
            None
        }
    });
    if let Some(number) = number {
        map.insert("port".to_owned(), Value::from(number));
    }
}

/// The names of gRPC's status codes, by number.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The number of a gRPC status by its name.
pub fn grpc_status(name: &str) -> Option<u32> {
    GRPC_STATUS.iter().position(|known| *known == name).and_then(|index| u32::try_from(index).ok())
}
