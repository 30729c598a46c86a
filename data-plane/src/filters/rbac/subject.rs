//! A request as policies see it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use sail_proxy_decide::cel::{Attribute, Value as Cel};
use sail_proxy_decide::head::RequestHead;
use sail_proxy_decide::rbac::{Input, Peer};
use serde_json::Value;

use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::router::Found;
use crate::stream_info::{Direction, StreamInfo};

/// See the module's documentation.
pub(crate) struct Subject<'a> {
    exchange: &'a Exchange,
    head: &'a Head,
    info: &'a StreamInfo,
    found: Option<Rc<Found>>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(exchange: &'a Exchange, head: &'a Head, info: &'a StreamInfo) -> Self {
        Self { exchange, head, info, found: exchange.routed.get().clone() }
    }
}

impl Input for Subject<'_> {
    fn head(&self) -> Option<RequestHead<'_>> {
        Some(self.head.view())
    }

    fn destination(&self) -> Option<(IpAddr, u16)> {
        let local = self.info.downstream.local_address;
        Some((local.ip(), local.port()))
    }

    fn source_ip(&self) -> Option<IpAddr> {
        self.direct_remote_ip()
    }

    fn direct_remote_ip(&self) -> Option<IpAddr> {
        Some(self.info.downstream.direct_remote_address.ip())
    }

    fn remote_ip(&self) -> Option<IpAddr> {
        Some(self.info.downstream.remote_address.ip())
    }

    fn requested_server_name(&self) -> &str {
        self.info.downstream.server_name.as_deref().unwrap_or_default()
    }

    fn peer(&self) -> Option<Peer<'_>> {
        self.exchange.connection.accepted.peer()
    }

    fn is_tls(&self) -> bool {
        self.exchange.connection.accepted.tls.is_some()
    }

    fn dynamic_metadata(&self, namespace: &str) -> Option<Cow<'_, Value>> {
        self.info.dynamic_metadata.get(namespace).map(Cow::Borrowed)
    }

    fn route_metadata(&self, namespace: &str) -> Option<&Value> {
        self.found.as_ref()?.route.as_ref()?.metadata.as_ref()?.get(namespace)
    }

    fn filter_state(&self, key: &str) -> Option<Cow<'_, str>> {
        self.info.filter_state(key).map(Cow::Borrowed)
    }

    fn attribute(&self, attribute: Attribute) -> Option<Cel<'_>> {
        let info = self.info;
        let downstream = &info.downstream;
        let route = || self.found.as_ref()?.route.as_ref();
        Some(match attribute {
            Attribute::RequestTime => {
                let since = info.start_time.duration_since(UNIX_EPOCH).ok()?;
                Cel::Timestamp(i128::try_from(since.as_nanos()).ok()?)
            }
            Attribute::RequestProtocol => Cel::text(info.protocol?.as_str()),
            Attribute::RequestSize => {
                let length = self.head.headers.get(http::header::CONTENT_LENGTH)?;
                Cel::Int(length.to_str().ok()?.parse().ok()?)
            }
            Attribute::SourceAddress => Cel::text(downstream.remote_address.to_string()),
            Attribute::SourcePort => Cel::Int(downstream.remote_address.port().into()),
            Attribute::ConnectionId => Cel::Uint(downstream.connection_id),
            Attribute::ConnectionTlsVersion => Cel::text(downstream.tls.as_ref()?.version),
            Attribute::ConnectionSubjectLocal => {
                Cel::text(downstream.tls.as_ref()?.local_subject.as_deref()?)
            }
            Attribute::ConnectionUriSanLocal => {
                Cel::text(&**downstream.tls.as_ref()?.local_uri_sans.first()?)
            }
            Attribute::ConnectionSha256Peer => {
                Cel::text(downstream.tls.as_ref()?.peer_fingerprint.as_deref()?)
            }
            Attribute::XdsClusterName => Cel::text(self.found.as_ref()?.cluster.as_deref()?),
            Attribute::XdsRouteName => Cel::text(&*route()?.name),
            Attribute::XdsVirtualHostName => Cel::text(&*self.found.as_ref()?.virtual_host.name),
            Attribute::XdsRouteMetadata => {
                let metadata = route()?.metadata.as_deref()?;
                Cel::from_json(Cow::Owned(Value::Object(metadata.clone())))
            }
            Attribute::XdsFilterChainName => Cel::text(info.filter_chain.as_deref()?),
            Attribute::XdsListenerDirection => Cel::Int(match downstream.direction {
                Direction::Unspecified => 0,
                Direction::Inbound => 1,
                Direction::Outbound => 2,
            }),
            _ => return None,
        })
    }
}
