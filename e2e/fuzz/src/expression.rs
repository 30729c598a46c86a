//! Small languages: CEL, format strings, path templates.

use std::borrow::Cow;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use sail_proxy_decide::cel::{Attribute, Attributes, Program, Table, Value};
use sail_proxy_decide::format::{self, Format, Missing, Operator};
use sail_proxy_decide::headers::{AddValue, AppendAction, HeaderAdd, HeaderOps};
use sail_proxy_decide::path_template::PathTemplate;

use crate::{parts, text};

struct Stream(serde_json::Value);

impl Attributes for Stream {
    fn get(&self, attribute: Attribute) -> Option<Value<'_>> {
        Some(match attribute {
            Attribute::RequestPath => Value::text("/info?x=1"),
            Attribute::SourcePort => Value::Int(4711),
            Attribute::ConnectionMtls => Value::Bool(true),
            Attribute::RequestTime => Value::Timestamp(1_709_210_096_500_000_000),
            _ => return None,
        })
    }

    fn look_up(&self, table: Table, key: &str) -> Option<Value<'_>> {
        match table {
            Table::FilterMetadata => self.0.get(key).map(|value| Value::from_json(Cow::Borrowed(value))),
            _ => (key == "x-a").then(|| Value::text("alpha")),
        }
    }
}

/// An expression is compiled or refused; what was compiled ends, with a value or an error.
pub fn cel(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(program) = Program::compile(text) else { return };
    let stream = Stream(serde_json::json!({"a": {"b": [1, "x", null], "c": 1.5}}));
    let _ = program.eval(&stream);
    let held = program.holds(&stream);
    assert_eq!(held, program.holds(&stream), "{text:?} does not say the same twice");
}

/// Every operator's value is the same, whatever it asks for.
struct Same<'a>(&'a str);

impl format::Attributes for Same<'_> {
    fn text(&self, _: &Operator) -> Option<Cow<'_, str>> {
        (!self.0.is_empty()).then_some(Cow::Borrowed(self.0))
    }
}

/// A format is read or refused, and written with any values.
pub fn format(data: &[u8]) {
    let (format, value) = parts(data);
    let (Some(format), Some(value)) = (text(format), text(value)) else { return };
    let Ok(read) = Format::parse(format) else { return };
    let mut out = String::new();
    read.write(&Same(value), Missing::Dash, &mut out);
    let _ = read.json(&Same(value), Missing::Empty);
    if let Some(literal) = read.as_literal() {
        let mut again = String::new();
        read.write(&Same("x"), Missing::Dash, &mut again);
        assert_eq!(literal, again, "{format:?} is no literal");
    }
}

/// Whatever a client's value is, a header that is made of it is one line.
pub fn header_value(data: &[u8]) {
    let (format, value) = parts(data);
    let (Some(format), Some(value)) = (text(format), text(value)) else { return };
    let Ok(read) = Format::parse(format) else { return };
    let add = |action| HeaderAdd {
        name: HeaderName::from_static("x-made"),
        value: AddValue::Format(read.clone()),
        action,
        keep_empty_value: true,
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-made", HeaderValue::from_static("before"));
    let actions = [AppendAction::AppendIfExistsOrAdd, AppendAction::OverwriteIfExistsOrAdd];
    let ops = HeaderOps { add: actions.map(add).into(), remove: Box::default() };
    ops.apply(&mut headers, &Same(value));
    for (name, value) in &headers {
        let broken = value.as_bytes().iter().any(|&byte| matches!(byte, b'\r' | b'\n' | 0));
        assert!(!broken, "{name}: {value:?} of {format:?}");
    }
}

/// A template is read or refused, and any path matched against it.
pub fn path_template(data: &[u8]) {
    let (template, path) = parts(data);
    let (Some(template), Some(path)) = (text(template), text(path)) else { return };
    if let Ok(template) = PathTemplate::new(template) {
        let _ = template.is_match(path);
    }
}
