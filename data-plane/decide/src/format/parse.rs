//! Reading substitution formats.

use super::{
    Command, Expression, Field, FilterStateArgs, FilterStateStyle, GrpcStatusFormat, MetadataSource, Moment,
    Operator, PathSource, Precision, Segment, TimeFormat, TimePoint,
};
use crate::head::HeaderKey;

/// Why a format is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A `%` begins an operator that does not end.
    #[error("the operator that begins at byte {0} has no closing %")]
    Unterminated(usize),
    /// No operator has this name.
    #[error("no operator is called {0}")]
    Unknown(String),
    /// The operator is one of Envoy's that are not carried out here.
    #[error("operator {0} is not supported")]
    Unsupported(String),
    /// The operator's arguments are wrong.
    #[error("operator {operator}: {problem}")]
    Argument {
        /// The operator's name.
        operator: String,
        /// What is wrong.
        problem: String,
    },
}

/// The pieces of a format.
pub(super) fn segments(text: &str) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(offset) = text[at..].find('%') {
        let start = at + offset;
        literal.push_str(&text[at..start]);
        let rest = &text[start + 1..];
        if rest.starts_with('%') {
            literal.push('%');
            at = start + 2;
            continue;
        }
        let raw = RawOperator::read(rest).ok_or(Error::Unterminated(start))?;
        if !literal.is_empty() {
            segments.push(Segment::Literal(std::mem::take(&mut literal).into()));
        }
        at = start + 1 + raw.length;
        segments.push(Segment::Operator(command(&raw)?));
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() {
        segments.push(Segment::Literal(literal.into()));
    }
    Ok(segments)
}

/// `NAME(arguments):max%`
struct RawOperator<'a> {
    name: &'a str,
    arguments: Option<&'a str>,
    max: Option<&'a str>,
    /// Up to and including the closing `%`.
    length: usize,
}

impl<'a> RawOperator<'a> {
    fn read(rest: &'a str) -> Option<Self> {
        let name_end = rest.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
        let (name, mut tail) = rest.split_at(name_end);
        let mut arguments = None;
        if let Some(inside) = tail.strip_prefix('(') {
            // Arguments end at the `)` that `%` or `:NUMBER%` follows: time formats and CEL have brackets of their own.
            let end = inside.match_indices(')').map(|(end, _)| end).find(|end| closes(&inside[end + 1..]))?;
            arguments = Some(&inside[..end]);
            tail = &inside[end + 1..];
        }
        let mut max = None;
        if let Some(number) = tail.strip_prefix(':') {
            let end = number.find('%')?;
            max = Some(&number[..end]);
            tail = &number[end..];
        }
        let tail = tail.strip_prefix('%')?;
        Some(Self { name, arguments, max, length: rest.len() - tail.len() })
    }
}

fn closes(tail: &str) -> bool {
    let tail = match tail.strip_prefix(':') {
        Some(number) => number.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => tail,
    };
    tail.starts_with('%')
}

fn command(raw: &RawOperator<'_>) -> Result<Command, Error> {
    let fail = |problem: &str| Error::Argument { operator: raw.name.into(), problem: problem.into() };
    let max_length = match raw.max {
        Some(digits) => Some(digits.parse().map_err(|_| fail("the length after the colon is not a number"))?),
        None => None,
    };
    if let ("QUERY_PARAMS", Some(arguments)) = (raw.name, raw.arguments) {
        let operator = match arguments {
            "" | "ORIG" => Operator::Field(Field::QueryParams),
            "DECODED" => Operator::DecodedQueryParams,
            other => return Err(fail(&format!("{other:?} is none of ORIG, DECODED"))),
        };
        return Ok(Command { operator, max_length });
    }
    if let Some(field) = Field::ALL.iter().find(|field| field.name() == raw.name) {
        if raw.arguments.is_some_and(|arguments| !arguments.is_empty()) {
            return Err(fail("it takes no arguments"));
        }
        return Ok(Command { operator: Operator::Field(*field), max_length });
    }
    if super::REFUSED.contains(&raw.name) {
        return Err(Error::Unsupported(raw.name.into()));
    }
    let operator = match operator(raw) {
        Ok(Some(operator)) => operator,
        Ok(None) => return Err(Error::Unknown(raw.name.into())),
        Err(problem) => return Err(fail(&problem)),
    };
    Ok(Command { operator, max_length })
}

fn operator(raw: &RawOperator<'_>) -> Result<Option<Operator>, String> {
    let arguments = raw.arguments.unwrap_or_default();
    if let Some(moment) = moment(raw.name) {
        let format =
            if arguments.is_empty() { TimeFormat::Default } else { TimeFormat::Strftime(arguments.into()) };
        return Ok(Some(Operator::Time(moment, format)));
    }
    Ok(Some(match raw.name {
        "REQ" | "REQUEST_HEADER" => headers(arguments).map(|(main, other)| Operator::Request(main, other))?,
        "REQ_WITHOUT_QUERY" => {
            headers(arguments).map(|(main, other)| Operator::RequestWithoutQuery(main, other))?
        }
        "RESP" | "RESPONSE_HEADER" => {
            headers(arguments).map(|(main, other)| Operator::Response(main, other))?
        }
        "TRAILER" | "RESPONSE_TRAILER" => {
            headers(arguments).map(|(main, other)| Operator::Trailer(main, other))?
        }
        "QUERY_PARAM" => Operator::QueryParam(needed(arguments, "a parameter's name")?.into()),
        "PATH" => path(arguments)?,
        "COMMON_DURATION" => common_duration(arguments)?,
        "DYNAMIC_METADATA" => metadata(MetadataSource::Dynamic, arguments)?,
        "CLUSTER_METADATA" => metadata(MetadataSource::Cluster, arguments)?,
        "UPSTREAM_METADATA" => metadata(
            MetadataSource::UpstreamHost,
            upstream_metadata(arguments).as_deref().unwrap_or(arguments),
        )?,
        "METADATA" => any_metadata(arguments)?,
        "FILTER_STATE" => Operator::FilterState(filter_state(arguments)?),
        "UPSTREAM_FILTER_STATE" => Operator::UpstreamFilterState(filter_state(arguments)?),
        // The old spelling of a filter state with a field.
        "PER_REQUEST_STATE" => Operator::FilterState(FilterStateArgs {
            key: needed(arguments, "a key")?.into(),
            style: FilterStateStyle::Plain,
        }),
        "GRPC_STATUS" => Operator::GrpcStatus(match arguments {
            "" | "CAMEL_STRING" => GrpcStatusFormat::CamelString,
            "SNAKE_STRING" => GrpcStatusFormat::SnakeString,
            "NUMBER" => GrpcStatusFormat::Number,
            other => return Err(format!("{other:?} is none of CAMEL_STRING, SNAKE_STRING, NUMBER")),
        }),
        "REQUESTED_SERVER_NAME" => Operator::RequestedServerName(arguments.into()),
        "FILE_CONTENT" => file_content(arguments)?,
        "ENVIRONMENT" => Operator::Environment(needed(arguments, "a variable's name")?.into()),
        "COALESCE" => Operator::Coalesce(coalesce(arguments)?),
        "CEL" => Operator::Cel(expression(arguments)?),
        "TYPED_CEL" => Operator::TypedCel(expression(arguments)?),
        _ => return Ok(None),
    }))
}

/// `{"operators": ["PROTOCOL", {"command": "REQ", "param": ":authority", "max_length": 8}]}`
fn coalesce(arguments: &str) -> Result<Box<[Command]>, String> {
    let config: serde_json::Value =
        serde_json::from_str(arguments).map_err(|error| format!("its argument is no JSON: {error}"))?;
    let list = config.get("operators").and_then(serde_json::Value::as_array);
    let list = list.filter(|list| !list.is_empty()).ok_or("it needs a list of operators")?;
    let one = |item: &serde_json::Value| {
        let text = |key: &str| item.get(key).and_then(serde_json::Value::as_str);
        let name = item.as_str().or_else(|| text("command")).ok_or("an operator needs a command")?;
        let max = item.get("max_length").map(ToString::to_string);
        let raw = RawOperator { name, arguments: text("param"), max: max.as_deref(), length: 0 };
        match command(&raw).map_err(|error| error.to_string())? {
            Command { operator: Operator::Coalesce(_), .. } => Err("it does not nest".to_owned()),
            command => Ok(command),
        }
    };
    list.iter().map(one).collect()
}

fn expression(arguments: &str) -> Result<Expression, String> {
    Expression::new(needed(arguments, "an expression")?).map_err(|error| error.to_string())
}

fn moment(name: &str) -> Option<Moment> {
    Some(match name {
        "START_TIME" => Moment::Start,
        "START_TIME_LOCAL" => Moment::StartLocal,
        "EMIT_TIME" => Moment::Emit,
        "EMIT_TIME_LOCAL" => Moment::EmitLocal,
        "DOWNSTREAM_PEER_CERT_V_START" => Moment::DownstreamCertStart,
        "DOWNSTREAM_PEER_CERT_V_END" => Moment::DownstreamCertEnd,
        "UPSTREAM_PEER_CERT_V_START" => Moment::UpstreamCertStart,
        "UPSTREAM_PEER_CERT_V_END" => Moment::UpstreamCertEnd,
        _ => return None,
    })
}

fn needed<'a>(arguments: &'a str, what: &str) -> Result<&'a str, String> {
    if arguments.is_empty() { Err(format!("it needs {what}")) } else { Ok(arguments) }
}

fn headers(arguments: &str) -> Result<(HeaderKey, Option<HeaderKey>), String> {
    let key = |name: &str| HeaderKey::parse(name).map_err(|_| format!("{name:?} is not a header's name"));
    let (main, other) = match needed(arguments, "a header's name")?.split_once('?') {
        Some((main, other)) => (main, Some(other)),
        None => (arguments, None),
    };
    if other.is_some_and(|other| other.contains('?')) {
        return Err("it takes two header names at most".into());
    }
    Ok((key(main)?, other.map(key).transpose()?))
}

fn path(arguments: &str) -> Result<Operator, String> {
    let mut parts = arguments.split(':');
    let query = match parts.next() {
        None | Some("" | "WQ") => true,
        Some("NQ") => false,
        Some(other) => return Err(format!("{other:?} is neither WQ nor NQ")),
    };
    let source = match parts.next() {
        None | Some("" | "ORIG_OR_PATH") => PathSource::OriginalOrPath,
        Some("ORIG") => PathSource::Original,
        Some("PATH") => PathSource::Path,
        Some(other) => return Err(format!("{other:?} is none of ORIG, PATH, ORIG_OR_PATH")),
    };
    Ok(Operator::Path { query, source })
}

fn common_duration(arguments: &str) -> Result<Operator, String> {
    let mut parts = arguments.split(':');
    let (Some(start), Some(end)) = (parts.next(), parts.next()) else {
        return Err("it needs two time points".into());
    };
    let point = |name: &str| {
        TimePoint::parse(name).ok_or_else(|| {
            let known: Vec<&str> = TimePoint::ALL.iter().map(|point| point.name()).collect();
            format!("the time point {name:?} is none of {}", known.join(", "))
        })
    };
    let (start, end) = (point(start)?, point(end)?);
    let precision = match parts.next() {
        None | Some("ms") => Precision::Millis,
        Some("us") => Precision::Micros,
        Some("ns") => Precision::Nanos,
        Some(other) => return Err(format!("{other:?} is none of ms, us, ns")),
    };
    Ok(Operator::CommonDuration { start, end, precision })
}

/// `PATH:DIRECTORY`; the file itself is watched, so that the directory says nothing more.
fn file_content(arguments: &str) -> Result<Operator, String> {
    let mut parts = needed(arguments, "a file's path")?.split(':');
    let path = parts.next().filter(|path| !path.is_empty()).ok_or("it needs a file's path")?;
    let directory = parts.next();
    if directory.is_some_and(str::is_empty) || parts.next().is_some() {
        return Err("it takes PATH or PATH:DIRECTORY".into());
    }
    Ok(Operator::FileContent(path.into()))
}

fn metadata(source: MetadataSource, arguments: &str) -> Result<Operator, String> {
    let mut parts = needed(arguments, "a namespace")?.split(':');
    let namespace = parts.next().unwrap_or_default();
    Ok(Operator::Metadata(source, namespace.into(), parts.map(Box::from).collect()))
}

/// `["namespace", "key", …]`, the JSON list that header values used once, as the colon form.
fn upstream_metadata(arguments: &str) -> Option<String> {
    let list: Vec<String> = serde_json::from_str(arguments.trim()).ok()?;
    Some(list.join(":"))
}

fn any_metadata(arguments: &str) -> Result<Operator, String> {
    let (kind, rest) = arguments.split_once(':').ok_or("it needs a type and a namespace")?;
    let source = match kind {
        "DYNAMIC" => MetadataSource::Dynamic,
        "CLUSTER" => MetadataSource::Cluster,
        "ROUTE" => MetadataSource::Route,
        "UPSTREAM_HOST" => MetadataSource::UpstreamHost,
        "LISTENER" => MetadataSource::Listener,
        "LISTENER_FILTER_CHAIN" => MetadataSource::ListenerFilterChain,
        "VIRTUAL_HOST" => MetadataSource::VirtualHost,
        other => return Err(format!("no metadata are of type {other:?}")),
    };
    metadata(source, rest)
}

fn filter_state(arguments: &str) -> Result<FilterStateArgs, String> {
    let mut parts = needed(arguments, "a key")?.splitn(3, ':');
    let key = parts.next().unwrap_or_default().into();
    let style = match (parts.next(), parts.next()) {
        (None | Some("" | "TYPED"), None) => FilterStateStyle::Typed,
        (Some("PLAIN"), None) => FilterStateStyle::Plain,
        (Some("FIELD"), Some(field)) if !field.is_empty() => FilterStateStyle::Field(field.into()),
        (Some("FIELD"), _) => return Err("FIELD needs the field's name".into()),
        (Some(other), _) => return Err(format!("{other:?} is none of PLAIN, TYPED, FIELD")),
        (None, Some(_)) => return Err("it takes three arguments at most".into()),
    };
    Ok(FilterStateArgs { key, style })
}
