//! Substitution formats: `%REQ(X-REQUEST-ID?:AUTHORITY):80%` and its kin, in header values, access logs and local replies.
//!
//! [`Format::parse`] reads a format once; [`Format::write`] evaluates it against [`Attributes`], which the I/O side
//! implements over what it knows of a stream.

mod field;
mod parse;
mod point;
mod query;

use std::borrow::Cow;
use std::sync::Arc;

pub use field::{Field, REFUSED};
pub use parse::Error;
pub use point::TimePoint;
pub use query::decode as decode_query;

use crate::head::HeaderKey;

/// A parsed format.
#[derive(Clone, Debug, PartialEq)]
pub struct Format {
    segments: Box<[Segment]>,
}

/// A piece of a format.
#[derive(Clone, Debug, PartialEq)]
pub enum Segment {
    /// Text as it stands.
    Literal(Box<str>),
    /// What an operator yields.
    Operator(Command),
}

/// An operator, and how much of its value is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// What is asked for.
    pub operator: Operator,
    /// How many bytes of it are kept at most.
    pub max_length: Option<usize>,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    /// Operators without arguments.
    Field(Field),
    /// `REQ(MAIN?ALTERNATIVE)`
    Request(HeaderKey, Option<HeaderKey>),
    /// `REQ_WITHOUT_QUERY(MAIN?ALTERNATIVE)`
    RequestWithoutQuery(HeaderKey, Option<HeaderKey>),
    /// `RESP(MAIN?ALTERNATIVE)`
    Response(HeaderKey, Option<HeaderKey>),
    /// `TRAILER(MAIN?ALTERNATIVE)`
    Trailer(HeaderKey, Option<HeaderKey>),
    /// `QUERY_PARAM(NAME)`
    QueryParam(Box<str>),
    /// `QUERY_PARAMS(DECODED)`
    DecodedQueryParams,
    /// `PATH(WITH_OR_WITHOUT_QUERY:ORIGINAL_PATH)`
    Path {
        /// Whether the query is part of it.
        query: bool,
        /// Which path.
        source: PathSource,
    },
    /// `START_TIME(%FORMAT%)` and the other moments, which share their formats.
    Time(Moment, TimeFormat),
    /// `COMMON_DURATION(START:END:PRECISION)`
    CommonDuration {
        /// A time point: `DS_RX_BEG`.
        start: TimePoint,
        /// A time point: `US_TX_END`.
        end: TimePoint,
        /// The unit.
        precision: Precision,
    },
    /// `DYNAMIC_METADATA(NAMESPACE:KEY:...)` and the metadata of route, cluster, listener or host.
    Metadata(MetadataSource, Box<str>, Box<[Box<str>]>),
    /// `FILTER_STATE(KEY:FORMAT:FIELD)`, downstream's.
    FilterState(FilterStateArgs),
    /// `UPSTREAM_FILTER_STATE(KEY:FORMAT:FIELD)`
    UpstreamFilterState(FilterStateArgs),
    /// `GRPC_STATUS(FORMAT)`
    GrpcStatus(GrpcStatusFormat),
    /// `REQUESTED_SERVER_NAME(SNI_ONLY:...)` and the like keep their options as they were written.
    RequestedServerName(Box<str>),
    /// `ENVIRONMENT(NAME)`: read when configuration is compiled.
    Environment(Box<str>),
    /// `FILE_CONTENT(PATH)`
    FileContent(Box<str>),
    /// `CEL(EXPRESSION)`
    Cel(Expression),
    /// `TYPED_CEL(EXPRESSION)`: in JSON, its value is as it is.
    TypedCel(Expression),
    /// Text that was read when configuration was compiled.
    Literal(Box<str>),
    /// `COALESCE({"operators": [...]})`: the first that has a value.
    Coalesce(Box<[Command]>),
}

/// An expression, compiled.
#[derive(Clone, Debug)]
pub struct Expression {
    text: Arc<str>,
    program: Arc<crate::cel::Program>,
}

impl Expression {
    /// Compiles it.
    pub fn new(text: &str) -> Result<Self, crate::cel::CompileError> {
        Ok(Self { text: text.into(), program: Arc::new(crate::cel::Program::compile(text)?) })
    }

    /// What is evaluated.
    pub fn program(&self) -> &crate::cel::Program {
        &self.program
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Which path `PATH` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// `x-envoy-original-path`, and `:path` if there is none.
    OriginalOrPath,
    /// `:path`
    Path,
    /// `x-envoy-original-path`
    Original,
}

/// A moment in a stream's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `START_TIME`
    Start,
    /// `START_TIME_LOCAL`
    StartLocal,
    /// `EMIT_TIME`
    Emit,
    /// `EMIT_TIME_LOCAL`
    EmitLocal,
    /// `DOWNSTREAM_PEER_CERT_V_START`
    DownstreamCertStart,
    /// `DOWNSTREAM_PEER_CERT_V_END`
    DownstreamCertEnd,
    /// `UPSTREAM_PEER_CERT_V_START`
    UpstreamCertStart,
    /// `UPSTREAM_PEER_CERT_V_END`
    UpstreamCertEnd,
}

/// How a moment is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2018-04-03T23:06:09.123Z`
    Default,
    /// `strftime` with `%s`, `%f`, `%1f` … `%9f` besides, in pieces.
    Strftime(Box<str>),
}

/// The unit of `COMMON_DURATION`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// `ms`
    Millis,
    /// `us`
    Micros,
    /// `ns`
    Nanos,
}

/// Whose metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataSource {
    /// The stream's own.
    Dynamic,
    /// The cluster's.
    Cluster,
    /// The upstream host's.
    UpstreamHost,
    /// The route's.
    Route,
    /// The virtual host's.
    VirtualHost,
    /// The listener's.
    Listener,
    /// The listener filter chain's.
    ListenerFilterChain,
}

/// Arguments of `FILTER_STATE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterStateArgs {
    /// The object's key.
    pub key: Box<str>,
    /// How the object is written.
    pub style: FilterStateStyle,
}

/// How a filter state object is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterStateStyle {
    /// As JSON (`TYPED`, the default).
    Typed,
    /// As its plain string.
    Plain,
    /// One field of it.
    Field(Box<str>),
}

/// How `GRPC_STATUS` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcStatusFormat {
    /// `InvalidArgument`
    CamelString,
    /// `INVALID_ARGUMENT`
    SnakeString,
    /// `3`
    Number,
}

/// What operators read. The I/O side implements it over its stream information.
pub trait Attributes {
    /// The operator's value as text; `None` when there is none.
    fn text(&self, operator: &Operator) -> Option<Cow<'_, str>>;

    /// The operator's value as JSON keeps it: numbers as numbers, structures as structures.
    fn json(&self, operator: &Operator) -> Option<serde_json::Value> {
        self.text(operator).map(|text| serde_json::Value::String(text.into_owned()))
    }
}

/// What stands for a value that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// `-`, as access logs write it.
    Dash,
    /// Nothing, as headers and `omit_empty_values` have it.
    Empty,
}

impl Format {
    /// Reads a format.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { segments: parse::segments(text)?.into() })
    }

    /// A format that is this text and no operator.
    pub fn literal(text: &str) -> Self {
        Self { segments: Box::new([Segment::Literal(text.into())]) }
    }

    /// Its pieces.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The whole text, if there is no operator in it.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.segments {
            [] => Some(""),
            [Segment::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The operators in it, those inside `COALESCE` in its place.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.segments
            .iter()
            .flat_map(|segment| match segment {
                Segment::Operator(Command { operator: Operator::Coalesce(all), .. }) => &all[..],
                Segment::Operator(command) => std::slice::from_ref(command),
                Segment::Literal(_) => &[],
            })
            .map(|command| &command.operator)
    }

    /// Appends the evaluated text.
    pub fn write<A: Attributes + ?Sized>(&self, attributes: &A, missing: Missing, out: &mut String) {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::Operator(command) => match command.text(attributes) {
                    Some(text) => out.push_str(&text),
                    None if missing == Missing::Dash => out.push('-'),
                    None => {}
                },
            }
        }
    }

    /// The evaluated value for a JSON log: one operator alone keeps its type, anything else is text.
    pub fn json<A: Attributes + ?Sized>(&self, attributes: &A, missing: Missing) -> serde_json::Value {
        if let [Segment::Operator(command)] = &*self.segments {
            return command.json(attributes).unwrap_or_default();
        }
        let mut text = String::new();
        self.write(attributes, missing, &mut text);
        text.into()
    }
}

impl FromIterator<Segment> for Format {
    /// Text that meets is joined.
    fn from_iter<T: IntoIterator<Item = Segment>>(segments: T) -> Self {
        let mut joined: Vec<Segment> = Vec::new();
        for segment in segments {
            match (joined.last_mut(), segment) {
                (Some(Segment::Literal(left)), Segment::Literal(right)) => {
                    *left = format!("{left}{right}").into()
                }
                (_, segment) => joined.push(segment),
            }
        }
        Self { segments: joined.into() }
    }
}

impl Command {
    /// The value as text, as much of it as is kept.
    fn text<'a, A: Attributes + ?Sized>(&'a self, attributes: &'a A) -> Option<Cow<'a, str>> {
        let text = match &self.operator {
            Operator::Coalesce(all) => {
                all.iter().find_map(|command| command.text(attributes).filter(|text| !text.is_empty()))?
            }
            operator => attributes.text(operator)?,
        };
        Some(match text {
            Cow::Borrowed(text) => Cow::Borrowed(self.shorten(text)),
            Cow::Owned(mut text) => {
                text.truncate(self.shorten(&text).len());
                Cow::Owned(text)
            }
        })
    }

    fn json<A: Attributes + ?Sized>(&self, attributes: &A) -> Option<serde_json::Value> {
        let value = match &self.operator {
            Operator::Coalesce(all) => all.iter().find_map(|command| command.json(attributes))?,
            operator => attributes.json(operator)?,
        };
        Some(match value {
            serde_json::Value::String(text) => self.shorten(&text).into(),
            value => value,
        })
    }

    /// As much of the text as is kept.
    pub fn shorten<'a>(&self, text: &'a str) -> &'a str {
        match self.max_length {
            Some(length) if length < text.len() => {
                let end = (0..=length).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                &text[..end]
            }
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests;
