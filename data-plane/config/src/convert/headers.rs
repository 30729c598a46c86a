//! Header operations and formats.

use http::{HeaderName, HeaderValue};
use sail_proxy_decide::format::{Command, Format, Operator, Segment};
use sail_proxy_decide::head::HeaderKey;
use sail_proxy_decide::headers::{AddValue, AppendAction, HeaderAdd, HeaderOps};

use super::Cx;
use crate::pb;

/// Field names of one level's operations.
pub(crate) struct Level {
    add: &'static str,
    remove: &'static str,
}

/// Operations on requests.
pub(crate) const REQUEST: Level =
    Level { add: "request_headers_to_add", remove: "request_headers_to_remove" };
/// Operations on responses.
pub(crate) const RESPONSE: Level =
    Level { add: "response_headers_to_add", remove: "response_headers_to_remove" };

/// The operations of one level.
pub(crate) fn ops(
    cx: &mut Cx<'_>,
    level: &Level,
    add: Vec<pb::core::HeaderValueOption>,
    remove: Vec<String>,
) -> HeaderOps {
    HeaderOps {
        add: cx.each(level.add, add, self::add).into(),
        remove: cx.each(level.remove, remove, removed).into(),
    }
}

/// A header's name that can be written.
pub(crate) fn removed(cx: &mut Cx<'_>, name: String) -> Option<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        cx.error("", format_args!("{name:?}: pseudo-headers and host cannot be changed this way"));
        return None;
    }
    self::name(cx, "", &name)
}

/// A header's name.
pub(crate) fn name(cx: &mut Cx<'_>, field: &str, name: &str) -> Option<HeaderName> {
    cx.ok(
        field,
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header's name")),
    )
}

/// A header's name, pseudo-headers included.
pub(crate) fn key(cx: &mut Cx<'_>, field: &str, name: &str) -> Option<HeaderKey> {
    cx.ok(field, HeaderKey::parse(name).map_err(|_| format!("{name:?} is not a header's name")))
}

/// What becomes a part of a header's value: a line break would begin another header.
pub(crate) fn text(cx: &mut Cx<'_>, field: &str, text: String) -> Box<str> {
    if text.contains(['\0', '\r', '\n']) {
        cx.error(field, "it must not have a line break or a NUL");
    }
    text.into()
}

/// A header's value.
pub(crate) fn value(cx: &mut Cx<'_>, field: &str, value: &str) -> Option<HeaderValue> {
    cx.ok(field, HeaderValue::from_str(value).map_err(|_| format!("{value:?} is not a header's value")))
}

/// `HeaderValueOption`
pub(crate) fn add(cx: &mut Cx<'_>, option: pb::core::HeaderValueOption) -> Option<HeaderAdd> {
    use pb::core::header_value_option::HeaderAppendAction as Action;
    let pb::core::HeaderValueOption { header, append, append_action, keep_empty_value } = option;
    let header = cx.required("header", header, |_, header| Some(header))?;
    let pb::core::HeaderValue { key, value, raw_value } = header;
    let name = cx.within("header.key", |cx| removed(cx, key))?;
    let value = if raw_value.is_empty() {
        cx.within("header.value", |cx| add_value(cx, &value))?
    } else {
        let raw = HeaderValue::from_bytes(&raw_value).map_err(|_| "it is not a header's value");
        AddValue::Literal(cx.ok("header.raw_value", raw)?)
    };
    let action = match (append, Action::try_from(append_action)) {
        (Some(append), Ok(Action::AppendIfExistsOrAdd)) => {
            if append.value {
                AppendAction::AppendIfExistsOrAdd
            } else {
                AppendAction::OverwriteIfExistsOrAdd
            }
        }
        (Some(_), Ok(_)) => {
            cx.error("append", "append and append_action exclude each other");
            return None;
        }
        (None, Ok(Action::AppendIfExistsOrAdd)) => AppendAction::AppendIfExistsOrAdd,
        (None, Ok(Action::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (None, Ok(Action::OverwriteIfExistsOrAdd)) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Ok(Action::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        (_, Err(_)) => {
            cx.error("append_action", "it is not known");
            return None;
        }
    };
    Some(HeaderAdd { name, value, action, keep_empty_value })
}

fn add_value(cx: &mut Cx<'_>, text: &str) -> Option<AddValue> {
    let format = format(cx, text)?;
    match format.as_literal() {
        Some(literal) => value(cx, "", literal).map(AddValue::Literal),
        None => Some(AddValue::Format(format)),
    }
}

/// A format; environment variables are read here and now, and files must be there.
pub(crate) fn format(cx: &mut Cx<'_>, text: &str) -> Option<Format> {
    let format = cx.ok("", Format::parse(text))?;
    let settled =
        |operator: &Operator| matches!(operator, Operator::Environment(_) | Operator::FileContent(_));
    if !format.operators().any(settled) {
        return Some(format);
    }
    let mut segments = Vec::with_capacity(format.segments().len());
    for segment in format.segments() {
        let Segment::Operator(command) = segment else {
            segments.push(segment.clone());
            continue;
        };
        segments.push(match settle(cx, command)? {
            Some(text) => Segment::Literal(text.into()),
            None => match &command.operator {
                Operator::Coalesce(all) => coalesced(cx, command, all)?,
                _ => segment.clone(),
            },
        });
    }
    Some(segments.into_iter().collect())
}

/// What an operator says whatever the stream is.
fn settle(cx: &mut Cx<'_>, command: &Command) -> Option<Option<String>> {
    match &command.operator {
        Operator::Environment(name) => {
            let value = cx.sources.environment(name).unwrap_or_else(|| "-".into());
            Some(Some(command.shorten(&value).to_owned()))
        }
        Operator::FileContent(path) => {
            let read = cx.sources.file(path);
            cx.ok("", read).map(|_| None)
        }
        _ => Some(None),
    }
}

/// `COALESCE` with what is known by now in it: the operators after that never have their turn.
fn coalesced(cx: &mut Cx<'_>, command: &Command, all: &[Command]) -> Option<Segment> {
    let mut left = Vec::new();
    for one in all {
        match settle(cx, one)? {
            None => left.push(one.clone()),
            Some(text) if text.is_empty() => {}
            Some(text) if left.is_empty() => return Some(Segment::Literal(command.shorten(&text).into())),
            Some(text) => {
                left.push(Command { operator: Operator::Literal(text.into()), max_length: None });
                break;
            }
        }
    }
    let operator = Operator::Coalesce(left.into());
    Some(Segment::Operator(Command { operator, max_length: command.max_length }))
}
