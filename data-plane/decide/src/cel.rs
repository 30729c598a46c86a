//! The Common Expression Language, as conditions and access logs use it.
//!
//! An expression is parsed ([`Raw`]), checked and resolved once ([`Program`]), and evaluated against [`Attributes`]. What
//! is not known (an attribute, a function) is an error when it is compiled, not when a request comes by. Evaluation is
//! bounded in steps and in the size of what it makes.

mod attribute;
mod eval;
mod functions;
mod parse;
mod raw;
mod resolve;
mod value;

pub use attribute::{Attribute, Attributes, Table};
pub use eval::EvalError;
pub use raw::{Literal, Raw, RawFold};
pub use resolve::CompileError;
pub use value::Value;

use resolve::Expr;

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    expr: Expr,
}

impl Program {
    /// Compiles an expression.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        Self::resolve(&parse::parse(text)?)
    }

    /// From an expression that somebody else parsed.
    pub fn resolve(raw: &Raw) -> Result<Self, CompileError> {
        Ok(Self { expr: resolve::resolve(raw)? })
    }

    /// Its value.
    pub fn eval<'a>(&'a self, attributes: &'a dyn Attributes) -> Result<Value<'a>, EvalError> {
        eval::eval(&self.expr, attributes)
    }

    /// Whether it holds; an expression that fails does not.
    pub fn holds(&self, attributes: &dyn Attributes) -> bool {
        matches!(self.eval(attributes), Ok(Value::Bool(true)))
    }
}

#[cfg(test)]
mod tests;
