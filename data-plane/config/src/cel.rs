//! Expressions, as others parsed them or as text.

use prost::Message;
use sail_proxy_decide::cel::{Literal, Program, Raw, RawFold};
use xds_api::google::api::expr::v1alpha1 as proto;
use xds_api::xds::r#type::v3 as xds;

use crate::convert::Cx;

/// Expressions that others parsed may nest so deep.
const DEPTH: usize = 400;

/// An expression that others parsed.
pub(crate) fn parsed(cx: &mut Cx<'_>, value: proto::Expr) -> Option<Program> {
    let raw = cx.ok("", raw(value, 0))?;
    cx.ok("", Program::resolve(&raw))
}

/// `CheckedExpr`
pub(crate) fn checked(cx: &mut Cx<'_>, value: proto::CheckedExpr) -> Option<Program> {
    // What the checker found out follows from the expression.
    cx.required("expr", value.expr, parsed)
}

/// `CelExpression`
pub(crate) fn expression(cx: &mut Cx<'_>, value: xds::CelExpression) -> Option<Program> {
    use xds::cel_expression::ExprSpecifier as Old;
    let xds::CelExpression { cel_expr_parsed, cel_expr_checked, cel_expr_string, expr_specifier } = value;
    if !cel_expr_string.is_empty() {
        return cx.ok("cel_expr_string", Program::compile(&cel_expr_string));
    }
    // Both packages have the same messages under other names.
    let same = |bytes: Vec<u8>| proto::Expr::decode(bytes.as_slice()).ok();
    let expr = match expr_specifier {
        Some(Old::ParsedExpr(value)) => value.expr,
        Some(Old::CheckedExpr(value)) => value.expr,
        None => {
            let parsed = cel_expr_parsed.and_then(|value| value.expr);
            let found = parsed.or_else(|| cel_expr_checked.and_then(|value| value.expr));
            found.and_then(|expr| same(expr.encode_to_vec()))
        }
    };
    cx.required("cel_expr_parsed.expr", expr, parsed)
}

fn raw(value: proto::Expr, depth: usize) -> Result<Raw, String> {
    use proto::constant::ConstantKind;
    use proto::expr::ExprKind;
    if depth > DEPTH {
        return Err(format!("it nests deeper than {DEPTH}"));
    }
    let inner = |value: proto::Expr| raw(value, depth + 1);
    let part = |value: Option<Box<proto::Expr>>| {
        value.ok_or_else(|| "a part of the expression is missing".to_owned()).and_then(|value| inner(*value))
    };
    Ok(match value.expr_kind.ok_or("an expression of no kind")? {
        ExprKind::ConstExpr(constant) => Raw::Literal(match constant.constant_kind {
            None | Some(ConstantKind::NullValue(_)) => Literal::Null,
            Some(ConstantKind::BoolValue(value)) => Literal::Bool(value),
            Some(ConstantKind::Int64Value(value)) => Literal::Int(value),
            Some(ConstantKind::Uint64Value(value)) => Literal::Uint(value),
            Some(ConstantKind::DoubleValue(value)) => Literal::Double(value),
            Some(ConstantKind::StringValue(text)) => Literal::String(text.into()),
            Some(ConstantKind::BytesValue(bytes)) => Literal::Bytes(bytes.into()),
            Some(ConstantKind::DurationValue(_) | ConstantKind::TimestampValue(_)) => {
                return Err("durations and timestamps are written as function calls".to_owned());
            }
        }),
        ExprKind::IdentExpr(ident) => Raw::Ident(ident.name.into()),
        ExprKind::SelectExpr(select) => Raw::Select {
            operand: Box::new(part(select.operand)?),
            field: select.field.into(),
            test: select.test_only,
        },
        ExprKind::CallExpr(call) => Raw::Call {
            target: match call.target {
                Some(target) => Some(Box::new(inner(*target)?)),
                None => None,
            },
            function: call.function.into(),
            arguments: call.args.into_iter().map(inner).collect::<Result<_, _>>()?,
        },
        ExprKind::ListExpr(list) => {
            Raw::List(list.elements.into_iter().map(inner).collect::<Result<_, _>>()?)
        }
        ExprKind::StructExpr(value) => {
            if !value.message_name.is_empty() {
                return Err(format!("messages such as {:?} cannot be made", value.message_name));
            }
            let entries = value.entries.into_iter().map(|entry| {
                use proto::expr::create_struct::entry::KeyKind;
                let key = match entry.key_kind {
                    Some(KeyKind::MapKey(key)) => inner(key)?,
                    Some(KeyKind::FieldKey(name)) => Raw::Literal(Literal::String(name.into())),
                    None => return Err("a map's key is missing".to_owned()),
                };
                let value = entry.value.ok_or("a map's value is missing")?;
                Ok((key, inner(value)?))
            });
            Raw::Map(entries.collect::<Result<_, _>>()?)
        }
        ExprKind::ComprehensionExpr(fold) => Raw::Fold(Box::new(RawFold {
            variable: fold.iter_var.into(),
            range: part(fold.iter_range)?,
            accumulator: fold.accu_var.into(),
            init: part(fold.accu_init)?,
            condition: part(fold.loop_condition)?,
            step: part(fold.loop_step)?,
            result: part(fold.result)?,
        })),
    })
}
