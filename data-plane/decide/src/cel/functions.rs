//! Functions and operators.

mod time;

use std::borrow::Cow;
use std::rc::Rc;

use super::eval::{EvalError, Evaluation, Result};
use super::resolve;
use super::{Table, Value};
use time::Field;
pub(super) use time::{write_duration, write_timestamp};

/// Text and lists may grow so large.
const SIZE: usize = 64 * 1024;

/// A function or operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Not,
    Negate,
    NotStrictlyFalse,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Index,
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    LowerAscii,
    UpperAscii,
    Trim,
    Replace,
    Split,
    Join,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Type,
    Dyn,
    Duration,
    Timestamp,
    Time(Field),
}

impl Function {
    /// By its name, and the number of its arguments with the target.
    pub(super) fn find(name: &str, arguments: usize) -> Option<Self> {
        Some(match (name, arguments) {
            ("!_", 1) => Self::Not,
            ("-_", 1) => Self::Negate,
            ("@not_strictly_false" | "__not_strictly_false__", 1) => Self::NotStrictlyFalse,
            ("_+_", 2) => Self::Add,
            ("_-_", 2) => Self::Subtract,
            ("_*_", 2) => Self::Multiply,
            ("_/_", 2) => Self::Divide,
            ("_%_", 2) => Self::Remainder,
            ("_==_", 2) => Self::Equal,
            ("_!=_", 2) => Self::NotEqual,
            ("_<_", 2) => Self::Less,
            ("_<=_", 2) => Self::LessOrEqual,
            ("_>_", 2) => Self::Greater,
            ("_>=_", 2) => Self::GreaterOrEqual,
            ("@in" | "_in_" | "in", 2) => Self::In,
            ("_[_]", 2) => Self::Index,
            ("size", 1) => Self::Size,
            ("contains", 2) => Self::Contains,
            ("startsWith", 2) => Self::StartsWith,
            ("endsWith", 2) => Self::EndsWith,
            ("matches", 2) => Self::Matches,
            ("lowerAscii", 1) => Self::LowerAscii,
            ("upperAscii", 1) => Self::UpperAscii,
            ("trim", 1) => Self::Trim,
            ("replace", 3) => Self::Replace,
            ("split", 2) => Self::Split,
            ("join", 1 | 2) => Self::Join,
            ("bool", 1) => Self::Bool,
            ("int", 1) => Self::Int,
            ("uint", 1) => Self::Uint,
            ("double", 1) => Self::Double,
            ("string", 1) => Self::String,
            ("bytes", 1) => Self::Bytes,
            ("type", 1) => Self::Type,
            ("dyn", 1) => Self::Dyn,
            ("duration", 1) => Self::Duration,
            ("timestamp", 1) => Self::Timestamp,
            (name, 1) => Self::Time(Field::parse(name)?),
            _ => return None,
        })
    }
}

/// Calls a function. Its arguments may have failed; all but one function fail with them.
pub(super) fn call<'a>(
    evaluation: &Evaluation<'a>,
    function: Function,
    arguments: &mut [std::result::Result<Value<'a>, EvalError>],
) -> Result<'a> {
    let mut take = |index: usize| {
        arguments.get_mut(index).map_or(Ok(Value::Null), |slot| std::mem::replace(slot, Ok(Value::Null)))
    };
    if function == Function::NotStrictlyFalse {
        return Ok(Value::Bool(!matches!(take(0), Ok(Value::Bool(false)))));
    }
    let (first, second, third) = (take(0)?, take(1)?, take(2)?);
    match function {
        Function::Add | Function::Subtract | Function::Multiply | Function::Divide | Function::Remainder => {
            arithmetic(evaluation, function, first, second)
        }
        Function::Less | Function::LessOrEqual | Function::Greater | Function::GreaterOrEqual => {
            compare(function, &first, &second)
        }
        Function::Equal => Ok(Value::Bool(first.is_equal(&second))),
        Function::NotEqual => Ok(Value::Bool(!first.is_equal(&second))),
        Function::Not => match first {
            Value::Bool(value) => Ok(Value::Bool(!value)),
            other => Err(EvalError::Type("!", other.type_name())),
        },
        Function::Negate => match first {
            Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(EvalError::Value("out of range")),
            Value::Double(value) => Ok(Value::Double(-value)),
            Value::Duration(value) => Ok(Value::Duration(-value)),
            other => Err(EvalError::Type("-", other.type_name())),
        },
        Function::In => is_in(evaluation, &first, &second),
        Function::Index => index(evaluation, &first, &second),
        Function::Size => size(evaluation, &first),
        Function::Contains | Function::StartsWith | Function::EndsWith | Function::Matches => {
            test_text(evaluation, function, &first, &second)
        }
        Function::LowerAscii
        | Function::UpperAscii
        | Function::Trim
        | Function::Replace
        | Function::Split => change_text(evaluation, function, &first, &second, &third),
        Function::Join => join(evaluation, &first, &second),
        Function::Type => Ok(Value::Type(first.type_name())),
        Function::Dyn => Ok(first),
        Function::Time(field) => time::field(field, &first),
        Function::NotStrictlyFalse => Ok(Value::Bool(true)),
        Function::Bool
        | Function::Int
        | Function::Uint
        | Function::Double
        | Function::String
        | Function::Bytes
        | Function::Duration
        | Function::Timestamp => convert(function, first),
    }
}

fn arithmetic<'a>(
    evaluation: &Evaluation<'a>,
    function: Function,
    left: Value<'a>,
    right: Value<'a>,
) -> Result<'a> {
    const RANGE: EvalError = EvalError::Value("out of range");
    let zero = matches!(
        (&right, function),
        (Value::Int(0) | Value::Uint(0), Function::Divide | Function::Remainder)
    );
    if zero {
        return Err(EvalError::Value("division by zero"));
    }
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            let value = match function {
                Function::Add => left.checked_add(right),
                Function::Subtract => left.checked_sub(right),
                Function::Multiply => left.checked_mul(right),
                Function::Divide => left.checked_div(right),
                _ => left.checked_rem(right),
            };
            value.map(Value::Int).ok_or(RANGE)
        }
        (Value::Uint(left), Value::Uint(right)) => {
            let value = match function {
                Function::Add => left.checked_add(right),
                Function::Subtract => left.checked_sub(right),
                Function::Multiply => left.checked_mul(right),
                Function::Divide => left.checked_div(right),
                _ => left.checked_rem(right),
            };
            value.map(Value::Uint).ok_or(RANGE)
        }
        (Value::Double(left), Value::Double(right)) => Ok(Value::Double(match function {
            Function::Add => left + right,
            Function::Subtract => left - right,
            Function::Multiply => left * right,
            Function::Divide => left / right,
            _ => return Err(EvalError::Type("%", "double")),
        })),
        (left, right) => match function {
            Function::Add => add(evaluation, left, right),
            Function::Subtract => time::subtract(&left, &right),
            _ => Err(EvalError::Type("an operator", left.type_name())),
        },
    }
}

fn add<'a>(evaluation: &Evaluation<'a>, left: Value<'a>, right: Value<'a>) -> Result<'a> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => {
            bounded(evaluation, left.len() + right.len())?;
            Ok(Value::String(left + right))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            bounded(evaluation, left.len() + right.len())?;
            Ok(Value::Bytes(Cow::Owned([left, right].concat())))
        }
        (left, right) => match (left.items(), right.items()) {
            (Some(left), Some(right)) => {
                evaluation.pay(left.len() + right.len())?;
                Ok(Value::List(left.iter().chain(&*right).cloned().collect()))
            }
            _ => time::add(&left, &right),
        },
    }
}

fn bounded(evaluation: &Evaluation<'_>, size: usize) -> std::result::Result<(), EvalError> {
    if size > SIZE {
        return Err(EvalError::Bounds);
    }
    evaluation.pay(size / 64)
}

fn compare<'a>(function: Function, left: &Value<'_>, right: &Value<'_>) -> Result<'a> {
    let Some(order) = left.compare(right) else {
        return match (left.number(), right.number()) {
            // Nothing is less or greater than what is not a number.
            (Some(_), Some(_)) => Ok(Value::Bool(false)),
            _ => Err(EvalError::Type("a comparison", right.type_name())),
        };
    };
    Ok(Value::Bool(match function {
        Function::Less => order.is_lt(),
        Function::LessOrEqual => order.is_le(),
        Function::Greater => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn is_in<'a>(evaluation: &Evaluation<'a>, item: &Value<'a>, of: &Value<'a>) -> Result<'a> {
    if let Some(items) = of.items() {
        evaluation.pay(items.len())?;
        return Ok(Value::Bool(items.iter().any(|one| one.is_equal(item))));
    }
    Ok(Value::Bool(evaluation.look_up(of, item)?.is_some()))
}

fn index<'a>(evaluation: &Evaluation<'a>, of: &Value<'a>, index: &Value<'a>) -> Result<'a> {
    let missing = || EvalError::Missing(format!("key {:?}", index.to_text().unwrap_or_default()));
    if let Some(items) = of.items() {
        let place = match index {
            Value::Int(index) => usize::try_from(*index).ok(),
            Value::Uint(index) => usize::try_from(*index).ok(),
            _ => None,
        };
        return place.and_then(|place| items.get(place).cloned()).ok_or_else(missing);
    }
    evaluation.look_up(of, index)?.ok_or_else(missing)
}

fn size<'a>(evaluation: &Evaluation<'a>, of: &Value<'a>) -> Result<'a> {
    let size = match of {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Table(Table::Metadata) => 1,
        Value::Table(table) => {
            evaluation.attributes.size(*table).ok_or(EvalError::Value("its size is not known"))?
        }
        other => match other.items().or_else(|| other.keys()) {
            Some(items) => items.len(),
            None => return Err(EvalError::Type("size()", other.type_name())),
        },
    };
    Ok(Value::Int(i64::try_from(size).map_err(|_| EvalError::Bounds)?))
}

fn test_text<'a>(
    evaluation: &Evaluation<'a>,
    function: Function,
    text: &Value<'_>,
    pattern: &Value<'_>,
) -> Result<'a> {
    let (Value::String(text), Value::String(pattern)) = (text, pattern) else {
        return Err(EvalError::Type("a text function", text.type_name()));
    };
    Ok(Value::Bool(match function {
        Function::Contains => text.contains(&**pattern),
        Function::StartsWith => text.starts_with(&**pattern),
        Function::EndsWith => text.ends_with(&**pattern),
        _ => {
            // Compiled for this one use, which must not happen often.
            evaluation.pay(1_000 + pattern.len())?;
            let regex = resolve::regex(pattern).map_err(|_| EvalError::Value("no regular expression"))?;
            regex.is_match(text)
        }
    }))
}

fn change_text<'a>(
    evaluation: &Evaluation<'a>,
    function: Function,
    text: &Value<'a>,
    second: &Value<'a>,
    third: &Value<'a>,
) -> Result<'a> {
    let Value::String(text) = text else {
        return Err(EvalError::Type("a text function", text.type_name()));
    };
    bounded(evaluation, text.len())?;
    match (function, second, third) {
        (Function::LowerAscii, ..) => Ok(Value::text(text.to_ascii_lowercase())),
        (Function::UpperAscii, ..) => Ok(Value::text(text.to_ascii_uppercase())),
        (Function::Trim, ..) => Ok(Value::text(text.trim().to_owned())),
        (Function::Replace, Value::String(from), Value::String(to)) => {
            let times =
                if from.is_empty() { text.chars().count() + 1 } else { text.matches(&**from).count() };
            bounded(evaluation, text.len() + times.saturating_mul(to.len()))?;
            Ok(Value::text(text.replace(&**from, to)))
        }
        (Function::Split, Value::String(by), _) => {
            let parts: Rc<[_]> = text.split(&**by).map(|part| Value::text(part.to_owned())).collect();
            evaluation.pay(parts.len())?;
            Ok(Value::List(parts))
        }
        _ => Err(EvalError::Type("a text function", second.type_name())),
    }
}

fn join<'a>(evaluation: &Evaluation<'a>, items: &Value<'a>, by: &Value<'a>) -> Result<'a> {
    let by = match by {
        Value::String(by) => &**by,
        _ => "",
    };
    let list = items.items().ok_or(EvalError::Type("join()", items.type_name()))?;
    let mut text = String::new();
    for (place, item) in list.iter().enumerate() {
        let Value::String(item) = item else { return Err(EvalError::Type("join()", item.type_name())) };
        if place > 0 {
            text.push_str(by);
        }
        text.push_str(item);
        bounded(evaluation, text.len())?;
    }
    Ok(Value::text(text))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "doubles are checked to be in range; their fractions are cut off"
)]
fn convert(function: Function, value: Value<'_>) -> Result<'_> {
    const RANGE: EvalError = EvalError::Value("out of range");
    const TEXT: EvalError = EvalError::Value("the text does not say such a value");
    let type_name = value.type_name();
    Ok(match (function, value) {
        (Function::Bool, value @ Value::Bool(_))
        | (Function::Int, value @ Value::Int(_))
        | (Function::Uint, value @ Value::Uint(_))
        | (Function::Double, value @ Value::Double(_))
        | (Function::Bytes, value @ Value::Bytes(_))
        | (Function::Duration, value @ Value::Duration(_))
        | (Function::Timestamp, value @ Value::Timestamp(_))
        | (Function::String, value @ Value::String(_)) => value,
        (Function::Bool, Value::String(text)) => match &*text {
            "true" | "t" | "1" | "TRUE" | "True" => Value::Bool(true),
            "false" | "f" | "0" | "FALSE" | "False" => Value::Bool(false),
            _ => return Err(TEXT),
        },
        (Function::Int, Value::Uint(value)) => Value::Int(value.try_into().map_err(|_| RANGE)?),
        (Function::Int, Value::Double(value)) if value.abs() < 9.2e18 => Value::Int(value as i64),
        (Function::Int, Value::String(text)) => Value::Int(text.parse().map_err(|_| TEXT)?),
        (Function::Int, Value::Timestamp(nanos)) => {
            Value::Int(nanos.div_euclid(1_000_000_000).try_into().map_err(|_| RANGE)?)
        }
        (Function::Uint, Value::Int(value)) => Value::Uint(value.try_into().map_err(|_| RANGE)?),
        (Function::Uint, Value::Double(value)) if (0.0..1.8e19).contains(&value) => Value::Uint(value as u64),
        (Function::Uint, Value::String(text)) => Value::Uint(text.parse().map_err(|_| TEXT)?),
        (Function::Double, Value::String(text)) => Value::Double(text.parse().map_err(|_| TEXT)?),
        (Function::Double, value @ (Value::Int(_) | Value::Uint(_))) => {
            Value::Double(value.number().ok_or(RANGE)?)
        }
        (Function::Bytes, Value::String(text)) => Value::Bytes(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        }),
        (Function::Duration, Value::String(text)) => {
            Value::Duration(time::parse_duration(&text).ok_or(TEXT)?)
        }
        (Function::Timestamp, Value::String(text)) => {
            Value::Timestamp(time::parse_timestamp(&text).ok_or(TEXT)?)
        }
        (Function::Timestamp, Value::Int(seconds)) => Value::Timestamp(i128::from(seconds) * 1_000_000_000),
        (Function::String, value) => {
            Value::text(value.to_text().ok_or(EvalError::Type("string()", type_name))?)
        }
        _ => return Err(EvalError::Type("a conversion", type_name)),
    })
}
