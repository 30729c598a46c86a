//! An expression as it was written: names are only names.

/// A literal.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are CEL's types")]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Box<str>),
    Bytes(Box<[u8]>),
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A literal.
    Literal(Literal),
    /// A name.
    Ident(Box<str>),
    /// `operand.field`
    Select {
        /// What is looked into.
        operand: Box<Raw>,
        /// What for.
        field: Box<str>,
        /// Only whether it is there: `has(operand.field)`.
        test: bool,
    },
    /// `function(arguments)`, `target.function(arguments)`; operators bear their names from CEL's specification: `_==_`.
    Call {
        /// The target.
        target: Option<Box<Raw>>,
        /// The function.
        function: Box<str>,
        /// Its arguments.
        arguments: Vec<Raw>,
    },
    /// `[items]`
    List(Vec<Raw>),
    /// `{key: value}`
    Map(Vec<(Raw, Raw)>),
    /// What `all`, `exists`, `map` and `filter` stand for.
    Fold(Box<RawFold>),
}

/// A fold over a list or the keys of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct RawFold {
    /// The name of the item.
    pub variable: Box<str>,
    /// What is gone through.
    pub range: Raw,
    /// The name of the result so far.
    pub accumulator: Box<str>,
    /// What it begins with.
    pub init: Raw,
    /// Goes on as long as this is not false.
    pub condition: Raw,
    /// The next result.
    pub step: Raw,
    /// What comes out.
    pub result: Raw,
}

impl Raw {
    /// A name.
    pub(super) fn ident(name: &str) -> Self {
        Self::Ident(name.into())
    }

    /// A call without a target.
    pub(super) fn call(function: &str, arguments: Vec<Self>) -> Self {
        Self::Call { target: None, function: function.into(), arguments }
    }

    pub(super) fn bool(value: bool) -> Self {
        Self::Literal(Literal::Bool(value))
    }

    pub(super) fn int(value: i64) -> Self {
        Self::Literal(Literal::Int(value))
    }
}
