//! What policies know of a request, as attributes of expressions and as inputs of matcher trees.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::Input;
use crate::cel::{Attribute, Attributes, Program, Table, Value};
use crate::head::{HeaderKey, path_only};
use crate::matcher::query_value;
use crate::matcher::tree::{self, Data};

/// An [`Input`], in other words.
#[derive(Debug)]
pub struct Known<'a, I>(pub &'a I);

fn text(value: Option<Cow<'_, [u8]>>) -> Option<Value<'_>> {
    Some(Value::String(match value? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok()?.into(),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok()?.into(),
    }))
}

fn some(text: &str) -> Option<Value<'_>> {
    (!text.is_empty()).then(|| Value::text(text))
}

fn list(names: &[String]) -> Option<Value<'_>> {
    // As in Envoy, one name is told: the first.
    names.first().map(|name| Value::text(name.as_str()))
}

impl<I: Input> Attributes for Known<'_, I> {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        let input = self.0;
        if let Some(value) = input.attribute(attribute) {
            return Some(value);
        }
        let header = |name| text(input.head()?.get(&HeaderKey::Name(name)));
        match attribute {
            Attribute::RequestPath => some(input.head()?.path),
            Attribute::RequestUrlPath => some(path_only(input.head()?.path)),
            Attribute::RequestQuery => Some(Value::text(input.head()?.query())),
            Attribute::RequestHost => some(input.head()?.authority),
            Attribute::RequestScheme => some(input.head()?.scheme),
            Attribute::RequestMethod => some(input.head()?.method),
            Attribute::RequestReferer => header(http::header::REFERER),
            Attribute::RequestUseragent => header(http::header::USER_AGENT),
            Attribute::RequestId => header(http::HeaderName::from_static("x-request-id")),
            Attribute::DestinationPort => Some(Value::Int(input.destination()?.1.into())),
            Attribute::DestinationAddress => {
                let (ip, port) = input.destination()?;
                Some(Value::text(std::net::SocketAddr::new(ip, port).to_string()))
            }
            Attribute::SourceAddress => Some(Value::text(input.remote_ip()?.to_string())),
            Attribute::ConnectionMtls => Some(Value::Bool(input.peer().is_some())),
            Attribute::ConnectionRequestedServerName => some(input.requested_server_name()),
            Attribute::ConnectionUriSanPeer => list(input.peer()?.uri_sans),
            Attribute::ConnectionDnsSanPeer => list(input.peer()?.dns_sans),
            Attribute::ConnectionSubjectPeer => some(input.peer()?.subject),
            _ => None,
        }
    }

    fn look_up(&self, table: Table, key: &str) -> Option<Value<'_>> {
        match table {
            Table::RequestHeaders => {
                let key = HeaderKey::parse(key).ok()?;
                text(self.0.head()?.get(&key))
            }
            Table::FilterMetadata => self.0.dynamic_metadata(key).map(Value::from_json),
            Table::FilterState => self.0.filter_state(key).map(|text| match text {
                Cow::Borrowed(text) => Value::Bytes(Cow::Borrowed(text.as_bytes())),
                Cow::Owned(text) => Value::Bytes(Cow::Owned(text.into_bytes())),
            }),
            Table::ResponseHeaders
            | Table::ResponseTrailers
            | Table::Metadata
            | Table::UpstreamFilterState => None,
        }
    }

    fn size(&self, table: Table) -> Option<usize> {
        match table {
            Table::RequestHeaders => Some(self.0.head()?.headers.keys_len()),
            _ => None,
        }
    }
}

impl<I: Input> Data for Known<'_, I> {
    fn text(&self, input: &tree::Input) -> Option<Cow<'_, str>> {
        use tree::Input as Kind;
        let this = self.0;
        let owned = |text: String| Some(Cow::Owned(text));
        let filled = |text: &'_ str| (!text.is_empty()).then_some(Cow::Owned(text.to_owned()));
        match input {
            Kind::RequestHeader(key) => match text(this.head()?.get(key))? {
                Value::String(text) => Some(text),
                _ => None,
            },
            Kind::QueryParam(name) => query_value(this.head()?.query(), name),
            Kind::DestinationIp => owned(this.destination()?.0.to_string()),
            Kind::DestinationPort => owned(this.destination()?.1.to_string()),
            Kind::SourceIp => owned(this.remote_ip()?.to_string()),
            Kind::DirectSourceIp => owned(this.direct_remote_ip()?.to_string()),
            Kind::SourcePort => match this.attribute(Attribute::SourcePort)? {
                Value::Int(port) => owned(port.to_string()),
                _ => None,
            },
            Kind::ServerName => filled(this.requested_server_name()),
            Kind::UriSan => filled(&this.peer()?.uri_sans.join(",")),
            Kind::DnsSan => filled(&this.peer()?.dns_sans.join(",")),
            Kind::Subject => filled(this.peer()?.subject),
            Kind::FilterState(key) => this.filter_state(key),
            Kind::Metadata(..) => match self.value(input)? {
                Cow::Borrowed(Json::String(text)) => Some(Cow::Borrowed(text)),
                Cow::Owned(Json::String(text)) => Some(Cow::Owned(text)),
                _ => None,
            },
            // Requests are looked at before there is a response.
            Kind::ResponseStatus
            | Kind::ResponseStatusClass
            | Kind::ResponseIsLocal
            | Kind::ResponseHeader(_)
            | Kind::Attributes => None,
        }
    }

    fn value(&self, input: &tree::Input) -> Option<Cow<'_, Json>> {
        match input {
            tree::Input::Metadata(namespace, path) => match self.0.dynamic_metadata(namespace)? {
                Cow::Borrowed(value) => crate::matcher::lookup(value, path).map(Cow::Borrowed),
                Cow::Owned(value) => crate::matcher::lookup(&value, path).cloned().map(Cow::Owned),
            },
            input => self.text(input).map(|text| Cow::Owned(Json::String(text.into_owned()))),
        }
    }

    fn holds(&self, program: &Program) -> bool {
        program.holds(self)
    }
}
