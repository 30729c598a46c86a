//! From names to what they mean, with an error for what means nothing.

use regex::Regex;

use super::functions::Function;
use super::raw::{Literal, Raw, RawFold};
use super::{Attribute, Table};

/// Expressions may nest so deep, those that others parsed, too.
const DEPTH: usize = 400;

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    message: String,
}

impl CompileError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// A resolved expression.
#[derive(Debug)]
pub(super) enum Expr {
    Literal(Literal),
    /// A type's name, as `type(x) == int` has it.
    Type(&'static str),
    Attribute(Attribute),
    /// `has(attribute)`
    Has(Attribute),
    Table(Table),
    /// A variable of a fold, by its place.
    Local(usize),
    Select(Box<Select>),
    And(Box<[Expr; 2]>),
    Or(Box<[Expr; 2]>),
    Choose(Box<[Expr; 3]>),
    /// A regular expression that is known.
    Matches(Box<(Expr, Regex)>),
    Call(Function, Box<[Expr]>),
    List(Box<[Expr]>),
    Map(Box<[(Expr, Expr)]>),
    Fold(Box<Fold>),
}

#[derive(Debug)]
pub(super) struct Select {
    pub(super) operand: Expr,
    pub(super) field: Box<str>,
    pub(super) test: bool,
}

/// Its variables are the next two places: the result so far, and the item.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) range: Expr,
    pub(super) init: Expr,
    pub(super) condition: Expr,
    pub(super) step: Expr,
    pub(super) result: Expr,
}

pub(super) fn resolve(raw: &Raw) -> Result<Expr, CompileError> {
    Resolver { names: Vec::new(), depth: 0 }.expr(raw)
}

struct Resolver<'a> {
    names: Vec<&'a str>,
    depth: usize,
}

impl<'a> Resolver<'a> {
    fn expr(&mut self, raw: &'a Raw) -> Result<Expr, CompileError> {
        if self.depth >= DEPTH {
            return Err(CompileError::new(format!("it nests deeper than {DEPTH}")));
        }
        self.depth += 1;
        let result = self.inner(raw);
        self.depth -= 1;
        result
    }

    fn inner(&mut self, raw: &'a Raw) -> Result<Expr, CompileError> {
        match raw {
            Raw::Literal(literal) => Ok(Expr::Literal(literal.clone())),
            Raw::Ident(name) => self.ident(name),
            Raw::Select { operand, field, test } => self.select(operand, field, *test),
            Raw::Call { target, function, arguments } => {
                let arguments: Vec<&Raw> = target.iter().map(|target| &**target).chain(arguments).collect();
                self.call(function, target.is_some(), &arguments)
            }
            Raw::List(items) => Ok(Expr::List(self.all(items)?.into())),
            Raw::Map(entries) => {
                let each = entries.iter().map(|(key, value)| Ok((self.expr(key)?, self.expr(value)?)));
                Ok(Expr::Map(each.collect::<Result<Box<[_]>, _>>()?))
            }
            Raw::Fold(fold) => self.fold(fold),
        }
    }

    fn all(&mut self, items: &'a [Raw]) -> Result<Vec<Expr>, CompileError> {
        items.iter().map(|item| self.expr(item)).collect()
    }

    fn ident(&self, name: &str) -> Result<Expr, CompileError> {
        if let Some(place) = self.names.iter().rposition(|known| *known == name) {
            return Ok(Expr::Local(place));
        }
        if let Some(table) = Table::parse_root(name) {
            return Ok(Expr::Table(table));
        }
        const TYPES: [&str; 9] =
            ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"];
        if let Some(name) = TYPES.into_iter().find(|known| *known == name) {
            return Ok(Expr::Type(name));
        }
        Err(CompileError::new(match Attribute::is_root(name) {
            true => format!("{name:?} is not a value: its fields are"),
            false => format!("{name:?} is not known"),
        }))
    }

    fn select(&mut self, operand: &'a Raw, field: &str, test: bool) -> Result<Expr, CompileError> {
        if let Raw::Ident(root) = operand
            && !self.names.contains(&&**root)
        {
            if let Some(attribute) = Attribute::parse(root, field) {
                return Ok(if test { Expr::Has(attribute) } else { Expr::Attribute(attribute) });
            }
            if let Some(table) = Table::parse_field(root, field) {
                return Ok(if test { Expr::Literal(Literal::Bool(true)) } else { Expr::Table(table) });
            }
            if root.as_ref() == "metadata" && field == "filter_metadata" {
                return Ok(Expr::Table(Table::FilterMetadata));
            }
            if Attribute::is_root(root) {
                return Err(CompileError::new(format!("there is no attribute {root}.{field}")));
            }
        }
        let operand = self.expr(operand)?;
        Ok(Expr::Select(Box::new(Select { operand, field: field.into(), test })))
    }

    fn call(&mut self, name: &str, method: bool, arguments: &[&'a Raw]) -> Result<Expr, CompileError> {
        let mut resolved = Vec::with_capacity(arguments.len());
        for argument in arguments {
            resolved.push(self.expr(argument)?);
        }
        let resolved = match (name, <[Expr; 2]>::try_from(resolved)) {
            ("_&&_", Ok(both)) => return Ok(Expr::And(Box::new(both))),
            ("_||_", Ok(both)) => return Ok(Expr::Or(Box::new(both))),
            ("matches", Ok([of, Expr::Literal(Literal::String(pattern))])) => {
                return Ok(Expr::Matches(Box::new((of, regex(&pattern).map_err(CompileError::new)?))));
            }
            (_, Ok(both)) => Vec::from(both),
            (_, Err(resolved)) => resolved,
        };
        let resolved = match (name, <[Expr; 3]>::try_from(resolved)) {
            ("_?_:_", Ok(three)) => return Ok(Expr::Choose(Box::new(three))),
            (_, Ok(three)) => Vec::from(three),
            (_, Err(resolved)) => resolved,
        };
        let count = resolved.len() - usize::from(method);
        let function = Function::find(name, resolved.len()).ok_or_else(|| {
            CompileError::new(format!("there is no function {name:?} of {count} arguments"))
        })?;
        Ok(Expr::Call(function, resolved.into()))
    }

    fn fold(&mut self, fold: &'a RawFold) -> Result<Expr, CompileError> {
        let RawFold { variable, range, accumulator, init, condition, step, result } = fold;
        let (range, init) = (self.expr(range)?, self.expr(init)?);
        self.names.extend([&**accumulator, &**variable]);
        let inner = self.expr(condition).and_then(|condition| Ok((condition, self.expr(step)?)));
        self.names.pop();
        let result = self.expr(result);
        self.names.pop();
        let ((condition, step), result) = (inner?, result?);
        Ok(Expr::Fold(Box::new(Fold { range, init, condition, step, result })))
    }
}

/// A regular expression of bounded size.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    let problem = |error: regex::Error| {
        let drawn = error.to_string();
        format!("{pattern:?}: {}", drawn.lines().last().unwrap_or_default())
    };
    regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(problem)
}
