//! Evaluation: a walk over the resolved tree.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::functions;
use super::raw::Literal;
use super::resolve::{Expr, Fold, Select};
use super::{Attributes, Table, Value};

/// So many steps an evaluation may take.
const STEPS: u32 = 20_000;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Nothing has this name.
    #[error("there is no {0}")]
    Missing(String),
    /// A function does not take such values.
    #[error("{0} does not take {1}")]
    Type(&'static str, &'static str),
    /// A number that is out of range, a division by zero, text that is not what it should be.
    #[error("{0}")]
    Value(&'static str),
    /// It takes too long, or makes too much.
    #[error("it exceeds its bounds")]
    Bounds,
}

pub(super) type Result<'a> = std::result::Result<Value<'a>, EvalError>;

pub(super) fn eval<'a>(expr: &'a Expr, attributes: &'a dyn Attributes) -> Result<'a> {
    let evaluation = Evaluation { attributes, steps: Cell::new(STEPS), locals: RefCell::default() };
    evaluation.expr(expr)
}

pub(super) struct Evaluation<'a> {
    pub(super) attributes: &'a dyn Attributes,
    steps: Cell<u32>,
    locals: RefCell<Vec<Value<'a>>>,
}

impl<'a> Evaluation<'a> {
    /// Pays for work.
    pub(super) fn pay(&self, steps: usize) -> std::result::Result<(), EvalError> {
        let steps = u32::try_from(steps).map_err(|_| EvalError::Bounds)?;
        let left = self.steps.get().checked_sub(steps).ok_or(EvalError::Bounds)?;
        self.steps.set(left);
        Ok(())
    }

    fn expr(&self, expr: &'a Expr) -> Result<'a> {
        self.pay(1)?;
        match expr {
            Expr::Literal(literal) => Ok(value(literal)),
            Expr::Type(name) => Ok(Value::Type(name)),
            Expr::Attribute(attribute) => {
                self.attributes.get(*attribute).ok_or_else(|| EvalError::Missing(attribute.name().to_owned()))
            }
            Expr::Has(attribute) => Ok(Value::Bool(self.attributes.get(*attribute).is_some())),
            Expr::Table(table) => Ok(Value::Table(*table)),
            Expr::Local(place) => {
                let found = self.locals.borrow().get(*place).cloned();
                found.ok_or_else(|| EvalError::Missing("variable".to_owned()))
            }
            Expr::Select(select) => self.select(select),
            Expr::And(both) => self.both(both, false),
            Expr::Or(both) => self.both(both, true),
            Expr::Choose(three) => match self.expr(&three[0])? {
                Value::Bool(true) => self.expr(&three[1]),
                Value::Bool(false) => self.expr(&three[2]),
                other => Err(EvalError::Type("?:", other.type_name())),
            },
            Expr::Matches(matches) => match self.expr(&matches.0)? {
                Value::String(text) => Ok(Value::Bool(matches.1.is_match(&text))),
                other => Err(EvalError::Type("matches()", other.type_name())),
            },
            Expr::Call(function, arguments) => {
                let mut values = smallvec::SmallVec::<[std::result::Result<Value<'a>, EvalError>; 3]>::new();
                values.extend(arguments.iter().map(|argument| self.expr(argument)));
                functions::call(self, *function, &mut values)
            }
            Expr::List(items) => {
                let items: std::result::Result<Rc<[_]>, _> =
                    items.iter().map(|item| self.expr(item)).collect();
                Ok(Value::List(items?))
            }
            Expr::Map(entries) => {
                let each = entries.iter().map(|(key, value)| Ok((self.expr(key)?, self.expr(value)?)));
                Ok(Value::Map(each.collect::<std::result::Result<Rc<[_]>, _>>()?))
            }
            Expr::Fold(fold) => self.fold(fold),
        }
    }

    /// `&&` and `||`: an operand that decides makes up for the other's failure.
    fn both(&self, both: &'a [Expr; 2], decides: bool) -> Result<'a> {
        let mut failure = None;
        for operand in both {
            match self.expr(operand) {
                Ok(Value::Bool(found)) if found == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(other) => {
                    let operator = if decides { "||" } else { "&&" };
                    failure.get_or_insert(EvalError::Type(operator, other.type_name()));
                }
                Err(EvalError::Bounds) => return Err(EvalError::Bounds),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn select(&self, select: &'a Select) -> Result<'a> {
        let operand = self.expr(&select.operand)?;
        let found = self.look_up(&operand, &Value::text(&*select.field))?;
        if select.test {
            return Ok(Value::Bool(found.is_some()));
        }
        found.ok_or_else(|| EvalError::Missing(format!("key {:?}", select.field)))
    }

    /// What a map has under a key.
    pub(super) fn look_up(
        &self,
        map: &Value<'a>,
        key: &Value<'_>,
    ) -> std::result::Result<Option<Value<'a>>, EvalError> {
        match map {
            Value::Map(entries) => {
                self.pay(entries.len())?;
                let found = entries.iter().find(|(known, _)| known.is_equal(key));
                Ok(found.map(|(_, value)| value.clone()))
            }
            Value::Json(Cow::Borrowed(serde_json::Value::Object(fields))) => {
                let Value::String(key) = key else { return Ok(None) };
                Ok(fields.get(&**key).map(|value| Value::from_json(Cow::Borrowed(value))))
            }
            Value::Json(Cow::Owned(serde_json::Value::Object(fields))) => {
                let Value::String(key) = key else { return Ok(None) };
                Ok(fields.get(&**key).map(|value| Value::from_json(Cow::Owned(value.clone()))))
            }
            Value::Table(Table::Metadata) => Ok(match key {
                Value::String(key) if key == "filter_metadata" => Some(Value::Table(Table::FilterMetadata)),
                _ => None,
            }),
            Value::Table(table) => {
                let Value::String(key) = key else { return Ok(None) };
                Ok(self.attributes.look_up(*table, key))
            }
            other => Err(EvalError::Type("a key", other.type_name())),
        }
    }

    fn fold(&self, fold: &'a Fold) -> Result<'a> {
        let range = self.expr(&fold.range)?;
        let items = range.items().or_else(|| range.keys());
        let items = items.ok_or(EvalError::Type("a macro over items", range.type_name()))?;
        let mut result = self.expr(&fold.init);
        let base = self.locals.borrow().len();
        for item in items.iter() {
            // A failure so far shows only if nothing later decides; an item cannot be computed from it.
            let Ok(so_far) = &result else { break };
            self.locals.borrow_mut().extend([so_far.clone(), item.clone()]);
            let goes_on = self.expr(&fold.condition);
            let next = match goes_on {
                Ok(Value::Bool(false)) => None,
                _ => Some(self.expr(&fold.step)),
            };
            self.locals.borrow_mut().truncate(base);
            match next {
                None => break,
                Some(Err(EvalError::Bounds)) => return Err(EvalError::Bounds),
                Some(next) => result = next,
            }
        }
        self.locals.borrow_mut().push(result?);
        let end = self.expr(&fold.result);
        self.locals.borrow_mut().truncate(base);
        end
    }
}

fn value(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Cow::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
    }
}
